"""What the page and its Markdown both show of a record, picked out and put in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.audits import NamedMeasure
from auditkit.core.confirmations import CausalVerdict, Confirmation, EffectTest
from auditkit.core.locks import ConfirmPlan, LockedRule, LockedSignal, Status
from auditkit.core.measured import Measure, Measured
from auditkit.core.tokens import TokenMask
from auditkit.report.document import ReportDocument
from auditkit.report.wording import RULE, baselines_above

_MASK_NAMES = {
    TokenMask.BOS: "beginning of text",
    TokenMask.TEMPLATE: "chat template",
    TokenMask.SPECIAL: "special tokens",
    TokenMask.PADDING: "padding",
    TokenMask.HIGH_NORM: "high norm",
}
_OF_LATENT = re.compile(r"latent (\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check of a causal test with its unit, and how its value is read."""

    name: str
    value: Measure
    unit: str
    reading: str


def of_the_sae(
    card: Sequence[NamedMeasure],
) -> tuple[list[NamedMeasure], list[NamedMeasure]]:
    """A card's rows on the SAE itself, and those on dictionaries beside it (`MEASURE: WHOSE`)."""
    own = [m for m in card if ": " not in m.name]
    return own, [m for m in card if ": " in m.name]


def plan_of(rule: LockedRule, confirmation: Confirmation) -> ConfirmPlan | None:
    """The plan that a confirmation carried out, None where the rule has no such plan."""
    return next((p for p in rule.confirm if p.name == confirmation.name), None)


def tests_of(confirmation: Confirmation) -> list[EffectTest]:
    """Every test that was run: steering, ablation, then the others."""
    main = [t for t in (confirmation.steering, confirmation.ablation) if t is not None]
    return [*main, *confirmation.other_tests]


def latents_of(signal: LockedSignal) -> list[tuple[int, float, float, float]]:
    """Latent, weight, scale and offset, the heaviest first."""
    rows = [(x.latent, x.weight, x.scale, x.offset) for x in signal.latents]
    return sorted(rows, key=lambda row: (-abs(row[1]), row[0]))


def checks_of(c: Confirmation) -> list[Check]:
    """The checks that an effect is the rule's own."""
    rows = (
        ("Identity gate", c.identity_gate, "", "largest change of a logit at dose 0; ≤ 0.00001"),
        ("Dose trend, p", c.trend_p, "", "Page's L over the doses; below 0.01 counts as a trend"),
        ("Mean Spearman over doses", c.mean_spearman, "", "1: rises with every dose everywhere"),
        ("Specificity", c.specificity, "", "effect over that on unrelated words; at least 2"),
        ("Damage, KL on benign text", c.damage_kl, "nats per token", "at most the budget below"),
        ("Damage budget", c.damage_budget, "nats per token", "95% of controls of equal norm"),
        (
            "Damage, cross-entropy",
            c.damage_ce,
            "nats per token",
            "loss added on benign text where the signal is silent",
        ),
        (
            "Sign flip",
            c.sign_flip,
            "",
            "the direction reversed; an effect the other way is expected",
        ),
        (
            "Positive control",
            c.positive_control,
            "",
            "difference of means at equal norm; where even this moves nothing, the test is deaf",
        ),
    )
    return [Check(name=n, value=v, unit=u, reading=r) for n, v, u, r in rows]


def notes_of(confirmation: Confirmation) -> list[str]:
    """The notes of a test; what is the same for several latents is said once."""
    grouped: dict[str, list[str]] = {}
    for note in confirmation.notes:
        found = _OF_LATENT.fullmatch(note)
        grouped.setdefault(found[2] if found else note, []).extend([found[1]] if found else [])
    return [
        f"{'latent' if len(latents) == 1 else 'latents'} {', '.join(latents)}: {said}"
        if latents
        else said
        for said, latents in grouped.items()
    ]


def verdicts_of(doc: ReportDocument) -> list[CausalVerdict]:
    """The causal verdicts that occur in a report, in their fixed order."""
    return [verdict for verdict, _ in doc.headline.verdicts]


def statuses_of(doc: ReportDocument) -> list[Status]:
    """The statuses that occur among the rules of a report, in their fixed order."""
    found = {rule.status for rule in doc.audit.lock.rules}
    return [status for status in Status if status in found]


def rival_of(rule: LockedRule) -> tuple[str, Measured, bool] | None:
    """The best baseline above the rule: its name, its AUROC, and whether the intervals overlap."""
    above, own = baselines_above(rule.scores), own_score(rule)
    if not above or not isinstance(own, Measured) or not isinstance(above[0].auroc, Measured):
        return None
    best = above[0].auroc
    apart = bool(own.interval and best.interval and own.interval.high < best.interval.low)
    return above[0].detector, best, not apart


def own_score(rule: LockedRule) -> Measure | None:
    """The rule's held-out AUROC; None where it was not scored."""
    return next((s.auroc for s in rule.scores if s.detector == RULE), None)


def mask_names(masked: TokenMask) -> list[str]:
    """The masks in words."""
    return [name for bit, name in _MASK_NAMES.items() if bit & masked]


def left_out(masked: tuple[tuple[str, int], ...]) -> str:
    """How many tokens carry which mask, in words: `beginning of text 60, chat template 1,800`."""
    names = {bit.name: name for bit, name in _MASK_NAMES.items()}
    return ", ".join(f"{names[mask.upper()]} {n:,}" for mask, n in masked)
