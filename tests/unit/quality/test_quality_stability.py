"""Seed stability: what must come out for dictionaries whose answer is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality import LatentDirections, SeedStability, measure_stability
from auditkit.quality.stability import Correspondence

SEEDS = st.integers(0, 2**31)


def _random(n: int, d_in: int, seed: int) -> LatentDirections:
    generator = torch.Generator().manual_seed(seed)
    return LatentDirections(
        encoder=torch.randn(n, d_in, generator=generator),
        decoder=torch.randn(n, d_in, generator=generator),
    )


def _take(found: LatentDirections, rows: Tensor) -> LatentDirections:
    return LatentDirections(encoder=found.encoder[rows], decoder=found.decoder[rows])


def _shared(found: Correspondence) -> float:
    assert isinstance(found.shared, Measured)
    return found.shared.value


def _numbers(found: SeedStability) -> list[float]:
    rows = (found.matched, found.greedy)
    values = [m for row in rows for m in (row.shared, row.encoder_cosine, row.decoder_cosine)]
    return [m.value for m in values if isinstance(m, Measured)]


@given(seed=SEEDS, n=st.integers(1, 60), scale=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_a_permuted_and_rescaled_dictionary_is_shared_whole(
    seed: int, n: int, scale: float
) -> None:
    one = _random(n, 24, seed)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = LatentDirections(encoder=one.encoder[rows] * scale, decoder=one.decoder[rows] / scale)
    found = measure_stability(one, moved)
    assert _shared(found.matched) == 1.0
    assert isinstance(found.matched.decoder_cosine, Measured)
    assert found.matched.decoder_cosine.value == pytest.approx(1.0, abs=1e-5)
    assert found.matched.shared == Measured(value=1.0, n=n)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_independent_random_dictionaries_share_nothing(seed: int) -> None:
    found = measure_stability(_random(150, 128, seed), _random(150, 128, seed + 1), seed=seed + 2)
    assert _shared(found.matched) == 0.0
    assert _shared(found.greedy) == 0.0
    assert _shared(found.floor) == 0.0


@given(seed=SEEDS, n=st.integers(2, 30), m=st.integers(2, 30))
@settings(max_examples=25, deadline=None)
def test_order_of_arguments_and_of_latents_does_not_matter(seed: int, n: int, m: int) -> None:
    one, other = _random(n, 8, seed), _random(m, 8, seed + 1)
    rows = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    straight = _numbers(measure_stability(one, other))
    if n != m:  # greedy looks from the smaller one, and between equals from the first
        assert _numbers(measure_stability(other, one)) == pytest.approx(straight, abs=1e-6)
    else:
        assert _numbers(measure_stability(other, one))[:3] == pytest.approx(straight[:3], abs=1e-6)
    assert _numbers(measure_stability(one, _take(other, rows))) == pytest.approx(straight, abs=1e-6)


@given(seed=SEEDS, n=st.integers(2, 20), more=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_a_dictionary_inside_a_wider_one_is_shared_whole(seed: int, n: int, more: int) -> None:
    wide = _random(n + more, 32, seed)
    found = measure_stability(wide, _take(wide, torch.arange(n)))
    assert found.matched.shared == Measured(value=1.0, n=n)


def test_matching_is_one_to_one_where_greedy_counts_a_counterpart_twice() -> None:
    axes = torch.eye(4)
    twins = torch.stack([axes[0], axes[0] + 0.1 * axes[1]])
    one = LatentDirections(encoder=twins, decoder=twins)
    other = LatentDirections(encoder=axes[[0, 3]], decoder=axes[[0, 3]])
    found = measure_stability(one, other)
    assert _shared(found.greedy) == 1.0
    assert _shared(found.matched) == 0.5


def test_both_directions_must_agree() -> None:
    one = _random(40, 64, 0)
    found = measure_stability(
        one, LatentDirections(encoder=_random(40, 64, 1).encoder, decoder=one.decoder)
    )
    assert isinstance(found.matched.decoder_cosine, Measured)
    assert found.matched.decoder_cosine.value == pytest.approx(1.0, abs=1e-5)
    assert _shared(found.matched) == 0.0


def test_a_flipped_direction_is_another_direction() -> None:
    one = _random(1, 16, 0)
    found = measure_stability(one, LatentDirections(encoder=-one.encoder, decoder=-one.decoder))
    assert _shared(found.matched) == 0.0


def test_a_planted_share_is_found() -> None:
    one, fresh = _random(100, 128, 0), _random(100, 128, 1)
    kept = torch.arange(100) < 30
    mixed = LatentDirections(
        encoder=torch.where(kept[:, None], one.encoder, fresh.encoder).flip(0),
        decoder=torch.where(kept[:, None], one.decoder, fresh.decoder).flip(0),
    )
    assert _shared(measure_stability(one, mixed).matched) == pytest.approx(0.3)


def test_the_random_floor_is_not_what_training_starts_from() -> None:
    start = torch.randn(60, 64, generator=torch.Generator().manual_seed(0))
    drawn = LatentDirections(encoder=0.1 * start, decoder=start)
    assert _shared(measure_stability(drawn, drawn, seed=0).floor) == 0.0


def test_no_live_latents_is_not_measured() -> None:
    none = LatentDirections(encoder=torch.empty(0, 8), decoder=torch.empty(0, 8))
    found = measure_stability(none, _random(3, 8, 0))
    assert found.matched.shared == NotMeasured("a dictionary without live latents")


def test_other_widths_of_model_are_refused() -> None:
    with pytest.raises(MismatchError, match="8 and 16 wide"):
        measure_stability(_random(3, 8, 0), _random(3, 16, 0))


def test_a_zero_direction_is_refused() -> None:
    rows = torch.ones(2, 4)
    with pytest.raises(InvalidInput, match="decoder direction is zero"):
        LatentDirections(encoder=rows, decoder=rows * torch.tensor([[1.0], [0.0]]))
