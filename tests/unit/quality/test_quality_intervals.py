"""Intervals over documents: they hold the value, tell dependence, and cost nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality import Fidelity, measure_fidelity, piece_numbers
from auditkit.quality.intervals import ratio, resampled_interval, with_interval
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder

MEASURES = (
    "explained_variance",
    "explained_variance_uncentred",
    "relative_bias",
    "norm_ratio",
    "relative_error",
    "cosine",
    "l0",
)


def topk_sae(d: int = 6, d_sae: int = 24, k: int = 3, *, seed: int = 0) -> SparseAutoencoder:
    g = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, d, generator=g), dim=1)
    config = SaeConfig(
        name="random topk",
        architecture=ArchitectureName.TOPK,
        d_in=d,
        d_sae=d_sae,
        k=k,
        hook_point=HookPoint.parse("blocks.0.hook_resid_post"),
    )
    tensors = {
        "W_enc": rows.T.contiguous(),
        "W_dec": rows,
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(d),
    }
    return SparseAutoencoder(config, tensors)


def text(seed: int, *, pieces: int = 20, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (pieces,), generator=g).tolist()
    shift = torch.randn(pieces, d, generator=g).repeat_interleave(torch.tensor(lengths), dim=0)
    return torch.randn(sum(lengths), d, generator=g) + shift + 1, piece_numbers(lengths)


def measured(found: Fidelity, name: str) -> Measured:
    value = getattr(found, name)
    assert isinstance(value, Measured), name
    return value


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_measures_and_intervals_do_not_change_with_scale(seed: int, scale: float) -> None:
    x, pieces = text(seed)
    sae = topk_sae()
    one = measure_fidelity(sae, [x], pieces=[pieces]).every_token
    two = measure_fidelity(sae, [x * scale], pieces=[pieces]).every_token
    for name in MEASURES:
        a, b = measured(one, name), measured(two, name)
        assert b.value == pytest.approx(a.value, rel=1e-4), name
        assert a.interval is not None
        assert b.interval is not None
        assert (b.interval.low, b.interval.high) == pytest.approx(
            (a.interval.low, a.interval.high), rel=1e-4
        ), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_order_of_tokens_and_batches_change_nothing(seed: int, size: int) -> None:
    x, pieces = text(seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    sae = topk_sae()
    one = measure_fidelity(sae, [x], pieces=[pieces]).every_token
    two = measure_fidelity(sae, x[order].split(size), pieces=pieces[order].split(size)).every_token
    for name in MEASURES:
        a, b = measured(one, name), measured(two, name)
        assert a.interval is not None
        assert b.interval is not None
        assert b.value == pytest.approx(a.value, rel=1e-6, abs=1e-6), name
        assert b.interval.low == pytest.approx(a.interval.low, rel=1e-6, abs=1e-6), name
    assert one.densities == two.densities


def test_the_interval_holds_the_value_and_n_stays_the_number_of_tokens() -> None:
    x, pieces = text(3)
    found = measure_fidelity(topk_sae(), [x], pieces=[pieces]).every_token
    for name in MEASURES:
        value = measured(found, name)
        assert value.n == len(x)
        assert value.interval is not None
        assert value.interval.low <= value.value <= value.interval.high


def test_without_pieces_or_with_few_there_is_no_interval() -> None:
    x, pieces = text(4, pieces=9)
    sae = topk_sae()
    assert measured(measure_fidelity(sae, [x]).every_token, "l0").interval is None
    few = measure_fidelity(sae, [x], pieces=[pieces]).every_token
    assert measured(few, "explained_variance").interval is None


def test_tokens_that_repeat_one_another_widen_the_interval() -> None:
    g = torch.Generator().manual_seed(0)
    each = torch.randn(400, generator=g).double()
    alone = torch.stack([torch.ones(400).double(), each], dim=1).numpy()
    grouped = alone.reshape(40, 10, 2)[:, :1].repeat(10, axis=1).sum(1)
    narrow = resampled_interval(alone, ratio(1, 0))
    wide = resampled_interval(grouped, ratio(1, 0))
    assert narrow is not None
    assert wide is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for number in range(200):
        rows = np.stack([np.ones(60), rng.normal(2.0, 1.0, 60)], axis=1)
        found = resampled_interval(rows, ratio(1, 0), seed=number)
        assert found is not None
        hits += found.low <= 2.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_what_is_not_measured_gets_no_interval() -> None:
    missing = NotMeasured("no tokens")
    assert with_interval(missing, np.ones((20, 2)), ratio(0, 1)) is missing


def test_distributions_count_every_token_once() -> None:
    x, _ = text(5)
    spread = measure_fidelity(topk_sae(), x.split(7)).every_token.distributions
    assert not isinstance(spread, NotMeasured)
    for histogram in (spread.norm, spread.norm_hat, spread.error, spread.relative_error):
        assert sum(histogram.counts) == len(x)
        assert len(histogram.edges) == len(histogram.counts) + 1
    median = dict(spread.norm.quantiles)[0.5]
    assert median == pytest.approx(float(x.double().norm(dim=1).quantile(0.5)), rel=1e-6)


def test_a_token_of_norm_zero_is_in_no_ratio() -> None:
    x = torch.cat([torch.zeros(1, 6), torch.ones(3, 6)])
    found = measure_fidelity(topk_sae(), [x]).every_token
    assert measured(found, "norm_ratio").n == 3
    assert measured(found, "explained_variance").n == 4


def test_predicting_the_mean_explains_nothing_and_x_itself_everything() -> None:
    class Mean:
        def __init__(self, mean: torch.Tensor) -> None:
            self.mean = mean

        def encode(self, x):
            return topk_sae().encode(x)

        def decode(self, latents, x=None):
            return self.mean.expand(latents.n_tokens, -1)

    class Itself(Mean):
        def decode(self, latents, x=None):
            return x

    x, pieces = text(6)
    blind = measure_fidelity(Mean(x.mean(0)), x.split(9), pieces=pieces.split(9)).every_token
    assert measured(blind, "explained_variance").value == pytest.approx(0, abs=1e-6)
    exact = measure_fidelity(Itself(x.mean(0)), [x], pieces=[pieces]).every_token
    value = measured(exact, "explained_variance")
    assert value.value == 1.0
    assert value.interval is not None
    assert value.interval.low == value.interval.high == 1.0
    assert measured(exact, "relative_error").value == 0.0
    assert measured(exact, "cosine").value == pytest.approx(1.0)
