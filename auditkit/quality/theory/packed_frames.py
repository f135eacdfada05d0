"""Directions pushed apart by gradient descent: what packing can be found, beside its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory.coherence import moment_bound, mutual_coherence, welch_bound

_SHARPNESS = (8.0, 5e4)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedFrame:
    """Unit rows, their coherence, and what no frame of that size goes below."""

    rows: Float64[Tensor, "m d"]
    coherence: float
    welch: float
    moments: float


def pack_tightly(
    m: int, d: int, *, steps: int = 1500, restarts: int = 8, seed: int = 0
) -> PackedFrame:
    """The best of `restarts` frames whose largest cos² was lowered by gradient descent.

    Minimises (1/β) ln Σ_{i<j} exp(β cos²_ij), which tends to max cos² as β grows, by Adam with a
    falling rate while β rises from 8 to 5·10⁴. For small m and d; memory restarts·m².
    """
    if m < 2 or d < 1:
        raise InvalidInput(f"{m} directions in {d} dimensions, expected two or more in one or more")
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(restarts, m, d, generator=generator, dtype=torch.float64).requires_grad_()
    first, second = torch.triu_indices(m, m, offset=1).unbind(0)
    optimiser = torch.optim.Adam([raw], lr=0.05)
    low, high = (math.log(b) for b in _SHARPNESS)
    for step in range(steps):
        share = step / max(1, steps - 1)
        sharpness = math.exp(low + (high - low) * share)
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - share) ** 2 + 1e-6
        rows = normalize(raw, dim=2)
        squares = (rows @ rows.transpose(1, 2))[:, first, second].square()
        loss = torch.logsumexp(sharpness * squares, dim=1).sum() / sharpness
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    frames = normalize(raw.detach(), dim=2)
    found = [mutual_coherence(rows) for rows in frames]
    best = min(range(restarts), key=found.__getitem__)
    return PackedFrame(
        rows=frames[best],
        coherence=found[best],
        welch=welch_bound(m, d),
        moments=moment_bound(m, d),
    )
