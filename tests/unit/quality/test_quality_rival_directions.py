"""Directions beside an SAE's latents: each is what its name says, and fires as rarely as asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput
from auditkit.quality.lookups.rival_directions import (
    Whitening,
    draw_by_density,
    fire_at_density,
    independent_components,
    latent_columns,
    neuron_basis,
    principal_components,
    random_directions,
    random_whitened,
)
from auditkit.tensors import SparseLatents


def sources(tokens: int = 4000, d: int = 6) -> tuple[Tensor, Tensor]:
    """Independent heavy-tailed sources, mixed by a matrix whose rows are their directions."""
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(tokens, d, generator=generator) ** 3
    mixing = torch.randn(d, d, generator=generator) + 2 * torch.eye(d)
    return s @ mixing, mixing


@given(density=st.floats(0.002, 0.45), scale=st.floats(0.01, 100), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_direction_fires_as_often_as_asked(density: float, scale: float, seed: int) -> None:
    p = torch.randn(500, 3, generator=torch.Generator().manual_seed(seed)).double() ** 3
    fitted = torch.arange(500) < 300
    asked = torch.full((3,), density)
    found = fire_at_density(p, fitted, asked)
    expected = max(1, round(float(asked.double()[0] * 300)))
    assert (found[fitted] > 0).sum(0).tolist() == [expected] * 3
    assert bool((found >= 0).all())
    moved = fire_at_density(scale * p + 5, fitted, asked)
    assert torch.allclose(moved, scale * found, rtol=1e-3, atol=1e-3 * scale)


def test_a_direction_is_turned_to_its_longer_tail() -> None:
    p = torch.randn(401, 1, generator=torch.Generator().manual_seed(0)).abs() ** 3
    fitted = torch.ones(401, dtype=torch.bool)
    density = torch.tensor([0.1])
    assert torch.allclose(fire_at_density(-p, fitted, density), fire_at_density(p, fitted, density))


def test_a_density_of_half_the_tokens_is_refused() -> None:
    with pytest.raises(InvalidInput, match="between 0 and ½"):
        fire_at_density(torch.randn(9, 1), torch.ones(9, dtype=torch.bool), torch.tensor([0.5]))


def test_whitened_activations_are_uncorrelated_with_variance_one() -> None:
    x, _ = sources()
    z = (x.double() - x.double().mean(0)) @ Whitening.of(x).map.T
    assert torch.allclose(z.T @ z / (len(z) - 1), torch.eye(6).double(), atol=1e-8)


def test_directions_without_variance_are_left_out() -> None:
    x, _ = sources()
    flat = torch.cat([x, x[:, :2]], dim=1)
    assert len(Whitening.of(flat).deviations) == 6


def test_ica_finds_independent_sources_and_pca_does_not() -> None:
    x, mixing = sources()
    whitening = Whitening.of(x)
    unmixing = normalize(torch.linalg.inv(mixing).T, dim=1)
    ica = independent_components(x, whitening, 6).rows
    pca = principal_components(whitening, 6).rows
    best = [(normalize(rows, dim=1) @ unmixing.T).abs().max(0).values for rows in (ica, pca)]
    assert float(best[0].min()) > 0.99
    assert float(best[1].min()) < 0.9


def test_ica_that_does_not_converge_says_so() -> None:
    x, _ = sources()
    found = independent_components(x, Whitening.of(x), 6, iterations=1)
    assert "stopped before it converged after 1 iterations" in found.note
    assert "converged after" in independent_components(x, Whitening.of(x), 6).note


def test_the_first_principal_component_has_the_largest_variance() -> None:
    x, _ = sources()
    spread = ((x - x.mean(0)) @ principal_components(Whitening.of(x), 6).rows.T).var(0)
    assert torch.equal(spread, spread.sort(descending=True).values)


def test_neurons_are_distinct_coordinates() -> None:
    rows = neuron_basis(10, 7).rows
    assert rows.sum(1).tolist() == [1.0] * 7
    assert int((rows.sum(0) > 0).sum()) == 7


def test_random_directions_follow_their_seed() -> None:
    assert torch.equal(random_directions(8, 3).rows, random_directions(8, 3).rows)
    assert not torch.equal(random_directions(8, 3).rows, random_directions(8, 3, seed=1).rows)
    x, _ = sources()
    projections = (x - x.mean(0)) @ random_whitened(Whitening.of(x), 500).rows.T
    norms = projections.square().mean(0)
    assert float(norms.mean()) == pytest.approx(6.0, rel=0.1)


def test_more_directions_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidInput, match="11 directions are asked for, and there are 10"):
        neuron_basis(10, 11)


def test_latent_columns_are_those_of_the_dense_matrix() -> None:
    dense = torch.relu(torch.randn(20, 9, generator=torch.Generator().manual_seed(0)))
    units = torch.tensor([1, 4, 8])
    assert torch.equal(latent_columns(SparseLatents.from_dense(dense), units), dense[:, units])


def test_latents_are_drawn_evenly_over_densities() -> None:
    counts = torch.arange(1000)
    usable = counts >= 100
    drawn = draw_by_density(counts, usable, 90)
    assert len(drawn.unique()) == 90
    assert torch.histc(drawn.float(), bins=10, min=100, max=1000).tolist() == [9.0] * 10
    assert torch.equal(draw_by_density(counts, counts >= 990, 90), torch.arange(990, 1000))
