"""Sums over tokens of what is compared between x and x̂, per piece of text where it is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.measured import Measure, Measured
from auditkit.quality.intervals import Floats, PieceSums, non_empty
from auditkit.quality.reconstruction import NO_TOKENS


class Column(IntEnum):
    """What is summed over tokens; DEVIATION is ‖x − mean x‖² once the mean is known."""

    TOKENS = 0
    NON_ZERO = 1
    ERROR = 2
    NORM = 3
    NORM_HAT = 4
    INNER = 5
    FIRES = 6
    NORM_RATIO = 7
    RELATIVE_ERROR = 8
    COSINE = 9
    DEVIATION = 10


@dataclass(slots=True)
class TokenSums:
    """Sums over all tokens seen, and per piece.

    Deviations are summed around the first batch's mean, near enough to the mean of all that their
    difference costs no digits.
    """

    totals: Tensor = field(default_factory=lambda: torch.zeros(len(Column), dtype=torch.float64))
    pieces: PieceSums = field(default_factory=lambda: PieceSums(len(Column)))
    shifted: PieceSums | None = None
    centre: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(
        self,
        x: Float[Tensor, "token d_in"],
        x_hat: Float[Tensor, "token d_in"],
        fires: Int64[Tensor, " token"],
        pieces: Int64[Tensor, " token"] | None,
    ) -> Float[Tensor, "kept 3"]:
        """Add tokens; returns ‖x‖, ‖x̂‖ and ‖x−x̂‖ of those whose x is not zero."""
        exact, hat = x.double(), x_hat.double()
        if len(x) and not len(self.centre):
            self.centre = exact.mean(0)
        rows = _rows(exact, hat, fires)
        if len(x):
            rows[:, Column.DEVIATION] = (exact - self.centre).square().sum(1)
        self.totals += rows.sum(0)
        if pieces is not None and len(x):
            self.shifted = self.shifted or PieceSums(x.shape[1])
            self.pieces.add(rows, pieces)
            self.shifted.add(exact - self.centre, pieces)
        kept = rows[rows[:, Column.NON_ZERO] > 0]
        return kept[:, [Column.NORM, Column.NORM_HAT, Column.ERROR]].sqrt()

    def mean(self, column: Column) -> Measure:
        """A mean over tokens whose x is not zero."""
        tokens = int(self.totals[Column.NON_ZERO])
        if not tokens:
            return NO_TOKENS
        return Measured(value=float(self.totals[column]) / tokens, n=tokens)

    def by_piece(self, mean: Tensor) -> Floats | None:
        """The sums [piece, column], deviations around `mean`; None where no piece is known."""
        if self.shifted is None:
            return None
        sums, gap = self.pieces.sums.clone(), mean - self.centre
        # Σ‖x−m‖² = Σ‖x−c‖² − 2(m−c)·Σ(x−c) + n‖m−c‖²
        sums[:, Column.DEVIATION] += (
            sums[:, Column.TOKENS] * gap.square().sum() - 2 * self.shifted.sums @ gap
        )
        return non_empty(sums, Column.TOKENS)


def _rows(x: Tensor, x_hat: Tensor, fires: Tensor) -> Tensor:
    """The columns of each token, [token, column], without its deviation."""
    rows = torch.zeros(len(x), len(Column), dtype=torch.float64)
    norm, norm_hat = x.norm(dim=1), x_hat.norm(dim=1)
    error, inner = (x - x_hat).norm(dim=1), (x * x_hat).sum(1)
    safe = torch.where(norm > 0, norm, 1.0)
    both = safe * torch.where(norm_hat > 0, norm_hat, 1.0)
    rows[:, Column.TOKENS] = 1
    rows[:, Column.NON_ZERO] = (norm > 0).double()
    rows[:, Column.ERROR] = error.square()
    rows[:, Column.NORM] = norm.square()
    rows[:, Column.NORM_HAT] = norm_hat.square()
    rows[:, Column.INNER] = inner
    rows[:, Column.FIRES] = fires.double()
    rows[:, Column.NORM_RATIO] = norm_hat / safe * (norm > 0)
    rows[:, Column.RELATIVE_ERROR] = error / safe * (norm > 0)
    rows[:, Column.COSINE] = inner / both
    return rows
