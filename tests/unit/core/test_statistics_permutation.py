"""Sign-flip and rank tests, and Benjamini–Hochberg: exactness, bounds, invariance, calibration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from auditkit.core.statistics import (
    Alternative,
    benjamini_hochberg,
    controls_needed,
    rank_p_value,
    sign_flip_p_value,
)

differences = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=1, max_size=8)
alternatives = st.sampled_from(["greater", "less", "two-sided"])


@given(differences, alternatives)
def test_few_differences_are_tested_over_every_sign_pattern(
    x: list[float], alternative: Alternative
) -> None:
    turned = -np.array(x) if alternative == "less" else np.array(x)
    fold = np.abs if alternative == "two-sided" else np.asarray
    sums = np.array([fold(np.dot(s, turned)) for s in product((1, -1), repeat=len(x))])
    expected = np.mean(sums >= fold(turned.sum()) - 1e-9 * np.abs(turned).sum())
    assert sign_flip_p_value(x, alternative=alternative) == pytest.approx(expected)


@given(differences, st.floats(0.01, 100), st.randoms())
def test_scale_and_order_of_differences_change_nothing(
    x: list[float], scale: float, random: object
) -> None:
    shuffled = list(x)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sign_flip_p_value([v * scale for v in shuffled]) == pytest.approx(sign_flip_p_value(x))


def test_random_patterns_never_give_zero_and_follow_the_seed() -> None:
    strong = np.full(40, 1.0)
    assert sign_flip_p_value(strong, trials=999) == 1 / 1000
    noise = np.random.default_rng(0).normal(0.2, 1, 40)
    first = sign_flip_p_value(noise, seed=1)
    assert first == sign_flip_p_value(noise, seed=1)
    assert first == pytest.approx(sign_flip_p_value(noise, seed=2), abs=0.02)


def test_under_symmetry_small_p_values_are_rare() -> None:
    rng = np.random.default_rng(5)
    p = [sign_flip_p_value(rng.standard_t(3, 20), trials=400, seed=i) for i in range(400)]
    assert np.mean(np.array(p) <= 0.05) <= 0.08


def test_no_differences_prove_nothing() -> None:
    assert sign_flip_p_value([]) == 1.0
    assert sign_flip_p_value([0.0] * 6) == 1.0


def test_values_that_are_not_finite_raise() -> None:
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p_value([1.0, float("inf")])
    with pytest.raises(ValueError, match="finite"):
        rank_p_value(float("nan"), [1.0])


def test_rank_counts_ties_against_the_target() -> None:
    assert rank_p_value(3.0, [1.0, 2.0, 3.0]) == 0.5
    assert rank_p_value(4.0, np.zeros(99)) == 0.01
    assert rank_p_value(-4.0, np.zeros(99), alternative="less") == 0.01
    assert rank_p_value(1.0, [-2.0, 0.0, 0.5], alternative="two-sided") == 0.5


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), max_size=30), alternatives)
def test_a_rank_p_value_lies_between_one_over_k_plus_one_and_one(
    observed: float, controls: list[float], alternative: Alternative
) -> None:
    p = rank_p_value(observed, controls, alternative=alternative)
    assert 1 / (len(controls) + 1) <= p <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_q_values_agree_with_scipy_and_are_never_below_p(p: list[float]) -> None:
    q = benjamini_hochberg(p)
    assert q == pytest.approx(list(false_discovery_control(p)))
    assert all(a >= b - 1e-12 for a, b in zip(q, p, strict=True))


def test_q_values_of_nothing_are_nothing_and_bad_p_values_raise() -> None:
    assert benjamini_hochberg([]) == []
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        benjamini_hochberg([0.5, float("nan")])


@given(st.integers(1, 60), st.sampled_from([0.01, 0.05, 0.1]))
def test_controls_needed_are_the_fewest_that_come_below_q(tests: int, q: float) -> None:
    k = controls_needed(tests, q)
    assert tests / (k + 1) < q
    assert k == 0 or tests / k >= q * (1 - 1e-9)


def test_twenty_tests_need_400_controls() -> None:
    assert controls_needed(20, 0.05) == 400
    with pytest.raises(ValueError, match="at least one test"):
        controls_needed(0, 0.05)
