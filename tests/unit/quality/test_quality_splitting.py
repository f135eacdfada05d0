"""Feature splitting: a latent cut in two by construction is counted, a turned one is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality.failures.splitting import FiringDictionary, Splitting, measure_splitting
from auditkit.tensors import SparseLatents

D_IN = 32
TOKENS = 2000


def dictionary(directions: Tensor, fires: Tensor) -> FiringDictionary:
    return FiringDictionary(decoder=directions, latents=SparseLatents.from_dense(fires.float()))


def narrow_firing(n: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Orthogonal directions, each firing on a tenth of the tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(D_IN)[:n], torch.rand(TOKENS, n, generator=generator) < 0.1


def split_in_two(directions: Tensor, fires: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """Latent `which` becomes two, of which one fires on even tokens and one on odd ones."""
    even = torch.arange(TOKENS) % 2 == 0
    aside = 0.4 * torch.eye(D_IN)[[-1, -2]]
    pair = directions[which].unsqueeze(0) + aside
    rest = torch.arange(len(directions)) != which
    halves = torch.stack([fires[:, which] & even, fires[:, which] & ~even], dim=1)
    return torch.cat([directions[rest], pair]), torch.cat([fires[:, rest], halves], dim=1)


def values(found: Splitting) -> dict[str, float]:
    measures = {
        "pieces": found.pieces,
        "split": found.split,
        "covered": found.covered,
        "kept": found.kept,
        "near": found.near,
    }
    return {name: m.value for name, m in measures.items() if isinstance(m, Measured)}


def test_a_latent_split_in_two_is_counted() -> None:
    directions, fires = narrow_firing()
    wide = split_in_two(directions, fires, 3)
    found = values(measure_splitting(dictionary(directions, fires), dictionary(*wide)))
    assert found == pytest.approx(
        {"pieces": 0.2, "split": 0.1, "covered": 0.1, "kept": 0.9, "near": 1.0}
    )


def test_a_turned_dictionary_is_kept_whole() -> None:
    directions, fires = narrow_firing()
    turned = directions + 0.5 * torch.eye(D_IN)[10:20]
    found = values(measure_splitting(dictionary(directions, fires), dictionary(turned, fires)))
    assert found == pytest.approx(
        {"pieces": 0.0, "split": 0.0, "covered": 0.0, "kept": 1.0, "near": 1.0}
    )


def test_a_dictionary_turned_too_far_has_nothing_near() -> None:
    directions, fires = narrow_firing()
    turned = directions + 1.5 * torch.eye(D_IN)[10:20]
    found = values(measure_splitting(dictionary(directions, fires), dictionary(turned, fires)))
    assert found == pytest.approx(
        {"pieces": 0.0, "split": 0.0, "covered": 0.0, "kept": 0.0, "near": 0.0}
    )


def test_one_piece_alone_is_no_split() -> None:
    directions, fires = narrow_firing()
    even = (torch.arange(TOKENS) % 2 == 0).unsqueeze(1)
    found = values(
        measure_splitting(dictionary(directions, fires), dictionary(directions, fires & even))
    )
    assert found["pieces"] == 1.0
    assert found["split"] == found["covered"] == found["kept"] == 0.0


def test_pieces_that_leave_most_uncovered_are_split_and_not_covered() -> None:
    directions, fires = narrow_firing(1)
    tenth = torch.arange(TOKENS) % 10
    parts = torch.cat([fires & (tenth == n).unsqueeze(1) for n in (0, 1, 2)], dim=1)
    wide = dictionary(directions.expand(3, -1).clone(), parts)
    found = values(measure_splitting(dictionary(directions, fires), wide))
    assert found["split"] == 1.0
    assert found["covered"] == 0.0


def test_wide_latents_that_fire_elsewhere_too_are_no_pieces() -> None:
    directions, fires = narrow_firing()
    generator = torch.Generator().manual_seed(5)
    more = fires & (torch.rand(fires.shape, generator=generator) < 0.5)
    more |= torch.rand(fires.shape, generator=generator) < 0.1
    found = values(measure_splitting(dictionary(directions, fires), dictionary(directions, more)))
    assert found["pieces"] == 0.0
    assert found["near"] == 1.0


@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
@settings(max_examples=10, deadline=None)
def test_scale_and_order_do_not_matter(seed: int, scale: float) -> None:
    directions, fires = narrow_firing(seed=seed)
    wide = split_in_two(directions, fires, 0)
    expected = measure_splitting(dictionary(directions, fires), dictionary(*wide))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(wide[0]), generator=generator)
    rows = torch.randperm(TOKENS, generator=generator)
    moved = dictionary(scale * wide[0][order], wide[1][rows][:, order] * scale)
    assert measure_splitting(dictionary(directions, fires[rows]), moved) == expected


def test_rare_latents_are_left_out() -> None:
    directions, fires = narrow_firing()
    rare = torch.zeros_like(fires)
    rare[:19] = True
    found = measure_splitting(dictionary(directions, rare), dictionary(directions, fires))
    assert found.split == NotMeasured("no latent fires on 20 tokens")


def test_what_does_not_belong_together_is_refused() -> None:
    directions, fires = narrow_firing()
    one = dictionary(directions, fires)
    with pytest.raises(MismatchError, match="32 and 8 wide"):
        measure_splitting(one, dictionary(torch.eye(8), fires[:, :8]))
    with pytest.raises(MismatchError, match=r"2,000 and 1,999 tokens"):
        measure_splitting(one, dictionary(directions, fires[1:]))
    with pytest.raises(InvalidInput, match="9 directions and latents of width 10"):
        dictionary(directions[:9], fires)
