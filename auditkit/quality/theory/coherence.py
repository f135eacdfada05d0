"""How far the directions of a dictionary are from orthogonal, and how near they can come."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput

_ROWS = 1024
_MOMENTS = 24


def unit_rows(directions: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """The rows, each of norm 1; raises InvalidInput where one is zero."""
    zero = int((directions.norm(dim=1) == 0).sum())
    if zero:
        raise InvalidInput(
            f"{zero} of {len(directions)} directions are zero, expected none",
            help="leave latents without a direction out",
        )
    return normalize(directions, dim=1)


@torch.no_grad()
def cosine_blocks(units: Float[Tensor, "m d"]) -> Iterator[Float[Tensor, "row m"]]:
    """Cosines of unit rows with all rows, some rows at a time; each row's with itself is 0."""
    for start in range(0, len(units), _ROWS):
        cosines = units[start : start + _ROWS] @ units.T
        rows = torch.arange(len(cosines))
        cosines[rows, start + rows] = 0.0
        yield cosines


def mutual_coherence(directions: Float[Tensor, "m d"]) -> float:
    """μ: the largest |cos| of two different directions; 0 for fewer than two."""
    blocks = cosine_blocks(unit_rows(directions))
    return min(1.0, max((float(c.abs().max()) for c in blocks), default=0.0))


def babel(directions: Float[Tensor, "m d"], k: int) -> Float64[Tensor, " k"]:
    """Tropp's μ₁(1), …, μ₁(k): the most that k directions can overlap with one other.

    μ₁(k) = max_i max_{|S| = k, i ∉ S} Σ_{j ∈ S} |cos_ij| ≤ k μ (Tropp 2004, "Greed is good", §2).
    There are at most m − 1 others: beyond them μ₁ does not grow.
    """
    units = unit_rows(directions)
    most = min(k, len(units) - 1)
    found = torch.zeros(max(most, 1), dtype=torch.float64)
    for cosines in cosine_blocks(units):
        if most > 0:
            sums = cosines.abs().topk(most, dim=1).values.double().cumsum(1)
            found = torch.maximum(found, sums.amax(0))
    return torch.cat([found, found[-1:].expand(k - len(found))]) if k > len(found) else found[:k]


def welch_bound(m: int, d: int) -> float:
    """No m unit vectors in R^d have a smaller coherence: √((m − d) / (d (m − 1))) (Welch 1974).

    It is met exactly by equiangular tight frames, which exist for few m ≤ d(d + 1)/2.
    """
    _check_frame(m, d)
    return math.sqrt((m - d) / (d * (m - 1))) if m > max(d, 1) else 0.0


def moment_bound(m: int, d: int) -> float:
    """The largest of the bounds on coherence that even moments give; never below Welch's.

    For unit vectors in R^d, Σ_ij cos^{2t} ≥ m² B_t with B_t = Π_{s<t} (2s + 1)/(d + 2s), the moment
    of a uniform direction (Sidelnikov 1974); t = 1 is Welch's. The m diagonal terms are 1, so
    μ^{2t} ≥ (m B_t − 1)/(m − 1) for every t. Beyond m = d(d + 1)/2 some t > 1 decides.
    """
    _check_frame(m, d)
    if m <= max(d, 1):
        return 0.0
    least = [
        math.exp(math.log(share) / (2 * t))
        for t in range(1, _MOMENTS + 1)
        if (share := (m * math.exp(log_moment(t, d)) - 1) / (m - 1)) > 0
    ]
    return min(1.0, max(least, default=0.0))


def log_moment(t: int, d: int) -> float:
    """ln E[u₁^{2t}] of a uniform unit vector u in R^d: Σ_{s<t} ln((2s + 1)/(d + 2s))."""
    return sum(math.log((2 * s + 1) / (d + 2 * s)) for s in range(t))


def _check_frame(m: int, d: int) -> None:
    if m < 1 or d < 1:
        raise InvalidInput(f"{m} directions in {d} dimensions, expected at least one of each")
