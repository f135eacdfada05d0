"""Toy models of superposition and the phase change: closed forms, quadrature and training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory import (
    Outcome,
    PhasePlan,
    ToyPlan,
    agreement,
    best_candidate,
    candidates,
    map_phases,
    measure_packing,
    outcome_of,
    superposition_threshold,
    train_toy_models,
)
from auditkit.quality.theory.phase_diagram import Quadrature, expected_loss
from auditkit.quality.theory.toy_models import draw_features, weighted_loss


def polygon(n: int) -> torch.Tensor:
    angles = 2 * math.pi * torch.arange(n) / n
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (torch.eye(4), 1.0),
        (torch.tensor([[1.0], [-1.0]]), 1 / 2),
        (polygon(3), 2 / 3),
        (polygon(5), 2 / 5),
        (torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), 3 / 4),
    ],
    ids=["own", "antipodal", "triangle", "pentagon", "tetrahedron"],
)
def test_each_shape_has_its_dimensionality(rows, share):
    packing = measure_packing(rows[None] / rows[0].norm())
    assert packing.dimensionality[0].tolist() == pytest.approx([share] * len(rows))
    assert packing.dimensions_per_feature.tolist() == pytest.approx([share])
    assert float(packing.overlap[0, 0]) == pytest.approx(1 / share - 1, abs=1e-6)


def test_a_feature_without_a_direction_has_no_dimension():
    packing = measure_packing(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert packing.dimensionality.tolist() == [[1.0, 0.0]]
    assert packing.overlap.tolist() == [[0.0, 0.0]]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), hidden=st.integers(1, 6), seed=st.integers(0, 1000))
def test_shares_never_add_up_to_more_than_the_dimensions(n, hidden, seed):
    W = torch.randn(1, n, hidden, generator=torch.Generator().manual_seed(seed))
    assert float(measure_packing(W).dimensionality.sum()) <= hidden + 1e-3


def test_drawn_features_fire_as_often_as_asked_and_are_uniform():
    g = torch.Generator().manual_seed(0)
    density = torch.tensor([0.05, 0.5, 1.0])
    x = draw_features(density, 20_000, 4, g)
    for rows, p in zip(x, density.tolist(), strict=True):
        fires = rows[rows > 0]
        assert len(fires) / rows.numel() == pytest.approx(p, abs=0.01)
        assert float(fires.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(fires.var()) == pytest.approx(1 / 12, abs=0.005)


def test_dense_features_of_a_toy_model_get_dimensions_and_sparse_ones_share_them():
    plan = ToyPlan(
        features=6,
        hidden=3,
        sparsities=(0.0, 0.95),
        importance_decay=0.8,
        steps=700,
        batch_size=256,
    )
    packing = measure_packing(train_toy_models(plan).W)
    represented = (packing.norms > 0.5).sum(1)
    assert represented.tolist() == [3, 6]
    assert packing.overlap[0, :3].max() < 0.1  # the three most important, alone
    assert packing.dimensionality[1].tolist() == pytest.approx([0.5] * 6, abs=0.06)


def test_the_same_plan_gives_the_same_models():
    plan = ToyPlan(features=4, hidden=2, sparsities=(0.5,), steps=10, batch_size=16)
    first, second = train_toy_models(plan), train_toy_models(plan)
    assert torch.equal(first.W, second.W)
    assert torch.equal(first.loss, second.loss)


def test_training_reports_each_step_and_lowers_the_loss():
    seen: list[tuple[int, int]] = []
    plan = ToyPlan(features=4, hidden=2, sparsities=(0.5,), steps=200, batch_size=128)
    trained = train_toy_models(plan, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (200, 200)
    untouched = ToyPlan(features=4, hidden=2, sparsities=(0.5,), steps=1, batch_size=128)
    assert float(trained.loss) < 0.7 * float(train_toy_models(untouched).loss)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sparsities": ()}, "one or more from 0"),
        ({"sparsities": (1.0,)}, "from 0 to below 1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"importance_decay": 0.0}, "above 0, at most 1"),
    ],
)
def test_impossible_toys_are_refused(change, match):
    with pytest.raises(InvalidInput, match=match):
        ToyPlan(**{"features": 4, "hidden": 2, "sparsities": (0.5,), **change})


@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize(("p", "r"), [(0.9, 0.3), (0.4, 1.0), (0.1, 2.5)])
def test_the_loss_of_every_candidate_is_what_quadrature_and_draws_give(hidden, p, r):
    n = hidden + 1
    importance = torch.ones(1, n)
    importance[0, -1] = r
    grid = Quadrature.over_cube(n, nodes=16 if n == 2 else 10)
    probabilities = grid.probabilities(torch.tensor([p]))
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-5)
    x = draw_features(torch.tensor([p]), 600_000, n, torch.Generator().manual_seed(n))
    for found in candidates(hidden, p, r):
        W, b = torch.tensor(found.W)[None].float(), torch.tensor(found.b)[None].float()
        exact = float(expected_loss(W, b, importance, probabilities, grid.points))
        drawn = float(weighted_loss(W, b, x, importance[0]))
        assert exact == pytest.approx(found.loss, rel=0.01)  # kinks cost the quadrature a little
        # At p = 0.1 a pair fires on one draw in a hundred: 2% standard error.
        assert drawn == pytest.approx(found.loss, rel=0.06)


@settings(max_examples=100, deadline=None)
@given(p=st.floats(1e-3, 1.0), r=st.floats(0.05, 20.0))
def test_the_threshold_parts_superposition_from_the_rest(p, r):
    inside = best_candidate(1, p, r).outcome is Outcome.SUPERPOSITION
    threshold = superposition_threshold(r)
    assert inside == (p < threshold) or abs(p - threshold) < 1e-9
    assert best_candidate(2, p, r).name not in ("triangle", "takes over") or r > 1


@given(p=st.floats(1e-3, 1.0), r=st.floats(0.05, 20.0))
def test_a_triangle_never_wins(p, r):
    assert best_candidate(2, p, r).name != "triangle"


def test_equal_features_share_below_four_sevenths():
    assert superposition_threshold(1.0) == pytest.approx(4 / 7)
    assert superposition_threshold(0.1) < superposition_threshold(1.0)
    assert superposition_threshold(10.0) == pytest.approx(superposition_threshold(0.1))


def test_outcomes_are_read_from_weights():
    for hidden in (1, 2):
        for found in candidates(hidden, 0.2, 0.5):
            assert outcome_of(torch.tensor(found.W).float()) is found.outcome


@pytest.mark.parametrize(("hidden", "least"), [(1, 0.85), (2, 0.75)])
def test_training_comes_to_what_theory_expects(hidden, least):
    plan = PhasePlan(
        hidden=hidden,
        densities=(0.9, 0.3, 0.05),
        importances=(0.2, 0.6, 4.0),
        starts=4,
        steps=250,
    )
    cells = map_phases(plan)
    assert agreement(cells) >= least
    assert {c.found for c in cells} == set(Outcome)
    # Free weights do no worse than those written down, but for a start that got stuck.
    better = sum(c.found_loss <= 1.02 * c.expected_loss for c in cells)
    assert better >= 0.75 * len(cells)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden": 3}, "expected 1 or 2"),
        ({"densities": (0.0,)}, "outside"),
        ({"importances": (0.0,)}, "not positive"),
    ],
)
def test_impossible_phase_plans_are_refused(change, match):
    with pytest.raises(InvalidInput, match=match):
        PhasePlan(**{"hidden": 1, "densities": (0.5,), "importances": (1.0,), **change})
    with pytest.raises(InvalidInput, match="expected 1 or 2"):
        candidates(3, 0.5, 1.0)
    with pytest.raises(InvalidInput, match="expected 0 < p"):
        candidates(1, 0.0, 1.0)
