"""Floors know nothing of the data, and come out where theory puts them."""

from __future__ import annotations

import pytest
import torch

from auditkit.core.measured import Measured
from auditkit.quality import (
    Floor,
    PrincipalComponents,
    RandomDictionary,
    directions_of,
    fit_floors,
    measure_fidelity,
)


def explained(floor: Floor, x: torch.Tensor) -> float:
    found = measure_fidelity(floor, x.split(64)).every_token.explained_variance
    assert isinstance(found, Measured)
    return found.value


def floors(x: torch.Tensor, *, k: int, d_sae: int = 64) -> dict[str, float]:
    return {f.name: explained(f, x) for f in fit_floors(x, k=k, d_sae=d_sae)}


def test_every_floor_reaches_one_with_as_many_terms_as_dimensions() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    found = floors(x, k=8)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-4)
    assert list(found) == ["random dictionary", "PCA", "neuron basis"]


def test_pca_describes_a_plane_with_two_components() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 2, generator=generator) @ torch.randn(2, 16, generator=generator)
    found = floors(x, k=2)
    assert found["PCA"] == pytest.approx(1.0, abs=1e-5)
    assert found["neuron basis"] < 0.9


def test_floors_do_not_change_with_scale_or_shift() -> None:
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(2))
    assert floors(7 * x + 3, k=3) == pytest.approx(floors(x, k=3), abs=1e-3)


def test_pca_leaves_the_variance_of_the_smaller_components() -> None:
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(3)) * torch.arange(1, 7)
    values = torch.linalg.eigvalsh(torch.cov(x.T.double(), correction=0))
    expected = float(values[-2:].sum() / values.sum())
    assert explained(PrincipalComponents.fit(x, k=2), x) == pytest.approx(expected, abs=1e-5)


def test_no_coefficients_on_the_chosen_rows_do_better() -> None:
    x = torch.randn(50, 10, generator=torch.Generator().manual_seed(4))
    floor = RandomDictionary.draw(x, d_sae=30, k=3)
    latents = floor.encode(x)
    assert latents.counts().tolist() == [3] * 50
    error = x - floor.decode(latents)
    chosen = floor.rows[latents.indices.view(50, 3)]
    assert float((chosen @ error.unsqueeze(2)).abs().max()) < 1e-4  # error ⊥ every chosen row


def test_floors_use_no_more_terms_than_asked_for() -> None:
    x = torch.randn(80, 9, generator=torch.Generator().manual_seed(5))
    for floor in fit_floors(x, k=4, d_sae=20):
        assert int(floor.encode(x).counts().max()) == 4
        assert directions_of(floor).shape[1] == 9
