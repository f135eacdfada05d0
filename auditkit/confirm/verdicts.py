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
    any effect at all of the steering, before the controls are taken off. `monotonic`: whether the
    rule claims that the effect grows with the dose.
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
    monotonic: bool = True


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
        verdict, why = decide(raw, len(main))
        finished.append(_confirmation(raw, verdict, why, len(main)))
    return finished


def decide(raw: RawConfirmation, tests: int) -> tuple[CausalVerdict, str]:
    """The verdict table, from q-values that are already corrected over `tests` tests."""
    if raw.invalid is not None:
        return CausalVerdict.INVALID, raw.invalid
    assert raw.steering is not None
    steers = raw.steering.q < raw.q
    ablates = raw.ablation is not None and raw.ablation.q < raw.q
    fault = _fault(raw)
    if (steers or _moves(raw)) and fault is not None:
        return CausalVerdict.NONSPECIFIC, fault
    trend = not raw.monotonic or (isinstance(raw.trend_p, Measured) and raw.trend_p.value < TREND_P)
    if steers and trend and (missing := _unmeasured(raw)):
        return CausalVerdict.INCONCLUSIVE, f"pushing brings the words, but {missing}"
    if steers and trend and ablates:
        more = ", more with the dose" if raw.monotonic else ""
        return CausalVerdict.CONFIRMED, (
            f"pushing the latents brings the words{more}, and removing them takes the words away, "
            "both beyond the matched controls"
        )
    if steers and trend:
        why = "pushing brings the words; " + _no_ablation(raw, tests)
        return CausalVerdict.SUFFICIENT_ONLY, why
    if ablates:
        why = "without a dose trend" if steers else f"q {raw.steering.q:.3g}"
        return (
            CausalVerdict.NECESSARY_ONLY,
            f"removing the latents takes the words away; pushing does not pass ({why})",
        )
    return _without_effect(raw, tests, steers=steers)


def _without_effect(raw: RawConfirmation, tests: int, *, steers: bool) -> tuple[CausalVerdict, str]:
    equal = isinstance(raw.equivalence_p, Measured) and raw.equivalence_p.value < ALPHA
    if equal and not steers:
        return CausalVerdict.DETECTOR_ONLY, (
            "fires, but pushing it does as good as nothing: the effect lies within "
            f"±{EQUIVALENCE_SHARE:g} of the positive control's"
        )
    if not steers and raw.steering is not None and _beyond_alone(raw.steering, raw.q):
        return CausalVerdict.INCONCLUSIVE, "pushing moves the words " + _too_many_tests(
            raw.steering, tests, raw.q
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


def _unmeasured(raw: RawConfirmation) -> str | None:
    """What an effect must stand beside before it counts as the rule's own, and does not."""
    needed = {
        "its damage to benign text": raw.damage_kl,
        "the damage that controls do": raw.damage_budget,
        "its specificity": raw.specificity,
    }
    missing = [
        f"{name} was not measured ({value.reason})"
        for name, value in needed.items()
        if not isinstance(value, Measured)
    ]
    return "; ".join(missing) or None


def _no_ablation(raw: RawConfirmation, tests: int) -> str:
    if raw.ablation is None:
        return "necessity was not tested"
    if _beyond_alone(raw.ablation, raw.q):
        return "removing the latents moves them " + _too_many_tests(raw.ablation, tests, raw.q)
    return f"removing the latents changes nothing beyond controls (q {raw.ablation.q:.3g})"


def _outranks_all(test: EffectTest) -> bool:
    return test.p_rank <= 1.0001 / (test.controls + 1)


def _beyond_alone(test: EffectTest, q: float) -> bool:
    """Beyond the controls as the only test of a run, or beyond every one of too few controls."""
    return test.p < q or (_outranks_all(test) and test.p_sign < q)


def _too_many_tests(test: EffectTest, tests: int, q: float) -> str:
    said = f"beyond the controls by itself (p {test.p:.3g})"
    if tests > 1:
        said += f", but not after correction over {tests} tests (q {test.q:.3g})"
    more = _more_controls(test, tests, q)
    if more is None:
        return said + "; only fewer tests or a stronger effect would show it"
    rank = "no control did as much" if _outranks_all(test) else "few controls did as much"
    return said + f"; {rank}, and {more} more would tell"


def _more_controls(test: EffectTest, tests: int, q: float) -> int | None:
    """How many controls a lone effect among `tests` lacks; None where there are enough."""
    lacking = controls_needed(tests, q) - test.controls
    return lacking if lacking > 0 else None


def _confirmation(
    raw: RawConfirmation, verdict: CausalVerdict, why: str, tests: int
) -> Confirmation:
    more_prompts, more_controls = None, None
    if verdict is CausalVerdict.INCONCLUSIVE and raw.steering is not None:
        steering = raw.steering
        if steering.q >= raw.q and _beyond_alone(steering, raw.q):
            more_controls = _more_controls(steering, tests, raw.q)
        else:
            more_prompts = raw.more_prompts
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
        more_prompts=more_prompts,
        more_controls=more_controls,
        control_counts=raw.control_counts,
        replies=raw.replies,
        notes=raw.notes,
    )
