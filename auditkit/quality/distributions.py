"""How norms and errors are spread over tokens: what a mean or a ratio of sums leaves out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.measured import NotMeasured
from auditkit.quality.reconstruction import NO_TOKENS

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PER_DECADE = 20
_MOST_BINS = 400
_SHARE_EDGES = tuple(i / 40 for i in range(61))


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Tokens per bin of a quantity; bin i covers [edges[i], edges[i+1]).

    The end bins also count what lies beyond them. Norms have edges at whole twentieths of a
    decade, shares at whole fortieths up to 1.5, so that histograms of one quantity can be laid
    over one another. `quantiles` are pairs (share of tokens below, value).
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    quantiles: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDistributions:
    """Over tokens with ‖x‖ > 0: ‖x‖, ‖x̂‖, ‖x−x̂‖, and relative to ‖x‖ the last two."""

    norm: Histogram
    norm_hat: Histogram
    error: Histogram
    norm_ratio: Histogram
    relative_error: Histogram


@dataclass(slots=True)
class DistributionTotals:
    """The norms of all tokens seen."""

    parts: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, norms: Float[Tensor, "token 3"]) -> None:
        """Add the columns ‖x‖, ‖x̂‖, ‖x−x̂‖ of some tokens, none of them with ‖x‖ = 0."""
        self.parts.append(norms)

    def distributions(self) -> TokenDistributions | NotMeasured:
        if not sum(map(len, self.parts)):
            return NO_TOKENS
        norm, norm_hat, error = torch.cat(self.parts).double().unbind(1)
        return TokenDistributions(
            norm=log_histogram(norm),
            norm_hat=log_histogram(norm_hat),
            error=log_histogram(error),
            norm_ratio=_histogram(norm_hat / norm, _SHARE_EDGES),
            relative_error=_histogram(error / norm, _SHARE_EDGES),
        )


def log_histogram(values: Float[Tensor, " token"]) -> Histogram:
    """A histogram on bins of equal ratio; values of 0 are in the lowest bin."""
    positive = values[values > 0]
    if not len(positive):
        return _histogram(values, (0.0, 1.0))
    high = math.floor(math.log10(float(positive.max())) * _PER_DECADE) + 1
    low = math.floor(math.log10(float(positive.min())) * _PER_DECADE)
    low = max(low, high - _MOST_BINS)
    return _histogram(values, tuple(10 ** (i / _PER_DECADE) for i in range(low, high + 1)))


def _histogram(values: Tensor, edges: tuple[float, ...]) -> Histogram:
    bins = len(edges) - 1
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    place = torch.bucketize(values.double().contiguous(), inner, right=True)
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    found = torch.quantile(values.double(), levels).tolist()
    return Histogram(
        edges=edges,
        counts=tuple(torch.bincount(place, minlength=bins).tolist()),
        quantiles=tuple(zip(QUANTILES, found, strict=True)),
    )
