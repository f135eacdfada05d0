"""How latents' directions overlap: interference and coherence of a dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.quality.theory import (
    CANDES_LIMIT,
    cosine_blocks,
    uniform_interference,
    welch_bound,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """Overlap of the m unit directions of a dictionary in d dimensions.

    `mutual_coherence` is the largest |cos| of two directions and never below `welch_bound`.
    `interference` is Σ_{i≠j} p_i cos²_ij averaged over latents j, p_i how often latent i fires;
    `uniform_interference` = p(m−1)/d is what a uniform frame would have (Elhage et al. 2022).
    `gershgorin_2k` = (2k−1)·coherence bounds the restricted isometry constant δ_2k; sparse
    recovery is guaranteed below `recovery_limit` = √2 − 1 (Candès & Wakin 2008).
    """

    mean_abs_cosine: Measure
    mutual_coherence: Measure
    welch_bound: Measure
    interference: Measure
    uniform_interference: Measure
    gershgorin_2k: Measure
    recovery_limit: float
    zero_directions: int


@torch.no_grad()
def measure_interference(
    W_dec: Float[Tensor, "d_sae d_in"],
    *,
    densities: Float[Tensor, " d_sae"] | None = None,
    k: int | None = None,
) -> Interference:
    """Measure the overlap of `W_dec`'s rows; rows of norm zero are left out and counted.

    `densities` are P(f > 0) per latent; without them, and without `k`, the measures that need
    them are NotMeasured.
    """
    live = W_dec.norm(dim=1) > 0
    directions = normalize(W_dec[live].to(torch.float32), dim=1)
    m, d = directions.shape
    zero = len(W_dec) - m
    if m < 2:
        return _unmeasured(NotMeasured("fewer than two directions of non-zero norm"), zero)
    p = None if densities is None else densities[live].to(torch.float64)
    total, largest, interference = 0.0, 0.0, 0.0
    for cosines in cosine_blocks(directions):
        total += float(cosines.abs().sum(dtype=torch.float64))
        largest = max(largest, float(cosines.abs().max()))
        if p is not None:
            interference += float(cosines.square().to(torch.float64).sum(0) @ p)
    coherence = min(1.0, largest)
    pairs = m * (m - 1) // 2
    no_densities = NotMeasured("no densities were given")
    return Interference(
        mean_abs_cosine=Measured(value=total / (2 * pairs), n=pairs),
        mutual_coherence=Measured(value=coherence, n=pairs),
        welch_bound=Measured(value=welch_bound(m, d), n=m),
        interference=no_densities if p is None else Measured(value=interference / m, n=m),
        uniform_interference=no_densities
        if p is None
        else Measured(value=uniform_interference(m, d, float(p.mean())), n=m),
        gershgorin_2k=NotMeasured("no k was given")
        if k is None
        else Measured(value=(2 * k - 1) * coherence, n=pairs),
        recovery_limit=CANDES_LIMIT,
        zero_directions=zero,
    )


def _unmeasured(reason: NotMeasured, zero: int) -> Interference:
    return Interference(
        mean_abs_cosine=reason,
        mutual_coherence=reason,
        welch_bound=reason,
        interference=reason,
        uniform_interference=reason,
        gershgorin_2k=reason,
        recovery_limit=CANDES_LIMIT,
        zero_directions=zero,
    )
