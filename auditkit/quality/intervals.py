"""Intervals of what is computed from sums over pieces of text: tokens of one piece depend on one
another, so whole pieces are drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from auditkit.core.measured import Interval, Measure, NotMeasured

RESAMPLES = 1000
LEAST_PIECES = 10
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]


@dataclass(slots=True)
class PieceSums:
    """Sums of some quantities over the tokens of each piece of text, in float64."""

    columns: int
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(0, self.columns, dtype=torch.float64)

    def add(self, values: Float64[Tensor, "token column"], pieces: Int64[Tensor, " token"]) -> None:
        """Add each token's values to its piece's sums; pieces are numbered from 0."""
        if not len(pieces):
            return
        missing = int(pieces.max()) + 1 - len(self.sums)
        if missing > 0:
            self.sums = torch.cat([self.sums, self.sums.new_zeros(missing, self.columns)])
        self.sums.index_add_(0, pieces, values)


def resampled_interval(
    sums: Floats, statistic: Statistic, *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of a statistic of the columns' totals.

    `sums` is [piece, column]; `statistic` maps totals [resample, column] to values [resample].
    Pieces are drawn with replacement (Efron & Tibshirani 1993, §13.3). None for fewer than ten
    pieces, and where a resample has no finite value.
    """
    pieces = len(sums)
    if pieces < LEAST_PIECES:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(pieces, np.full(pieces, 1 / pieces), size=RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(drawn.astype(np.float64) @ sums)
    if not np.isfinite(values).all():
        return None
    low, high = (float(v) for v in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(low=low, high=high, level=level)


def ratio(above: int, below: int) -> Statistic:
    """The statistic Σ above / Σ below of two columns."""
    return lambda totals: totals[:, above] / totals[:, below]


def with_interval(measure: Measure, sums: Floats | None, statistic: Statistic) -> Measure:
    """`measure` with its interval over pieces, widened to hold the value; as it is without any."""
    if isinstance(measure, NotMeasured) or sums is None:
        return measure
    found = resampled_interval(sums, statistic)
    if found is None:
        return measure
    low, high = min(found.low, measure.value), max(found.high, measure.value)
    return replace(measure, interval=replace(found, low=low, high=high))


def non_empty(sums: Tensor, counts: int) -> Floats:
    """The rows of pieces of which the column `counts` has seen a token."""
    return sums[sums[:, counts] > 0].numpy()


def piece_numbers(lengths: Sequence[int]) -> Int64[Tensor, " token"]:
    """The piece of each token where pieces of such lengths follow one another."""
    return torch.repeat_interleave(torch.tensor(list(lengths), dtype=torch.int64))
