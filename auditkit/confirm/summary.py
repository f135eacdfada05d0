"""One rule's numbers out of its trials, ready for the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from auditkit.confirm.analysis import (
    Comparison,
    TrialTable,
    compare,
    counts,
    damage,
    dose_points,
    dose_trend,
    single,
    specificity,
)
from auditkit.confirm.necessity import ABLATE
from auditkit.confirm.outcomes import LEXEME_RATE
from auditkit.confirm.verdicts import ALPHA, EQUIVALENCE_SHARE, RawConfirmation
from auditkit.core.confirmations import Arm, ReplyExample, Trial
from auditkit.core.locks import ConfirmPlan
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.statistics import (
    equivalence_p_value,
    more_observations_to_decide,
    sign_flip_p_value,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the trials do not say: the question, the dose chosen, the gate, texts and notes."""

    id: str
    rule_id: str
    plan: ConfirmPlan
    op: str
    sign: int
    main_dose: float
    seed: int
    futility_hits: int
    prompts: int
    identity_gate: Measure
    invalid: str | None
    replies: tuple[ReplyExample, ...] = ()
    notes: tuple[str, ...] = ()


def invalid_result(facts: RunFacts, why: str) -> RawConfirmation:
    """The result of a test that could not be run."""
    return summarise((), facts, invalid=why)


def summarise(
    trials: Iterable[Trial], facts: RunFacts, *, invalid: str | None = None
) -> RawConfirmation:
    """Every number of a confirmation from its trials: run again on stored trials, the same."""
    table = TrialTable.of(trials)
    op, dose, seed, hits = facts.op, facts.main_dose, facts.seed, facts.futility_hits
    sign = facts.sign
    steering = compare(table, op=op, dose=dose, sign=sign, seed=seed, hits=hits)
    ablation = compare(table, op=ABLATE, dose=0.0, sign=-sign, seed=seed, hits=hits)
    reply = compare(table, op=op, dose=dose, sign=sign, seed=seed, hits=hits, metric=LEXEME_RATE)
    trend, spearman = dose_trend(table, op=op, up_to=dose, sign=facts.sign, seed=seed)
    kl, ce, budget = damage(table, op=op, dose=dose, seed=seed)
    equivalence, bound = _equivalence(table, steering, facts)
    reason = invalid or facts.invalid
    if reason is None and steering is None:
        reason = "no controls were run, and without them nothing can be concluded"
    return RawConfirmation(
        id=facts.id,
        rule_id=facts.rule_id,
        name=facts.plan.name,
        signal=facts.plan.intervene.signal,
        metric=facts.plan.metric,
        q=facts.plan.q,
        prompts=facts.prompts,
        invalid=reason,
        identity_gate=facts.identity_gate,
        steering=steering.test if steering else None,
        ablation=ablation.test if ablation else None,
        other_tests=(reply.test,) if reply else (),
        doses=dose_points(table, op=op, seed=seed),
        trend_p=trend,
        mean_spearman=spearman,
        specificity=specificity(table, op=op, dose=dose),
        damage_kl=kl,
        damage_ce=ce,
        damage_budget=budget,
        positive_control=single(table, Arm.POSITIVE, op=op, dose=dose, seed=seed),
        sign_flip=single(table, Arm.SIGN_FLIP, op=op, dose=dose, seed=seed),
        p_any=Measured(value=steering.p_any, n=steering.test.prompts)
        if steering
        else NotMeasured("not run"),
        equivalence_p=equivalence,
        more_prompts=None
        if steering is None or bound is None
        else more_observations_to_decide(steering.effects, bound=bound),
        control_counts=counts(table, op=op, dose=dose),
        replies=facts.replies,
        notes=facts.notes,
        monotonic=facts.plan.monotonic,
    )


def _equivalence(
    table: TrialTable, steering: Comparison | None, facts: RunFacts
) -> tuple[Measure, float | None]:
    """TOST of the steering effect within ±0.2 of the positive control's, and that bound."""
    positive = table.own(Arm.POSITIVE, facts.op, facts.main_dose)
    if steering is None or not positive:
        return NotMeasured("there is no positive control to measure an absence against"), None
    oriented = facts.sign * np.array(list(positive.values()))
    if sign_flip_p_value(oriented, seed=facts.seed) >= ALPHA:
        return NotMeasured("the positive control moves nothing either: the outcome is deaf"), None
    bound = EQUIVALENCE_SHARE * float(oriented.mean())
    p = equivalence_p_value(steering.effects, low=-bound, high=bound)
    return Measured(value=p, n=len(steering.effects)), bound
