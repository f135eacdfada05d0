"""From the numbers of all rules of a run to verdicts: corrected together, decided one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from auditkit.core.confirmations import (
    CausalVerdict,
    Confirmation,
    DosePoint,
    EffectTest,
    ReplyExample,
)
from auditkit.core.measured import Measure, Measured
from auditkit.core.statistics import benjamini_hochberg, controls_needed

TREND_P = 0.01
MIN_SPECIFICITY = 2.0
EQUIVALENCE_SHARE = 0.2
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RawConfirmation:
    """One rule's numbers before the correction over the run.

    `invalid` says why nothing can be concluded. `equivalence_p` is of TOST within ±0.2 of the
    positive control's effect, not measured where that moved nothing. `p_any` is the p-value of
    any effect at all of the steering, before the controls are taken off.
    """

    id: str
    rule_id: str
    name: str
    signal: str
    metric: str
    q: float
    prompts: int
    invalid: str | None
    identity_gate: Measure
    steering: EffectTest | None
    ablation: EffectTest | None
    other_tests: tuple[EffectTest, ...]
    doses: tuple[DosePoint, ...]
    trend_p: Measure
    mean_spearman: Measure
    specificity: Measure
    damage_kl: Measure
    damage_ce: Measure
    damage_budget: Measure
    positive_control: Measure
    sign_flip: Measure
    p_any: Measure
    equivalence_p: Measure
    more_prompts: int | None
    control_counts: tuple[tuple[str, int], ...]
    replies: tuple[ReplyExample, ...]
    notes: tuple[str, ...]


def finish_verdicts(raws: Sequence[RawConfirmation]) -> list[Confirmation]:
    """Benjamini–Hochberg over every steering and ablation test of the run, then the verdicts.

    Tests on written replies are corrected among themselves: they describe, and decide nothing.
    """
    main = [t for raw in raws for t in (raw.steering, raw.ablation) if t is not None]
    other = [t for raw in raws for t in raw.other_tests]
    q_main = iter(benjamini_hochberg([t.p for t in main]))
    q_other = iter(benjamini_hochberg([t.p for t in other]))
    finished: list[Confirmation] = []
    for raw in raws:
        raw = replace(
            raw,
            steering=replace(raw.steering, q=next(q_main)) if raw.steering else None,
            ablation=replace(raw.ablation, q=next(q_main)) if raw.ablation else None,
            other_tests=tuple(replace(t, q=next(q_other)) for t in raw.other_tests),
        )
        verdict, why = decide(raw)
        finished.append(_confirmation(raw, verdict, why, _reach(raw, len(main))))
    return finished


def decide(raw: RawConfirmation) -> tuple[CausalVerdict, str]:
    """The verdict table, from q-values that are already corrected."""
    if raw.invalid is not None:
        return CausalVerdict.INVALID, raw.invalid
    assert raw.steering is not None
    steers = raw.steering.q < raw.q
    ablates = raw.ablation is not None and raw.ablation.q < raw.q
    fault = _fault(raw)
    if (steers or _moves(raw)) and fault is not None:
        return CausalVerdict.NONSPECIFIC, fault
    trend = isinstance(raw.trend_p, Measured) and raw.trend_p.value < TREND_P
    if steers and trend and ablates:
        return CausalVerdict.CONFIRMED, (
            "pushing the latents brings the words, more with the dose, and removing them takes "
            "the words away, both beyond the matched controls"
        )
    if steers and trend:
        return CausalVerdict.SUFFICIENT_ONLY, "pushing brings the words; " + _no_ablation(raw)
    if ablates:
        why = "without a dose trend" if steers else f"q {raw.steering.q:.3g}"
        return (
            CausalVerdict.NECESSARY_ONLY,
            f"removing the latents takes the words away; pushing does not pass ({why})",
        )
    return _without_effect(raw, steers=steers)


def _without_effect(raw: RawConfirmation, *, steers: bool) -> tuple[CausalVerdict, str]:
    equal = isinstance(raw.equivalence_p, Measured) and raw.equivalence_p.value < ALPHA
    if equal and not steers:
        return CausalVerdict.DETECTOR_ONLY, (
            "fires, but pushing it does as good as nothing: the effect lies within "
            f"±{EQUIVALENCE_SHARE:g} of the positive control's"
        )
    if _moves(raw) and not steers:
        return (
            CausalVerdict.NONSPECIFIC,
            "the words move, but no further than under the controls",
        )
    if steers:
        return CausalVerdict.INCONCLUSIVE, "pushing brings the words, but not more with the dose"
    if not isinstance(raw.equivalence_p, Measured):
        return CausalVerdict.INCONCLUSIVE, raw.equivalence_p.reason
    more = (
        f"about {raw.more_prompts} more prompts would tell"
        if raw.more_prompts
        else ("more prompts of this kind would not help; more controls might")
    )
    return CausalVerdict.INCONCLUSIVE, f"neither an effect nor its absence is shown; {more}"


def _moves(raw: RawConfirmation) -> bool:
    return isinstance(raw.p_any, Measured) and raw.p_any.value < ALPHA


def _fault(raw: RawConfirmation) -> str | None:
    """Why an effect is not the rule's own: damage over budget, or other words move as much."""
    kl, budget, special = raw.damage_kl, raw.damage_budget, raw.specificity
    if isinstance(kl, Measured) and isinstance(budget, Measured) and kl.value > budget.value:
        return (
            f"damage over budget: KL {kl.value:.3g} nats per token on benign text, "
            f"95% of controls stay within {budget.value:.3g}"
        )
    steers = raw.steering is not None and raw.steering.q < raw.q
    if steers and isinstance(special, Measured) and special.value < MIN_SPECIFICITY:
        return (
            f"unrelated words move as well: specificity {special.value:.2g}, "
            f"{MIN_SPECIFICITY:g} is needed"
        )
    return None


def _no_ablation(raw: RawConfirmation) -> str:
    if raw.ablation is None:
        return "necessity was not tested"
    return f"removing the latents changes nothing beyond controls (q {raw.ablation.q:.3g})"


def _reach(raw: RawConfirmation, tests: int) -> tuple[str, ...]:
    if raw.steering is None or tests == 0:
        return ()
    run = raw.steering.controls
    outranked_all = raw.steering.p_rank <= 1.0001 / (run + 1)
    if raw.steering.q < raw.q or not outranked_all:
        return ()
    return (
        f"no control did as much, but {run} controls are too few for q {raw.q:g} among {tests} "
        f"tests: a single true effect needs {controls_needed(tests, raw.q)}",
    )


def _confirmation(
    raw: RawConfirmation, verdict: CausalVerdict, why: str, more_notes: tuple[str, ...]
) -> Confirmation:
    return Confirmation(
        id=raw.id,
        rule_id=raw.rule_id,
        name=raw.name,
        signal=raw.signal,
        verdict=verdict,
        why=why,
        metric=raw.metric,
        prompts=raw.prompts,
        identity_gate=raw.identity_gate,
        steering=raw.steering,
        ablation=raw.ablation,
        other_tests=raw.other_tests,
        doses=raw.doses,
        trend_p=raw.trend_p,
        mean_spearman=raw.mean_spearman,
        specificity=raw.specificity,
        damage_kl=raw.damage_kl,
        damage_ce=raw.damage_ce,
        damage_budget=raw.damage_budget,
        positive_control=raw.positive_control,
        sign_flip=raw.sign_flip,
        more_prompts=raw.more_prompts if verdict is CausalVerdict.INCONCLUSIVE else None,
        control_counts=raw.control_counts,
        replies=raw.replies,
        notes=raw.notes + more_notes,
    )
