"""Fidelity of a hand-built SAE whose right answers are known, and the geometry of dictionaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from auditkit.core.errors import NonFiniteActivations
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality import measure_fidelity, measure_interference
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def identity_sae(d: int = 4) -> SparseAutoencoder:
    """ReLU SAE with a latent per sign of each axis: reconstructs everything exactly."""
    eye = torch.eye(d)
    config = SaeConfig(
        name="identity",
        architecture=ArchitectureName.STANDARD,
        d_in=d,
        d_sae=2 * d + 1,
        hook_point=HookPoint.parse("blocks.0.hook_resid_post"),
    )
    W_dec = torch.cat([eye, -eye, torch.zeros(1, d)])
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "W_dec": W_dec,
        "b_enc": torch.zeros(2 * d + 1),
        "b_dec": torch.zeros(d),
    }
    return SparseAutoencoder(config, tensors)


def test_an_exact_sae_scores_full_marks():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    found = measure_fidelity(identity_sae(), x.split(64)).every_token
    assert found.explained_variance == Measured(value=1.0, n=200)
    assert found.explained_variance_uncentred == Measured(value=1.0, n=200)
    assert found.relative_bias.value == pytest.approx(1.0)
    assert found.l0 == Measured(value=4.0, n=200)
    assert found.dead_rate == Measured(value=1 / 9, n=200)
    assert found.share_above_10_percent == Measured(value=8 / 9, n=200)
    assert found.densities.silent == 1


def test_high_norm_tokens_are_counted_in_one_report_only():
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    x[7] *= 1000
    x[8] *= 1000
    median = float(x.norm(dim=1).median())
    report = measure_fidelity(identity_sae(), [x], reference_norm=median)
    assert report.high_norm_tokens == 2
    assert report.norm_limit == pytest.approx(10 * median)
    assert report.every_token.l0.n == 100
    assert report.without_high_norm.l0.n == 98
    plain = measure_fidelity(identity_sae(), [x])
    assert isinstance(plain.without_high_norm, NotMeasured)
    assert plain.high_norm_tokens == 0


def test_without_high_norm_tokens_is_what_the_rest_alone_would_score():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(3)) + 1
    sae = identity_sae()
    sae.tensors["W_dec"].mul_(0.7)
    spoilt = torch.cat([x, 500 * x[:1]])
    report = measure_fidelity(sae, spoilt.split(17), reference_norm=2.0)
    alone = measure_fidelity(sae, [x]).every_token
    kept = report.without_high_norm
    assert kept.explained_variance.value == pytest.approx(alone.explained_variance.value, rel=1e-6)
    assert kept.relative_bias.value == pytest.approx(0.7, rel=1e-6)
    assert report.every_token.explained_variance.value != pytest.approx(
        alone.explained_variance.value, rel=1e-3
    )


def test_batch_split_and_order_change_nothing():
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(1))
    sae = identity_sae()
    sae.tensors["W_dec"].mul_(0.9)
    once = measure_fidelity(sae, [x]).every_token
    split = measure_fidelity(sae, x.flip(0).split(13)).every_token
    assert split.explained_variance.value == pytest.approx(once.explained_variance.value, rel=1e-10)
    assert split.densities == once.densities
    assert split.l0 == once.l0


def test_no_batches_are_not_measured():
    found = measure_fidelity(identity_sae(), []).every_token
    assert found.explained_variance == NotMeasured("no tokens to measure on")
    assert found.dead_rate == NotMeasured("no tokens to measure on")


def test_nan_raises():
    x = torch.zeros(3, 4)
    x[1, 1] = float("nan")
    with pytest.raises(NonFiniteActivations, match="NaN or infinite in 1 of 3 tokens"):
        measure_fidelity(identity_sae(), [x])


def test_orthogonal_directions_do_not_interfere():
    found = measure_interference(3 * torch.eye(6), densities=torch.full((6,), 0.5), k=2)
    assert found.mutual_coherence.value == 0.0
    assert found.mean_abs_cosine.value == 0.0
    assert found.interference.value == 0.0
    assert found.welch_bound.value == 0.0
    assert found.gershgorin_2k.value == 0.0
    assert found.uniform_interference.value == pytest.approx(0.5 * 5 / 6)


def test_the_simplex_meets_the_welch_bound():
    d = 5
    simplex = torch.eye(d + 1) - 1 / (d + 1)
    basis = torch.linalg.svd(simplex).Vh[:d]
    found = measure_interference(simplex @ basis.T, k=3)
    assert found.mutual_coherence.value == pytest.approx(1 / d, abs=1e-5)
    assert found.welch_bound.value == pytest.approx(1 / d)
    assert found.mean_abs_cosine.value == pytest.approx(1 / d, abs=1e-5)
    assert found.gershgorin_2k.value == pytest.approx(5 / d, abs=1e-4)
    assert found.recovery_limit == pytest.approx(math.sqrt(2) - 1)
    assert isinstance(found.interference, NotMeasured)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 12))
def test_coherence_never_beats_the_welch_bound_and_ignores_norms(seed, m, d):
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(m, d, generator=g)
    found = measure_interference(W)
    assert found.mutual_coherence.value >= found.welch_bound.value - 1e-5
    stretched = measure_interference(W * (0.1 + torch.rand(m, 1, generator=g)))
    assert stretched.mean_abs_cosine.value == pytest.approx(found.mean_abs_cosine.value, abs=1e-5)
    assert found.mean_abs_cosine.value <= found.mutual_coherence.value + 1e-6


def test_interference_of_random_directions_is_near_the_uniform_frames(monkeypatch):
    monkeypatch.setattr("auditkit.quality.theory.coherence._ROWS", 100)
    g = torch.Generator().manual_seed(0)
    W, p = normalize(torch.randn(800, 50, generator=g)), torch.rand(800, generator=g) * 0.1
    found = measure_interference(W, densities=p)
    assert found.interference.value == pytest.approx(found.uniform_interference.value, rel=0.02)
    cosines = (W @ W.T).square().double()
    cosines.fill_diagonal_(0)
    by_hand = float((cosines @ p.double()).mean())
    assert found.interference.value == pytest.approx(by_hand, rel=1e-5)


def test_zero_directions_are_counted_and_left_out():
    W = torch.cat([torch.eye(3), torch.zeros(2, 3)])
    found = measure_interference(W)
    assert found.zero_directions == 2
    assert found.mutual_coherence == Measured(value=0.0, n=3)
    lonely = measure_interference(W[2:])
    assert isinstance(lonely.mutual_coherence, NotMeasured)
