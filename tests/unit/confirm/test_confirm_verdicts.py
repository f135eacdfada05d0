"""The verdict table, row by row, and the correction over a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.confirm import RawConfirmation, finish_verdicts
from auditkit.confirm.analysis import pooled_rank_p
from auditkit.core.confirmations import CausalVerdict, EffectTest
from auditkit.core.measured import Measured, NotMeasured


def _value(x: float) -> Measured:
    return Measured(value=x, n=64)


def _test(p: float, op: str = "steer", controls: int = 239) -> EffectTest:
    return EffectTest(
        op=op,
        metric="lexicon_logodds",
        effect=_value(2.0),
        control_mean=0.0,
        control_sd=0.3,
        controls=controls,
        prompts=64,
        p_sign=p,
        p_rank=p,
        p=p,
        q=1.0,
    )


STRONG = RawConfirmation(
    id="c",
    rule_id="r",
    name="dose",
    signal="s",
    metric="lexicon_logodds",
    q=0.05,
    prompts=64,
    invalid=None,
    identity_gate=_value(0.0),
    steering=_test(0.005),
    ablation=_test(0.005, "ablate"),
    other_tests=(),
    doses=(),
    trend_p=_value(1e-6),
    mean_spearman=_value(0.9),
    specificity=_value(5.0),
    damage_kl=_value(0.01),
    damage_ce=_value(0.01),
    damage_budget=_value(0.02),
    positive_control=_value(3.0),
    sign_flip=_value(-2.0),
    p_any=_value(1e-4),
    equivalence_p=_value(0.9),
    more_prompts=40,
    control_counts=(),
    replies=(),
    notes=(),
)
NULL = replace(STRONG, steering=_test(0.6), ablation=_test(0.7, "ablate"), p_any=_value(0.5))


@pytest.mark.parametrize(
    ("raw", "verdict", "why"),
    [
        (STRONG, CausalVerdict.CONFIRMED, "both beyond"),
        (replace(STRONG, ablation=_test(0.5, "ablate")), CausalVerdict.SUFFICIENT_ONLY, "q 0.5"),
        (replace(STRONG, ablation=None), CausalVerdict.SUFFICIENT_ONLY, "not tested"),
        (
            replace(STRONG, steering=_test(0.5), p_any=_value(0.5)),
            CausalVerdict.NECESSARY_ONLY,
            "takes the words away",
        ),
        (replace(STRONG, trend_p=_value(0.2)), CausalVerdict.NECESSARY_ONLY, "dose trend"),
        (
            replace(STRONG, trend_p=_value(0.2), ablation=_test(0.5)),
            CausalVerdict.INCONCLUSIVE,
            "not more with the dose",
        ),
        (replace(STRONG, damage_kl=_value(0.03)), CausalVerdict.NONSPECIFIC, "damage over budget"),
        (replace(STRONG, specificity=_value(1.2)), CausalVerdict.NONSPECIFIC, "unrelated words"),
        (replace(NULL, p_any=_value(0.001)), CausalVerdict.NONSPECIFIC, "no further than"),
        (replace(NULL, equivalence_p=_value(0.01)), CausalVerdict.DETECTOR_ONLY, "good as nothing"),
        (NULL, CausalVerdict.INCONCLUSIVE, "about 40 more prompts"),
        (
            replace(NULL, equivalence_p=NotMeasured("the outcome is deaf")),
            CausalVerdict.INCONCLUSIVE,
            "deaf",
        ),
        (replace(STRONG, invalid="dead latent"), CausalVerdict.INVALID, "dead latent"),
    ],
)
def test_each_row_of_the_table(raw: RawConfirmation, verdict: CausalVerdict, why: str) -> None:
    confirmation = finish_verdicts([raw])[0]
    assert confirmation.verdict is verdict
    assert why in confirmation.why


def test_more_prompts_are_named_only_where_inconclusive() -> None:
    strong, null = finish_verdicts([STRONG, NULL])
    assert strong.more_prompts is None
    assert null.more_prompts == 40


def test_q_is_corrected_over_all_tests_of_the_run() -> None:
    crowd = [replace(NULL, steering=_test(0.5), ablation=_test(0.9)) for _ in range(19)]
    alone, among = finish_verdicts([STRONG])[0], finish_verdicts([STRONG, *crowd])[0]
    assert alone.steering is not None
    assert among.steering is not None
    assert alone.steering.q == pytest.approx(0.005)
    assert among.steering.q == pytest.approx(0.005 * 40 / 2)
    assert among.verdict is not CausalVerdict.CONFIRMED


def test_beyond_all_controls_but_too_few_for_the_family_is_inconclusive() -> None:
    outranked = replace(_test(1 / 20, controls=19), p_sign=1e-4)
    few = replace(STRONG, steering=outranked, ablation=None)
    crowd = [replace(NULL, ablation=None) for _ in range(5)]
    confirmation = finish_verdicts([few, *crowd])[0]
    assert confirmation.verdict is CausalVerdict.INCONCLUSIVE
    assert "no control did as much, and 101 more would tell" in confirmation.why
    assert "over 6 tests" in confirmation.why
    assert (confirmation.more_controls, confirmation.more_prompts) == (101, None)
    enough = replace(few, steering=_test(1 / 121, controls=120))
    assert finish_verdicts([enough, *crowd])[0].verdict is CausalVerdict.SUFFICIENT_ONLY


def test_an_ablation_lost_to_correction_alone_is_said_to_be() -> None:
    raw = replace(STRONG, ablation=_test(1 / 31, "ablate", controls=30))
    confirmation = finish_verdicts([raw, NULL, NULL])[0]
    assert confirmation.verdict is CausalVerdict.SUFFICIENT_ONLY
    assert "removing the latents moves them beyond the controls by itself" in confirmation.why


@given(st.floats(0.0005, 1.0), st.integers(0, 30), st.floats(0.0, 1.0))
def test_what_is_beyond_the_controls_is_never_called_within_them(
    p: float, others: int, p_any: float
) -> None:
    raw = replace(STRONG, steering=_test(p), ablation=None, p_any=_value(p_any))
    confirmation = finish_verdicts([raw, *[NULL] * others])[0]
    assert not (p < 0.05 and "no further than" in confirmation.why)


@pytest.mark.parametrize("missing", ["damage_kl", "damage_budget", "specificity"])
def test_nothing_is_confirmed_on_what_was_not_measured(missing: str) -> None:
    raw = replace(STRONG, **{missing: NotMeasured("no benign text")})
    confirmation = finish_verdicts([raw])[0]
    assert confirmation.verdict is CausalVerdict.INCONCLUSIVE
    assert "was not measured (no benign text)" in confirmation.why


def test_no_trend_is_asked_of_a_claim_without_one() -> None:
    raw = replace(STRONG, trend_p=_value(0.4), monotonic=False)
    assert finish_verdicts([raw])[0].verdict is CausalVerdict.CONFIRMED


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_the_pooled_rank_is_uniform_enough_for_one_more_matched_control(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = [rng.normal(0, s, 20) for s in (1.0, 0.2)]
    p = pooled_rank_p(float(rng.normal(0, 1.0)), strata)
    assert 1 / 41 <= p <= 1.0


def test_weak_directions_do_not_stand_in_for_matched_latents() -> None:
    rng = np.random.default_rng(0)
    strong, weak = rng.normal(0, 1.0, 50), rng.normal(0, 0.01, 200)
    assert pooled_rank_p(1.5, [strong, weak]) > 0.02
    assert pooled_rank_p(9.0, [strong, weak]) == pytest.approx(1 / 251)
    assert pooled_rank_p(1.0, [np.array([0.1])]) == 1.0


def test_the_pooled_rank_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    hits = [
        pooled_rank_p(float(rng.normal(0, 1)), [rng.normal(0, 1, 30), rng.normal(0, 0.3, 30)])
        <= 0.05
        for _ in range(400)
    ]
    assert np.mean(hits) <= 0.075
