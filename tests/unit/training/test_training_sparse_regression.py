"""Ridge regression on sparse regressors: against the dense solution, and at its edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.tensors import SparseLatents
from auditkit.training import sparse_regression
from auditkit.training.sparse_regression import SparseDesign, solve_ridge


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sparse(tokens: int, regressors: int, *, density: float = 0.2, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(tokens, regressors, generator=g) + 0.1
    return values * (torch.rand(tokens, regressors, generator=g) < density)


def solve(f: torch.Tensor, y: torch.Tensor, penalty: torch.Tensor, **settings_of_solver):
    design = SparseDesign.of(SparseLatents.from_dense(f))
    asked = {"tolerance": 1e-7, "max_rounds": 500} | settings_of_solver
    return solve_ridge(design, y, penalty, **asked)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(5, 60),
    regressors=st.integers(1, 12),
    columns=st.integers(1, 5),
    seed=st.integers(0, 99),
    strength=st.floats(0.1, 5),
)
def test_the_dense_solution_is_found(tokens, regressors, columns, seed, strength):
    f = sparse(tokens, regressors, seed=seed)
    y = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(seed))
    penalty = torch.full((regressors,), strength)
    found = solve(f, y, penalty)
    exact = f.double()
    dense = torch.linalg.solve(exact.T @ exact + torch.diag(penalty.double()), exact.T @ y.double())
    torch.testing.assert_close(found.change.double(), dense, rtol=1e-3, atol=1e-4)


def test_without_a_penalty_the_residual_is_orthogonal_to_every_regressor():
    f = sparse(400, 20)
    y = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    found = solve(f, y, torch.zeros(20))
    left = f.T @ (y - f @ found.change)
    assert float(left.abs().max()) < 1e-3
    assert found.residual <= 1e-6


def test_columns_solved_in_blocks_are_those_solved_alone(monkeypatch):
    f = sparse(100, 9)
    y = torch.randn(100, 7, generator=torch.Generator().manual_seed(1))
    whole = solve(f, y, torch.ones(9)).change
    monkeypatch.setattr(sparse_regression, "_COLUMNS", 2)
    torch.testing.assert_close(solve(f, y, torch.ones(9)).change, whole, rtol=1e-4, atol=1e-5)


def test_a_regressor_that_never_fires_does_not_change():
    f = sparse(50, 6)
    f[:, 4] = 0
    found = solve(f, torch.ones(50, 2), torch.zeros(6))
    assert torch.equal(found.change[4], torch.zeros(2))
    assert bool(torch.isfinite(found.change).all())
    assert bool((found.change[[0, 1, 2, 3, 5]] != 0).all())


def test_nothing_that_fires_leaves_everything_as_it_is():
    found = solve(torch.zeros(5, 3), torch.ones(5, 2), torch.zeros(3))
    assert torch.equal(found.change, torch.zeros(3, 2))
    assert found.rounds == 0


def test_nothing_left_to_explain_takes_no_rounds():
    found = solve(sparse(30, 4), torch.zeros(30, 2), torch.ones(4))
    assert torch.equal(found.change, torch.zeros(4, 2))
    assert (found.rounds, found.residual) == (0, 0.0)


def test_a_solver_stopped_early_says_how_much_is_left():
    f = sparse(300, 30, density=0.6)
    y = torch.randn(300, 1, generator=torch.Generator().manual_seed(1))
    found = solve(f, y, torch.zeros(30), max_rounds=1)
    assert found.rounds == 1
    assert found.residual > 1e-3


def test_the_transposed_product_is_that_of_the_transposed_matrix():
    f = sparse(40, 8)
    f[:, 7] = 0
    design = SparseDesign.of(SparseLatents.from_dense(f))
    y = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(design.transposed_times(y), f.T @ y)
    torch.testing.assert_close(design.times(f.T @ y), f @ (f.T @ y))
    torch.testing.assert_close(design.squared_norms(), f.double().square().sum(0))
    assert torch.equal(design.counts(), (f != 0).sum(0))
