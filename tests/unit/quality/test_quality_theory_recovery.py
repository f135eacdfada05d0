"""Restricted isometry, exact recovery and pursuit, against dictionaries whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, orthogonal_mp

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory import (
    CANDES_LIMIT,
    UNIFORM,
    IsometryBracket,
    Verdict,
    babel,
    bracket_isometry,
    draw_codes,
    exact_recovery_coefficient,
    largest_recoverable_k,
    lasso_codes,
    mutual_coherence,
    orthogonal_matching_pursuit,
    random_frame,
    recovery_guarantees,
    refit_codes,
    threshold_codes,
)
from auditkit.quality.theory.recovery import isometry_of
from auditkit.tensors import SparseLatents, sparse_decode


def spikes_and_sines(d: int) -> torch.Tensor:
    """The identity beside a Hadamard basis: coherence 1/√d exactly."""
    hadamard = torch.ones(1, 1)
    while len(hadamard) < d:
        upper, lower = (torch.cat([hadamard, sign * hadamard], dim=1) for sign in (1, -1))
        hadamard = torch.cat([upper, lower])
    return torch.cat([torch.eye(d), hadamard / math.sqrt(d)])


def exact_isometry(rows: torch.Tensor, k: int) -> float:
    """δ_k by trying every set of k atoms."""
    sets = torch.tensor(list(itertools.combinations(range(len(rows)), k)))
    return isometry_of(rows.double(), sets)


def planted(rows: torch.Tensor, k: int, n: int, seed: int, *, signed: bool) -> torch.Tensor:
    """Codes with exactly k non-zero entries of size 0.5 to 2."""
    g = torch.Generator().manual_seed(seed)
    support = torch.rand(n, len(rows), generator=g).topk(k, dim=1).indices
    values = 0.5 + 1.5 * torch.rand(n, k, generator=g)
    if signed:
        values *= torch.where(torch.rand(n, k, generator=g) < 0.5, -1.0, 1.0)
    return torch.zeros(n, len(rows)).scatter_(1, support, values)


def error_of(x: torch.Tensor, rows: torch.Tensor, codes: SparseLatents) -> float:
    return float((sparse_decode(codes, rows.float()) - x).square().sum())


@pytest.mark.parametrize(("m", "d", "k"), [(10, 6, 2), (12, 8, 3), (11, 5, 4)])
def test_the_bracket_holds_the_isometry_constant_that_trying_all_sets_gives(m, d, k):
    rows = random_frame(m, d, seed=m)
    bracket = bracket_isometry(rows, k, sets=50)
    truth = exact_isometry(rows, k)
    assert bracket.lower.value <= truth + 1e-12
    assert truth <= bracket.babel + 1e-12
    assert bracket.babel <= bracket.gershgorin + 1e-12
    assert bracket.lower.value > 0.9 * truth  # grown sets come near the worst


def test_grown_sets_find_worse_than_random_ones_in_a_wide_dictionary():
    bracket = bracket_isometry(random_frame(512, 64).float(), 8, sets=200)
    assert bracket.lower.value > 1.3 * bracket.random


@settings(max_examples=30, deadline=None)
@given(m=st.integers(2, 24), d=st.integers(1, 12), k=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_an_isometry_bracket_is_ordered(m, d, k, seed):
    assume(k <= m)
    bracket = bracket_isometry(random_frame(m, d, seed=seed), k, sets=20, greedy=4, seed=seed)
    assert 0 <= bracket.random <= bracket.lower.value <= bracket.babel <= bracket.gershgorin


def test_orthonormal_atoms_satisfy_every_condition():
    found = recovery_guarantees(torch.eye(8), 3, sets=20)
    assert found.coherence == 0.0
    assert found.largest_k is None
    assert found.isometry_2k.gershgorin == 0.0
    assert (found.tropp, found.candes) == (Verdict.HOLDS, Verdict.HOLDS)


def test_a_single_atom_has_no_isometry_to_lose():
    assert bracket_isometry(random_frame(5, 3), 1, sets=5).babel == 0.0


def test_candes_condition_is_held_failed_and_open():
    holds = recovery_guarantees(spikes_and_sines(64).double(), 1, sets=10)
    assert holds.isometry_2k.babel == pytest.approx(1 / 8)
    assert holds.candes is Verdict.HOLDS
    assert recovery_guarantees(random_frame(40, 10), 3).candes is Verdict.FAILS
    between = bracket_isometry(random_frame(64, 64, seed=1), 2, sets=1, greedy=1)
    limit = (between.lower.value + between.babel) / 2
    assert between.lower.value < between.babel
    assert between.below(limit) is Verdict.OPEN


@pytest.mark.parametrize("k", [0, 6])
def test_too_few_or_too_many_atoms_are_refused(k):
    rows = random_frame(10, 4)
    with pytest.raises(InvalidInput, match="expected 1 to 5, half the number"):
        recovery_guarantees(rows, k)
    with pytest.raises(InvalidInput, match="expected 1 to 10, the number of"):
        bracket_isometry(rows, 11 if k else 0)


def test_babel_sums_the_largest_cosines_and_is_at_most_k_times_the_coherence():
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert babel(rows, 3).tolist() == pytest.approx([0.8, 1.4, 1.4])
    frame = random_frame(30, 12)
    sums = babel(frame, 6)
    assert (sums <= mutual_coherence(frame) * torch.arange(1, 7).double() + 1e-9).all()
    assert (sums.diff() >= 0).all()


@pytest.mark.parametrize(("coherence", "k"), [(1.0, 0), (0.5, 1), (1 / 3, 1), (0.33, 2), (0.2, 2)])
def test_the_largest_k_is_the_last_below_tropps_limit(coherence, k):
    assert largest_recoverable_k(coherence) == k
    assert coherence >= 1 / (2 * (k + 1) - 1)
    if k:
        assert coherence < 1 / (2 * k - 1)


@settings(max_examples=25, deadline=None)
@given(d=st.sampled_from([16, 64, 128]), k=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_pursuit_recovers_every_code_under_tropps_condition(d, k, seed):
    rows = spikes_and_sines(d)
    assume(1 / math.sqrt(d) < 1 / (2 * k - 1) - 1e-9)
    z = planted(rows, k, 20, seed, signed=True)
    found = orthogonal_matching_pursuit(z @ rows, rows, k).to_dense()
    assert (found - z).abs().max() < 1e-4


def test_lasso_finds_the_support_under_tropps_condition():
    rows = spikes_and_sines(64)
    z = planted(rows, 3, 20, 0, signed=False)
    found = lasso_codes(z @ rows, rows, 3, nonnegative=True)
    refitted = refit_codes(z @ rows, rows, found, nonnegative=True)
    assert ((found.to_dense() > 0) == (z > 0)).all()
    assert (refitted.to_dense() - z).abs().max() < 1e-4


def test_the_exact_recovery_coefficient_tells_supports_that_pursuit_finds():
    rows = spikes_and_sines(16)
    g = torch.Generator().manual_seed(0)
    counts = {(sufficient, exact): 0 for sufficient in (True, False) for exact in (True, False)}
    for k, _ in itertools.product((3, 5), range(40)):
        support = torch.randperm(32, generator=g)[:k]
        z = torch.zeros(60, 32)
        z[:, support] = torch.randn(60, k, generator=g)
        found = orthogonal_matching_pursuit(z @ rows, rows, k).to_dense()
        exact = bool((found - z).abs().max() < 1e-3)
        counts[exact_recovery_coefficient(rows, support) < 1 - 1e-9, exact] += 1
    assert counts[True, False] == 0
    assert counts[True, True] >= 30
    assert counts[False, False] >= 3


def test_a_dependent_support_is_refused_and_a_full_one_excludes_nothing():
    rows = torch.eye(3)
    assert exact_recovery_coefficient(rows, torch.arange(3)) == 0.0
    twice = torch.cat([rows, rows[:1]])
    with pytest.raises(InvalidInput, match="linearly dependent"):
        exact_recovery_coefficient(twice, torch.tensor([0, 3]))


def test_pursuit_agrees_with_scikit_learns():
    rows = random_frame(60, 20, seed=3)
    x = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    ours = orthogonal_matching_pursuit(x, rows, 5).to_dense()
    theirs = orthogonal_mp(rows.T.numpy(), x.T.double().numpy(), n_nonzero_coefs=5).T
    assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_a_lasso_code_satisfies_its_optimality_conditions_and_is_scikit_learns_lasso():
    rows = random_frame(40, 16, seed=2)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    codes = lasso_codes(x, rows, 4, nonnegative=True).to_dense().double()
    for row, z in zip(x.double(), codes, strict=True):
        products = rows @ (row - z @ rows)
        penalty = float(products[z > 0].mean())
        assert (products[z > 0] - penalty).abs().max() < 1e-5
        assert products.max() <= penalty + 1e-5
        model = Lasso(alpha=penalty / 16, positive=True, fit_intercept=False, tol=1e-10)
        fitted = model.fit(rows.T.numpy(), row.numpy()).coef_
        assert np.abs(fitted - z.numpy()).max() < 1e-3


@settings(max_examples=10, deadline=None)
@given(k=st.integers(1, 10), seed=st.integers(0, 10_000), scale=st.sampled_from([0.01, 1.0, 50.0]))
def test_more_freedom_never_explains_less(k, seed, scale):
    rows = random_frame(40, 16, seed=seed).float()
    x = scale * torch.randn(12, 16, generator=torch.Generator().manual_seed(seed))
    lasso = lasso_codes(x, rows, k, nonnegative=True)
    refitted = refit_codes(x, rows, lasso, nonnegative=True)
    pursued = orthogonal_matching_pursuit(x, rows, k, nonnegative=True)
    for codes in (lasso, refitted, pursued):
        assert codes.counts().max() <= k
        assert (codes.values > 0).all()
    slack = 1e-4 * float(x.square().sum())
    assert error_of(x, rows, refitted) <= error_of(x, rows, lasso) + slack
    one_more = orthogonal_matching_pursuit(x, rows, k + 1, nonnegative=True)
    assert error_of(x, rows, one_more) <= error_of(x, rows, pursued) + slack
    any_sign = refit_codes(x, rows, pursued)
    assert error_of(x, rows, any_sign) <= error_of(x, rows, pursued) + slack


def test_a_refit_of_an_exact_code_changes_nothing():
    rows = random_frame(30, 20, seed=5).float()
    z = planted(rows, 4, 10, 1, signed=False)
    again = refit_codes(z @ rows, rows, SparseLatents.from_dense(z), nonnegative=True)
    assert (again.to_dense() - z).abs().max() < 1e-4


def test_nothing_is_coded_as_nothing():
    rows = random_frame(12, 6).float()
    x = torch.zeros(3, 6)
    assert orthogonal_matching_pursuit(x, rows, 4).nnz == 0
    assert orthogonal_matching_pursuit(x, rows, 4, nonnegative=True).nnz == 0
    assert lasso_codes(x, rows, 4).nnz == 0
    assert refit_codes(x, rows, SparseLatents.from_dense(torch.zeros(3, 12))).nnz == 0
    assert orthogonal_matching_pursuit(torch.zeros(0, 6), rows, 4).n_tokens == 0


def test_an_exact_code_ends_the_pursuit_early():
    codes = orthogonal_matching_pursuit(3 * torch.eye(4)[:2], torch.eye(4), 3)
    assert codes.counts().tolist() == [1, 1]
    assert codes.values.tolist() == pytest.approx([3.0, 3.0])


def test_thresholding_at_once_is_worse_than_pursuit_where_atoms_overlap():
    rows = random_frame(64, 24).float()
    g = torch.Generator().manual_seed(0)
    x = draw_codes(200, 64, 0.08, UNIFORM, g).float() @ rows
    at_once = error_of(x, rows, threshold_codes(x, rows, 5, nonnegative=True))
    pursued = error_of(x, rows, orthogonal_matching_pursuit(x, rows, 5, nonnegative=True))
    assert pursued < 0.7 * at_once


@pytest.mark.parametrize("coder", [orthogonal_matching_pursuit, lasso_codes])
def test_more_atoms_than_there_are_is_refused(coder):
    with pytest.raises(InvalidInput, match="expected 1 to 4, the number of atoms"):
        coder(torch.randn(2, 3), torch.randn(4, 3), 5)


def test_the_limit_is_candes():
    assert pytest.approx(0.41421356) == CANDES_LIMIT
    assert IsometryBracket.__doc__
