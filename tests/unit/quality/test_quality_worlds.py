"""Planted worlds: what comes out of them is what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.quality.worlds import (
    SIZES,
    PlantedWorld,
    WorldKind,
    WorldSize,
    make_world,
    max_cosines,
    pack_directions,
    random_unit_rows,
)
from auditkit.quality.worlds.firing import Correlated, Firing, Hierarchical, Independent, Steady

WORLDS = {kind: make_world(kind) for kind in WorldKind}
TOKENS = 20_000


def _amounts(world: PlantedWorld, tokens: int = TOKENS) -> torch.Tensor:
    return torch.cat([b.amounts.to_dense() for b in world.batches(tokens)])


@pytest.mark.parametrize("kind", list(WorldKind))
def test_activations_are_the_sum_of_their_features(kind: WorldKind) -> None:
    world = WORLDS[kind]
    batch = world.batch(0, tokens=100)
    made = batch.amounts.to_dense().double() @ world.features.double() + world.bias.double()
    assert torch.allclose(batch.x.double(), made, atol=1e-5)
    assert bool((batch.amounts.values > 0).all())


@pytest.mark.parametrize("kind", list(WorldKind))
def test_features_fire_at_their_rates(kind: WorldKind) -> None:
    world = WORLDS[kind]
    found = (_amounts(world) > 0).double().mean(0).numpy()
    rates = world.firing.rates
    assert found.sum() == pytest.approx(world.true_l0, rel=0.03)
    deviations = (found - rates) / np.sqrt(rates * (1 - rates) / TOKENS)
    assert np.abs(deviations).max() < 5
    assert np.square(deviations).mean() == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("kind", list(WorldKind))
def test_equal_arguments_give_equal_worlds(kind: WorldKind) -> None:
    again, other = make_world(kind), make_world(kind, seed=1)
    assert again.digest == WORLDS[kind].digest != other.digest
    assert torch.equal(again.batch(3).x, WORLDS[kind].batch(3).x)
    assert not torch.equal(other.batch(3).x, WORLDS[kind].batch(3).x)


def test_streams_and_batches_differ() -> None:
    world = WORLDS[WorldKind.INDEPENDENT]
    first = world.batch(0).x
    assert not torch.equal(first, world.batch(1).x)
    assert not torch.equal(first, world.batch(0, stream=1).x)


def test_the_last_batch_is_cut_short() -> None:
    lengths = [len(b.x) for b in WORLDS[WorldKind.INDEPENDENT].batches(10_000)]
    assert lengths == [4096, 4096, 1808]


@pytest.mark.parametrize("seed", range(3))
def test_a_gate_worlds_features_are_near_orthogonal(seed: int) -> None:
    assert make_world(WorldKind.INDEPENDENT, seed=seed).coherence().value <= 0.15


def test_a_crowded_world_has_more_features_than_latents() -> None:
    world = WORLDS[WorldKind.CROWDED]
    assert world.n_features == 4 * world.d_sae
    assert world.coherence().value > 0.3


def test_an_anisotropic_mean_is_long_and_lies_in_a_few_dimensions() -> None:
    world = WORLDS[WorldKind.ANISOTROPIC]
    x = world.batch(0).x
    spread = (x - x.mean(0)).norm(dim=1).mean()
    assert float(world.bias.norm() / spread) == pytest.approx(4, rel=0.1)
    largest = world.bias.abs().sort(descending=True).values
    assert float(largest[:3].square().sum() / largest.square().sum()) > 0.95


def test_steady_firing_has_the_same_number_on_every_token() -> None:
    counts = (_amounts(WORLDS[WorldKind.INDEPENDENT]) > 0).sum(1)
    assert counts.unique().tolist() == [4]


def test_steady_firing_leaves_pairs_all_but_independent() -> None:
    fires = (_amounts(WORLDS[WorldKind.INDEPENDENT], 60_000) > 0).double()
    rates = torch.from_numpy(WORLDS[WorldKind.INDEPENDENT].firing.rates)
    together = fires.T @ fires / len(fires)
    expected = rates[:, None] * rates[None, :]
    pairs = ~torch.eye(len(rates), dtype=torch.bool)
    # Of four that fire, three are left for the others: 3/4 of what independence would give.
    assert float(together[pairs].sum() / expected[pairs].sum()) == pytest.approx(0.757, abs=0.02)
    excess = (together - 0.757 * expected)[pairs] / (expected[pairs] / len(fires)).sqrt()
    assert float(excess.abs().max()) < 6


def test_a_group_fires_together_and_groups_do_not() -> None:
    fires = (_amounts(WORLDS[WorldKind.CORRELATED]) > 0).double()
    correlation = np.corrcoef(fires.numpy().T)
    group = np.arange(len(correlation)) // 8
    same = (group[:, None] == group[None, :]) & ~np.eye(len(group), dtype=bool)
    assert correlation[same].mean() > 0.15
    assert abs(correlation[group[:, None] != group[None, :]].mean()) < 0.01


def test_a_child_fires_with_its_parent_and_without_siblings() -> None:
    world = WORLDS[WorldKind.HIERARCHICAL]
    assert world.parents is not None
    fires = (_amounts(world) > 0).numpy()
    parents = world.parents
    child = np.flatnonzero(parents != np.arange(len(parents)))
    assert not (fires[:, child] & ~fires[:, parents[child]]).any()
    for root in np.unique(parents):
        children = child[parents[child] == root]
        assert len(children) == 3
        assert fires[:, children].sum(axis=1).max() == 1
    with_child = fires[:, child].any(axis=1).mean()
    assert 0 < with_child < fires[:, np.unique(parents)].any(axis=1).mean()


@settings(deadline=None, max_examples=10)
@given(n=st.integers(2, 40), d_in=st.integers(4, 20), seed=st.integers(0, 5))
def test_packed_directions_have_norm_one_and_overlap_less_than_random_ones(
    n: int, d_in: int, seed: int
) -> None:
    packed = pack_directions(n, d_in, max_cosine=0.2, seed=seed, rounds=60)
    assert torch.allclose(packed.norm(dim=1), torch.ones(n), atol=1e-5)
    assert _overlap(packed) <= _overlap(random_unit_rows(n, d_in, seed=seed)) + 1e-4


def _overlap(rows: torch.Tensor) -> float:
    """Σ relu(|cos| − 0.2)² over pairs."""
    cosines = (rows @ rows.T).abs().fill_diagonal_(0.0)
    return float((cosines - 0.2).clamp(min=0).square().sum())


def test_packing_reaches_what_it_is_asked_for_where_that_can_be_had() -> None:
    assert float(max_cosines(pack_directions(128, 64, max_cosine=0.14, seed=3)).max()) < 0.15


def test_no_more_directions_than_dimensions_are_orthonormal() -> None:
    rows = pack_directions(8, 12, max_cosine=0.1, seed=0)
    assert torch.allclose(rows @ rows.T, torch.eye(8), atol=1e-5)


def test_sizes_grow() -> None:
    widths = [SIZES[size].d_sae for size in WorldSize]
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pack_directions(4, 2, max_cosine=1.5, seed=0), "max_cosine is 1.5"),
        (lambda: _grouped(1.0), "correlation is 1.0, expected 0 or more, below 1"),
        (lambda: _family(1.0), "child_share is 1.0"),
        (lambda: _family(0.5, [0, 0, 1]), "a child's parent must be no child itself"),
        (lambda: Steady(rates=np.array([1.5, 0.5])), "a feature cannot fire with probability 1.5"),
        (lambda: _world(2.0), "planted features have norm 1"),
        (lambda: _world(1.0, rates=3), "2 features and firing rates of 3"),
    ],
)
def test_what_cannot_be_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidInput, match=message):
        make()


def _grouped(correlation: float) -> Firing:
    return Correlated(rates=np.array([0.1, 0.1]), groups=np.array([0, 0]), correlation=correlation)


def _family(share: float, parents: list[int] | None = None) -> Firing:
    above = np.array(parents or [0, 0], dtype=np.int64)
    return Hierarchical(parents=above, parent_rates=np.array([0.1]), child_share=share)


def _world(norm: float, rates: int = 2) -> PlantedWorld:
    return PlantedWorld(
        kind="own",
        size="small",
        seed=0,
        features=norm * torch.eye(2),
        bias=torch.zeros(2),
        firing=Independent(rates=np.full(rates, 0.5)),
        magnitudes=torch.ones(2),
        spread=0.0,
        d_sae=2,
        k=1,
    )
