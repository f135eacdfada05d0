"""Ridge regression on sparse regressors, such as latents of which it is settled when they fire."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from auditkit.tensors import SparseLatents

_COLUMNS = 96
"""Columns solved together: so few that the rows which a token gathers stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseDesign:
    """A sparse matrix F [token, regressor], stored by token and by regressor."""

    by_token: SparseLatents
    tokens: Int64[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    starts: Int64[Tensor, " regressor"]

    @classmethod
    def of(cls, latents: SparseLatents) -> SparseDesign:
        """The matrix whose rows are the tokens of `latents`."""
        order = latents.indices.argsort(stable=True)
        counts = torch.bincount(latents.indices, minlength=latents.d_sae)
        return cls(
            by_token=latents,
            tokens=latents.token_ids()[order],
            values=latents.values[order],
            starts=counts.cumsum(0) - counts,
        )

    def times(self, u: Float[Tensor, "regressor column"]) -> Float[Tensor, "token column"]:
        """F u."""
        f = self.by_token
        if not f.nnz:
            return u.new_zeros(f.n_tokens, u.shape[1])
        return embedding_bag(f.indices, u, f.offsets[:-1], mode="sum", per_sample_weights=f.values)

    def transposed_times(
        self, y: Float[Tensor, "token column"]
    ) -> Float[Tensor, "regressor column"]:
        """Fᵀ y."""
        if not len(self.tokens):
            return y.new_zeros(len(self.starts), y.shape[1])
        return embedding_bag(
            self.tokens, y, self.starts, mode="sum", per_sample_weights=self.values
        )

    def counts(self) -> Int64[Tensor, " regressor"]:
        """In how many tokens each regressor is not zero."""
        return torch.bincount(self.by_token.indices, minlength=self.by_token.d_sae)

    def squared_norms(self) -> Float[Tensor, " regressor"]:
        """Σ over tokens of each regressor's square (float64)."""
        sums = torch.zeros(self.by_token.d_sae, dtype=torch.float64)
        return sums.index_add_(0, self.by_token.indices, self.by_token.values.double().square())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RidgeSolution:
    """`change` [regressor, d_out]; `rounds` of conjugate gradients that the slowest column took,
    and the largest `residual` of a column, relative to where it began."""

    change: Float[Tensor, "regressor d_out"]
    rounds: int
    residual: float


def solve_ridge(
    design: SparseDesign,
    residual: Float[Tensor, "token d_out"],
    penalty: Float[Tensor, " regressor"],
    *,
    tolerance: float,
    max_rounds: int,
) -> RidgeSolution:
    """The Δ that minimises ‖residual − F Δ‖² + Σ_j penalty_j ‖Δ_j‖².

    Conjugate gradients on the normal equations (Hestenes & Stiefel 1952), preconditioned by their
    diagonal, columns of d_out independently; they need F only as a product, so any width will do.
    A regressor that is never active keeps Δ_j = 0. A column stops at a preconditioned residual of
    `tolerance` times the first.
    """
    diagonal = (design.squared_norms() + penalty.double()).to(residual.dtype)
    inverse = torch.where(diagonal > 0, 1 / diagonal, 0)[:, None]
    parts: list[Tensor] = []
    rounds, largest = 0, 0.0
    for columns in residual.split(_COLUMNS, dim=1):
        part, taken, left = _solve_columns(
            design,
            columns.contiguous(),
            penalty.to(residual.dtype)[:, None],
            inverse,
            tolerance=tolerance,
            max_rounds=max_rounds,
        )
        parts.append(part)
        rounds, largest = max(rounds, taken), max(largest, left)
    return RidgeSolution(change=torch.cat(parts, dim=1), rounds=rounds, residual=largest)


def _solve_columns(
    design: SparseDesign,
    y: Tensor,
    penalty: Tensor,
    inverse: Tensor,
    *,
    tolerance: float,
    max_rounds: int,
) -> tuple[Tensor, int, float]:
    gradient = design.transposed_times(y)
    change = torch.zeros_like(gradient)
    scaled = inverse * gradient
    direction = scaled.clone()
    size = _inner(gradient, scaled)
    first, rounds = size.clone(), 0
    # The tiny amount keeps columns that are solved, or were zero, from dividing 0 by 0.
    tiny = torch.finfo(torch.float64).tiny
    while rounds < max_rounds and bool((size > tolerance**2 * first).any()):
        image = design.transposed_times(design.times(direction)) + penalty * direction
        step = (size / (_inner(direction, image) + tiny)).to(y.dtype)
        change.addcmul_(direction, step.expand_as(direction))
        gradient.addcmul_(image, step.expand_as(image), value=-1)
        scaled = inverse * gradient
        before, size = size, _inner(gradient, scaled)
        direction.mul_((size / (before + tiny)).to(y.dtype)).add_(scaled)
        rounds += 1
    left = float((size / (first + tiny)).max().sqrt()) if size.numel() else 0.0
    return change, rounds, left


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each column, in float64."""
    return (a * b).sum(dim=0, dtype=torch.float64)
