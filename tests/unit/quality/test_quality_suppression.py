"""Suppression, latent by latent: planted factors are read off, whatever units, order, batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality.failures.suppression import ENOUGH_FIRES, SuppressionTotals
from auditkit.saes import ArchitectureName, Normalisation, SaeConfig, SparseAutoencoder

D_IN = 12
FACTORS = torch.tensor([0.5, 0.8, 1.0, 1.25, 0.9, 0.7])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(
    *, factors: torch.Tensor = FACTORS, offset: float = 0.0, unit: float = 1.0, **flags
) -> SparseAutoencoder:
    """Orthogonal directions, each read rightly and written `factors` too long or short."""
    d_sae = len(factors)
    directions = torch.eye(D_IN)[:d_sae]
    tensors = {
        "W_enc": directions.T.clone(),
        "W_dec": directions * factors[:, None],
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.full((D_IN,), offset * unit),
    }
    config = SaeConfig(
        name="planted", architecture=ArchitectureName.STANDARD, d_in=D_IN, d_sae=d_sae,
        hook_point=HookPoint.parse("blocks.0.hook_resid_post"), **flags,
    )  # fmt: skip
    return SparseAutoencoder(config, tensors)


def activations(n: int = 600, *, offset: float = 0.0, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    amounts = torch.rand(n, len(FACTORS), generator=g) * (torch.rand(n, 6, generator=g) < 0.3)
    return amounts @ torch.eye(D_IN)[:6] + offset


def totals_of(sae: SparseAutoencoder, *parts: torch.Tensor) -> SuppressionTotals:
    totals = SuppressionTotals(sae)
    for part in parts:
        totals.add(part)
    return totals


def value(measure) -> float:
    assert isinstance(measure, Measured)
    return measure.value


def test_the_planted_factor_of_each_latent_is_its_gamma():
    found = totals_of(planted(), activations()).latent_gammas()
    torch.testing.assert_close(found.float(), FACTORS, rtol=1e-5, atol=1e-5)


def test_equal_factors_are_the_gamma_of_the_whole():
    sae = planted(factors=torch.full((6,), 0.75))
    found = totals_of(sae, activations()).measure()
    assert value(found.gamma) == pytest.approx(0.75, abs=1e-5)
    assert value(found.gamma_about_bias) == pytest.approx(0.75, abs=1e-5)
    assert value(found.median) == pytest.approx(0.75, abs=1e-5)
    assert value(found.suppressed) == 1


def test_a_large_mean_hides_suppression_from_gamma_and_not_from_gamma_about_the_bias():
    sae = planted(factors=torch.full((6,), 0.5), offset=20.0)
    found = totals_of(sae, activations(offset=20.0)).measure()
    assert value(found.gamma) > 0.99
    assert value(found.gamma_about_bias) == pytest.approx(0.5, abs=1e-3)


def test_a_perfect_reconstruction_is_not_suppressed():
    found = totals_of(planted(factors=torch.ones(6)), activations()).measure()
    assert value(found.gamma) == pytest.approx(1, abs=1e-6)
    assert value(found.low) == pytest.approx(1, abs=1e-6)
    assert value(found.suppressed) == 0
    assert found.latents == 6


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 199), seed=st.integers(0, 9), unit=st.sampled_from([0.01, 1.0, 300.0]))
def test_order_batches_and_units_do_not_matter(cut, seed, unit):
    x = activations(200)
    whole = totals_of(planted(), x)
    shuffled = x[torch.randperm(200, generator=torch.Generator().manual_seed(seed))] * unit
    parts = totals_of(planted(unit=unit), shuffled[:cut], shuffled[cut:])
    torch.testing.assert_close(parts.latent_gammas(), whole.latent_gammas(), rtol=1e-4, atol=1e-5)
    assert torch.equal(parts.fires, whole.fires)
    assert value(parts.measure().gamma) == pytest.approx(value(whole.measure().gamma), rel=1e-5)


@pytest.mark.parametrize("mode", [Normalisation.LAYER_NORM, Normalisation.CONSTANT_NORM_RESCALE])
def test_longer_rows_by_the_found_factor_end_suppression_of_normalised_tokens(mode):
    g = torch.Generator().manual_seed(3)
    directions = normalize(torch.randn(1, D_IN, generator=g), dim=1)
    x = torch.rand(400, 1, generator=g) @ directions + 0.3 * torch.randn(400, D_IN, generator=g)
    config = SaeConfig(
        name="one", architecture=ArchitectureName.STANDARD, d_in=D_IN, d_sae=1,
        hook_point=HookPoint.parse("blocks.0.hook_resid_post"), normalize_activations=mode,
    )  # fmt: skip
    tensors = {
        "W_enc": directions.T.clone(), "W_dec": 0.5 * directions,
        "b_enc": torch.zeros(1), "b_dec": torch.zeros(D_IN),
    }  # fmt: skip
    gamma = float(totals_of(SparseAutoencoder(config, tensors), x).latent_gammas())
    tensors["W_dec"] = tensors["W_dec"] / gamma
    again = totals_of(SparseAutoencoder(config, tensors), x).latent_gammas()
    assert float(again) == pytest.approx(1, abs=1e-4)


def test_latents_that_fire_rarely_are_left_out_of_figures_over_latents():
    x = activations(400)
    x[:, 2] = 0
    x[: ENOUGH_FIRES - 1, 2] = 1
    found = totals_of(planted(), x).measure()
    assert found.latents == 5
    x[ENOUGH_FIRES - 1, 2] = 1
    assert totals_of(planted(), x).measure().latents == 6


def test_no_latent_that_fires_is_no_measure():
    found = totals_of(planted(), torch.zeros(50, D_IN) - 1).measure()
    assert isinstance(found.median, NotMeasured)
    assert isinstance(found.suppressed, NotMeasured)
    assert found.latents == 0


def test_a_latent_that_writes_against_what_it_reads_has_no_finite_gamma():
    sae = planted(factors=torch.tensor([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    totals = totals_of(sae, activations())
    assert float(totals.latent_gammas()[0]) == float("inf")
    assert isinstance(totals.measure().high, NotMeasured | Measured)
