"""Near-orthogonal directions, more of them than dimensions: how little they can overlap."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput

_ROUNDS = 400
_RATE = 0.03


def random_unit_rows(n: int, d_in: int, *, seed: int) -> Float32[Tensor, "row d_in"]:
    """`n` rows of norm 1, uniform on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, d_in, generator=generator), dim=1)


def pack_directions(
    n: int, d_in: int, *, max_cosine: float, seed: int, rounds: int = _ROUNDS
) -> Float32[Tensor, "row d_in"]:
    """`n` unit rows in `d_in` dimensions whose largest |cos| is pushed towards `max_cosine`.

    Gradient descent (Adam) from random rows on Σ relu(|cos| − max_cosine)² over all pairs, until
    no pair is above or `rounds` are done: the Welch bound may put `max_cosine` out of reach, and
    what was reached is the caller's to measure. Where n ≤ d_in, orthonormal rows come back.
    """
    if not 0 < max_cosine < 1:
        raise InvalidInput(f"max_cosine is {max_cosine}, expected a number between 0 and 1")
    rows = random_unit_rows(n, d_in, seed=seed)
    if n <= d_in:
        return torch.linalg.qr(rows.double().T).Q.T.float().contiguous()
    first, second = torch.zeros_like(rows), torch.zeros_like(rows)
    for round_ in range(1, rounds + 1):
        cosines = rows @ rows.T
        cosines.fill_diagonal_(0.0)
        excess = (cosines.abs() - 0.98 * max_cosine).clamp_min_(0.0)
        if float(excess.max()) <= 0.02 * max_cosine:
            break
        slope = (excess * cosines.sign()) @ rows
        slope -= (slope * rows).sum(dim=1, keepdim=True) * rows
        first = 0.9 * first + 0.1 * slope
        second = 0.99 * second + 0.01 * slope.square().mean(dim=1, keepdim=True)
        step = (first / (1 - 0.9**round_)) / ((second / (1 - 0.99**round_)).sqrt() + 1e-12)
        rows = normalize(rows - _RATE * step / d_in**0.5, dim=1)
    return rows


def max_cosines(rows: Float[Tensor, "row d_in"]) -> Float[Tensor, " row"]:
    """Each row's largest |cos| with another row (float32); zeros where there is only one."""
    unit = normalize(rows.float(), dim=1)
    cosines = (unit @ unit.T).abs()
    cosines.fill_diagonal_(0.0)
    return cosines.max(dim=1).values
