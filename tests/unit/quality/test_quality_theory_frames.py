"""Interference, coherence and packing: every formula against what is drawn at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.statistics.bootstrap import measure_mean
from auditkit.quality.theory import (
    ONE,
    SIGN,
    UNIFORM,
    Amplitude,
    asymptotic_coherence,
    draw_codes,
    expected_interference,
    least_interference,
    moment_bound,
    mutual_coherence,
    pack_tightly,
    packing_bounds,
    pair_tail,
    random_coherence,
    random_coherence_quantile,
    random_frame,
    simulate_interference,
    uniform_interference,
    unit_rows,
    welch_bound,
)
from auditkit.quality.theory.packing import (
    log_moment_count,
    log_pair_tail,
    log_projected_count,
    rate_kabatjanskii_levenstein,
)


def simplex(d: int) -> torch.Tensor:
    """d + 1 unit vectors in R^d with all cosines −1/d: an equiangular tight frame."""
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    return unit_rows(torch.linalg.svd(centred).U[:, :d])


def interval_width(found: Measured) -> tuple[float, float]:
    assert found.interval is not None
    slack = found.interval.high - found.interval.low
    return found.interval.low - 0.5 * slack, found.interval.high + 0.5 * slack


@pytest.mark.parametrize("amplitude", [ONE, SIGN, UNIFORM], ids=["one", "sign", "uniform"])
@pytest.mark.parametrize(("m", "d", "p"), [(40, 16, 0.05), (120, 24, 0.02), (30, 30, 0.3)])
def test_expected_interference_is_what_draws_give(m, d, p, amplitude):
    frame = random_frame(m, d, seed=m)
    expected = float(expected_interference(frame, p, amplitude).mean())
    found = simulate_interference(frame, p, amplitude, samples=3000, seed=1)
    low, high = interval_width(found)  # twice as wide as 95%
    assert low <= expected <= high


@pytest.mark.parametrize(("m", "d"), [(50, 20), (200, 40), (20, 64)])
def test_random_frames_average_to_the_uniform_formula_even_for_values_of_one_sign(m, d):
    means = [
        float(expected_interference(random_frame(m, d, seed=s), 0.1, ONE).mean())
        for s in range(200)
    ]
    found = measure_mean(means)
    assert isinstance(found, Measured)
    low, high = interval_width(found)
    assert low <= uniform_interference(m, d, 0.1) <= high
    assert high - low < 0.1 * found.value


def test_a_tight_frame_reaches_the_least_interference_and_no_frame_beats_it():
    frame = simplex(5)
    found = float(expected_interference(frame, 0.2, SIGN).mean())
    assert found == pytest.approx(least_interference(6, 5, 0.2))
    assert least_interference(6, 5, 0.2) < uniform_interference(6, 5, 0.2)
    for seed in range(20):
        assert float(expected_interference(random_frame(9, 4, seed=seed), 0.2, SIGN).mean()) >= (
            least_interference(9, 4, 0.2)
        )


def test_orthonormal_features_do_not_interfere():
    found = simulate_interference(torch.eye(6), 0.4, ONE, samples=50)
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(0.0, abs=1e-24)
    assert expected_interference(torch.eye(6), 0.4).tolist() == [0.0] * 6


def test_moments_that_no_distribution_has_and_amplitudes_without_sampler_are_refused():
    with pytest.raises(InvalidInput, match="one distribution"):
        Amplitude(mean=1.0, second_moment=0.5)
    with pytest.raises(InvalidInput, match="use ONE, SIGN or UNIFORM"):
        draw_codes(2, 3, 0.5, Amplitude(mean=0.2, second_moment=2.0), torch.Generator())
    with pytest.raises(InvalidInput, match=r"a probability of 1\.5"):
        expected_interference(torch.eye(2), 1.5)


def test_a_zero_direction_is_refused():
    with pytest.raises(InvalidInput, match="1 of 2 directions are zero"):
        mutual_coherence(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 40),
    d=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 100),
)
def test_no_frame_is_below_the_bounds_and_length_does_not_matter(m, d, seed, scale):
    frame = random_frame(m, d, seed=seed)
    found = mutual_coherence(frame)
    assert 0 <= welch_bound(m, d) <= moment_bound(m, d) + 1e-12
    assert moment_bound(m, d) <= found + 1e-9
    lengths = scale * (0.5 + torch.arange(m) % 3)
    assert mutual_coherence(frame * lengths[:, None]) == pytest.approx(found, abs=1e-12)


@given(d=st.integers(1, 20))
def test_an_orthonormal_frame_has_no_coherence(d):
    assert mutual_coherence(torch.linalg.qr(random_frame(d, d)).Q) == pytest.approx(0, abs=1e-12)
    assert welch_bound(d, d) == 0.0


@pytest.mark.parametrize("d", [2, 5, 11])
def test_the_simplex_meets_the_welch_bound(d):
    assert mutual_coherence(simplex(d)) == pytest.approx(1 / d)
    assert welch_bound(d + 1, d) == pytest.approx(1 / d)


def test_higher_moments_decide_where_welch_cannot():
    assert moment_bound(200, 4) > 1.2 * welch_bound(200, 4)


@pytest.mark.parametrize(
    ("m", "d", "least"),
    [
        (3, 2, 1 / 2),
        (5, 2, math.cos(math.pi / 5)),
        (4, 3, 1 / 3),
        (6, 3, 1 / math.sqrt(5)),
        (7, 3, 1 / math.sqrt(3)),
        (10, 5, 1 / 3),
    ],
)
def test_gradient_descent_finds_the_best_known_packings(m, d, least):
    found = pack_tightly(m, d, steps=500, restarts=6)
    assert found.coherence == pytest.approx(least, abs=2e-4)
    assert found.coherence >= found.moments - 1e-9
    assert found.coherence == mutual_coherence(found.rows)


def test_a_packing_needs_two_directions():
    with pytest.raises(InvalidInput, match="two or more"):
        pack_tightly(1, 3)


@pytest.mark.parametrize(("d", "epsilon"), [(2, 0.6), (8, 0.3), (32, 0.4), (576, 0.05)])
def test_the_tail_of_a_cosine_is_what_draws_give(d, epsilon):
    g = torch.Generator().manual_seed(d)
    n = 100_000
    u = unit_rows(torch.randn(n, d, generator=g, dtype=torch.float32))
    hits = int((u[:, 0].abs() > epsilon).sum())
    expected = pair_tail(epsilon, d)
    assert abs(hits / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize(("m", "d"), [(2, 8), (20, 8), (100, 32), (400, 64)])
def test_the_coherence_of_random_frames_is_what_draws_give(m, d):
    draws = [mutual_coherence(random_frame(m, d, seed=s)) for s in range(150)]
    found = measure_mean(draws)
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(random_coherence(m, d), rel=0.02 if m > 2 else 0.15)
    below = np.mean(np.array(draws) <= random_coherence_quantile(m, d, 0.8))
    assert abs(below - 0.8) < 4 * math.sqrt(0.16 / 150)


def test_the_asymptote_is_approached_from_above_as_dimensions_grow():
    ratios = [random_coherence(1000, d) / asymptotic_coherence(1000, d) for d in (50, 500, 50_000)]
    assert ratios == sorted(ratios)
    assert 0.9 < ratios[-1] < 1.0


@settings(max_examples=40, deadline=None)
@given(d=st.integers(2, 3000), epsilon=st.floats(0.01, 0.95))
def test_packing_bounds_are_in_order(d, epsilon):
    found = packing_bounds(d, epsilon)
    assert math.log(d) <= found.johnson_lindenstrauss <= found.covering + 1e-9
    if isinstance(found.moments, Measured):
        assert found.covering <= found.moments.value + 1e-9
    assert found.covering >= d * epsilon**2 / 2 - math.log(2) - 1e-9  # ½ exp(dε²/2)
    wider = packing_bounds(d, min(0.99, epsilon * 1.04))
    assert wider.covering >= found.covering


def test_bounds_hold_for_packings_that_are_known():
    # 28 lines in R^7 and 6 in R³ meet the bound by moments exactly (equiangular tight frames).
    for m, d, cosine in ((28, 7, 1 / 3), (6, 3, 1 / math.sqrt(5))):
        assert log_moment_count(d, cosine) == pytest.approx(math.log(m))
        assert packing_bounds(d, cosine).covering <= math.log(m)


def test_large_angles_have_no_bound_by_moments():
    assert isinstance(packing_bounds(100, 0.9).moments, NotMeasured)


def test_the_tails_bound_takes_over_smoothly_where_the_tail_underflows():
    direct = log_pair_tail(0.5, 2000)  # about −290, still a float
    assert direct == pytest.approx(math.log(pair_tail(0.5, 2000)))
    beyond = log_pair_tail(0.9, 2304)
    assert pair_tail(0.9, 2304) == 0.0
    assert beyond == pytest.approx(2303 / 2 * math.log(1 - 0.81), abs=5)


def test_the_projection_bound_needs_many_dimensions_and_then_grows_with_them():
    assert log_projected_count(10, 0.5) == math.log(10)
    assert log_projected_count(10, 1e-9) == math.log(10)  # one point, to the last digit
    large = log_projected_count(20_000, 0.5)
    eta = 0.5 / 2.5
    assert large == pytest.approx(20_000 * (eta**2 / 2 - eta**3 / 3) / 4)


def test_the_rate_of_kabatjanskii_and_levenstein_has_its_small_angle_form():
    for epsilon in (0.001, 0.01):
        near = epsilon**2 / 4 * math.log(4 * math.e / epsilon**2)
        assert rate_kabatjanskii_levenstein(epsilon) == pytest.approx(near, rel=0.01)
    # Their own example: at 60° the rate is 0.401 bits, which bounds kissing numbers.
    assert rate_kabatjanskii_levenstein(0.5) / math.log(2) == pytest.approx(0.401, abs=1e-3)


@pytest.mark.parametrize(("d", "epsilon"), [(1, 0.5), (4, 0.0), (4, 1.0)])
def test_angles_and_dimensions_without_a_question_are_refused(d, epsilon):
    with pytest.raises(InvalidInput, match="expected"):
        packing_bounds(d, epsilon)
