"""Dictionary learning without an encoder, and how far an encoder is from codes by search."""

from __future__ import annotations

import pytest
import torch

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality.theory import (
    AlternatingPlan,
    Code,
    learn_dictionary,
    oracle_codes,
    orthogonal_matching_pursuit,
    random_frame,
    score_codes,
)
from auditkit.quality.theory.alternating import update_rows
from auditkit.quality.theory.code_gap import (
    LASSO,
    LASSO_REFITTED,
    OMP_NONNEGATIVE,
    OMP_SIGNED,
    REFITTED,
    THRESHOLD,
)
from auditkit.tensors import SparseLatents, sparse_decode

D, M, K = 20, 32, 3


def sparse_amounts(n: int, *, m: int = M, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    support = torch.rand(n, m, generator=g).topk(K, dim=1).indices
    return torch.zeros(n, m).scatter_(1, support, 0.5 + torch.rand(n, K, generator=g))


@pytest.fixture(scope="module")
def dictionary() -> torch.Tensor:
    return random_frame(M, D, seed=4).float()


def encoder_with_errors(z: torch.Tensor) -> SparseLatents:
    """True codes shrunk to 0.7, and in every fifth token one atom exchanged for another."""
    wrong = 0.7 * z
    wrong[::5] = wrong[::5].roll(1, dims=1)
    return SparseLatents.from_dense(wrong)


def scored(dictionary: torch.Tensor) -> dict[str, object]:
    z = sparse_amounts(200, seed=1)
    shift = torch.linspace(-1, 1, D)
    x = z @ dictionary + shift
    encoded = encoder_with_errors(z)
    own = Code(name="encoder", latents=encoded, x_hat=sparse_decode(encoded, dictionary) + shift)
    codes = oracle_codes(x, 2 * dictionary, K, shift=shift, encoder=encoded)
    return {s.name: s for s in score_codes(x, [own, *codes], torch.arange(200) // 10)}


def test_a_gap_that_was_planted_is_found_and_told_apart(dictionary):
    found = scored(dictionary)
    assert list(found) == [
        "encoder",
        REFITTED,
        THRESHOLD,
        LASSO,
        LASSO_REFITTED,
        OMP_NONNEGATIVE,
        OMP_SIGNED,
    ]
    explained = {name: s.explained_variance.value for name, s in found.items()}
    assert explained["encoder"] < explained[REFITTED] < explained[OMP_NONNEGATIVE]
    assert explained[LASSO] < explained[LASSO_REFITTED]
    assert explained[OMP_NONNEGATIVE] > 0.97
    assert found["encoder"].closed == Measured(
        value=0.0, n=200, interval=found["encoder"].closed.interval
    )
    assert found[OMP_NONNEGATIVE].closed.value > 0.8
    assert found[REFITTED].shared.value == pytest.approx(1.0, abs=0.1)
    assert found["encoder"].l0.value == pytest.approx(K)
    for score in found.values():
        interval = score.explained_variance.interval
        assert interval is not None
        assert interval.low <= score.explained_variance.value <= interval.high


def test_what_is_shared_with_another_dictionary_is_not_measured(dictionary):
    x = sparse_amounts(40) @ dictionary
    codes = oracle_codes(x, dictionary, K, shift=torch.zeros(D))
    other = orthogonal_matching_pursuit(x, dictionary[:20], K)
    more = Code(name="other", latents=other, x_hat=sparse_decode(other, dictionary[:20]))
    found = score_codes(x, [codes[0], more], torch.arange(40))
    assert isinstance(found[1].shared, NotMeasured)
    assert isinstance(found[1].closed, Measured)


def test_a_perfect_first_code_leaves_nothing_to_close(dictionary):
    x = sparse_amounts(20) @ dictionary
    codes = SparseLatents.from_dense(sparse_amounts(20))
    exact = Code(name="exact", latents=codes, x_hat=x)
    found = score_codes(x, [exact], torch.arange(20))[0]
    assert found.explained_variance.value == 1.0
    assert isinstance(found.closed, NotMeasured)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_rounding_of_the_first_code_is_not_a_gap_to_close(dictionary, mean: float):
    z = sparse_amounts(200)
    x = z @ dictionary + mean
    g = torch.Generator().manual_seed(5)
    rounded = x + 2**-23 * x.norm(dim=1, keepdim=True) * torch.randn(x.shape, generator=g) / D**0.5
    first = Code(name="exact", latents=SparseLatents.from_dense(z), x_hat=rounded)
    worse = Code(name="worse", latents=SparseLatents.from_dense(z), x_hat=0.9 * x)
    found = score_codes(x, [first, worse], torch.arange(200) // 10)
    for score in found:
        assert isinstance(score.closed, NotMeasured)
        assert "the first row leaves less than" in score.closed.reason
        assert isinstance(score.explained_variance, Measured)
        assert isinstance(score.shared, Measured)


def test_a_small_gap_that_is_not_rounding_is_measured(dictionary):
    z = sparse_amounts(200)
    x = z @ dictionary
    codes = [
        Code(name=str(share), latents=SparseLatents.from_dense(z), x_hat=(1 - share) * x)
        for share in (1e-3, 5e-4)
    ]
    found = score_codes(x, codes, torch.arange(200) // 10)[1].closed
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(0.75, abs=1e-3)


def test_nothing_to_score_is_refused(dictionary):
    none = Code(name="none", latents=SparseLatents.empty(M), x_hat=torch.zeros(0, D))
    with pytest.raises(InvalidInput, match="0 tokens and 1 codes"):
        score_codes(torch.zeros(0, D), [none], torch.zeros(0, dtype=torch.int64))
    silent = SparseLatents.from_dense(torch.zeros(3, M))
    same = Code(name="same", latents=silent, x_hat=torch.ones(3, D))
    with pytest.raises(InvalidInput, match="no variance"):
        score_codes(torch.ones(3, D), [same], torch.arange(3))


def test_alternating_minimisation_finds_a_planted_dictionary_and_its_centre(dictionary):
    shift = torch.linspace(-1, 1, D)
    x = sparse_amounts(2500, seed=2) @ dictionary + shift
    found = learn_dictionary(x, AlternatingPlan(latents=M, k=K, rounds=25))
    best = (dictionary @ found.rows.T).amax(1)
    assert float(best.mean()) > 0.9
    assert found.fvu[-1] < 0.1 * found.fvu[0] or found.fvu[-1] < 0.05
    assert found.fvu[-1] == min(found.fvu) or found.fvu[-1] < 1.1 * min(found.fvu)
    held_out = sparse_amounts(200, seed=3) @ dictionary + shift
    error = (held_out - found.decode(found.encode(held_out))).square().sum()
    assert float(error / (held_out - held_out.mean(0)).square().sum()) < 0.15
    assert found.rows.norm(dim=1).tolist() == pytest.approx([1.0] * M, abs=1e-5)


def test_exact_codes_give_the_dictionary_in_one_update(dictionary):
    z = sparse_amounts(600, seed=5)
    y = z @ dictionary
    start = random_frame(M, D, seed=9).float()
    rows, unused = update_rows(y, SparseLatents.from_dense(z), start, torch.zeros_like(y))
    assert (rows - dictionary).abs().max() < 1e-2  # damped by 1e-4
    assert unused == 0


def test_an_unused_atom_becomes_the_sample_explained_worst(dictionary):
    z = sparse_amounts(300, seed=6)
    z[:, 7] = 0.0
    y = z @ dictionary
    residual = torch.zeros_like(y)
    residual[11] = torch.arange(D).float()
    rows, unused = update_rows(y, SparseLatents.from_dense(z), dictionary, residual)
    assert unused == 1
    expected = residual[11] / residual[11].norm()
    assert (rows[7] - expected).abs().max() < 1e-6


def test_too_few_or_equal_samples_are_refused():
    plan = AlternatingPlan(latents=8, k=2, rounds=1)
    with pytest.raises(InvalidInput, match="5 samples for 8 atoms"):
        learn_dictionary(torch.randn(5, 3), plan)
    with pytest.raises(InvalidInput, match="samples are alike"):
        learn_dictionary(torch.ones(9, 3), plan)
