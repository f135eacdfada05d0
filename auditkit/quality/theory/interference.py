"""How much features that share dimensions disturb one another when they are read off.

With x = Σ_j z_j f_j (‖f_j‖ = 1, c_ij = f_i·f_j) the reading of feature i is f_i·x = z_i + I_i, with
the interference I_i = Σ_{j≠i} z_j c_ij. Let features fire independently with probability p and
z_j = (fires) · a_j with E a = α, E a² = σ. Then E z = pα, E z² = pσ, and

    E I_i² = Σ_j E[z_j²] c_ij² + Σ_{j≠l} E[z_j] E[z_l] c_ij c_il
           = pσ Σ_j c_ij² + p²α² ((Σ_j c_ij)² − Σ_j c_ij²).

The first term alone is the review's p Σ c². It is exact where α = 0, and it is the mean over frames
of independent uniform directions whatever α, because there E[c_ij c_il] = 0 for j ≠ l, and
E c_ij² = 1/d. Hence the mean over random frames is pσ (m − 1)/d, exactly.

A tight frame does better: Σ_{j≠i} c_ij² averages m/d − 1, so pσ (m − d)/d, which no frame beats
(Σ_ij c_ij² ≥ m²/d: Welch 1974). For m ≫ d both are pσ m/d: interference stays small while p ≪ d/m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure
from auditkit.core.statistics.bootstrap import measure_mean
from auditkit.quality.theory.coherence import unit_rows

_SAMPLES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Amplitude:
    """E a and E a² of a feature's value where it fires."""

    mean: float
    second_moment: float

    def __post_init__(self) -> None:
        if self.second_moment < self.mean**2:
            raise InvalidInput(
                f"E a² = {self.second_moment} is less than (E a)² = {self.mean**2}",
                help="give moments of one distribution",
            )


ONE = Amplitude(mean=1.0, second_moment=1.0)
"""Binary features: 1 where they fire."""
SIGN = Amplitude(mean=0.0, second_moment=1.0)
"""+1 or −1 with equal probability: the cross terms vanish."""
UNIFORM = Amplitude(mean=0.5, second_moment=1 / 3)
"""Uniform on [0, 1], as in the toy models of Elhage et al. 2022."""


def uniform_interference(m: int, d: int, p: float) -> float:
    """p(m − 1)/d: E I² of unit-valued features on independent uniform directions in R^d."""
    return p * (m - 1) / d


def least_interference(m: int, d: int, p: float) -> float:
    """p(m − d)/d, or 0 for m ≤ d: the least mean of p Σ_{j≠i} c_ij², met by tight frames."""
    return p * max(0, m - d) / d


def expected_interference(
    directions: Float[Tensor, "m d"], p: float, amplitude: Amplitude = ONE
) -> Float64[Tensor, " m"]:
    """E I_i² of each direction of this very frame, by the module's formula."""
    _check_probability(p)
    units = unit_rows(directions.double())
    cosines = units @ units.T
    cosines.fill_diagonal_(0.0)
    squares, sums = cosines.square().sum(1), cosines.sum(1)
    together = (p * amplitude.mean) ** 2
    return p * amplitude.second_moment * squares + together * (sums.square() - squares)


def simulate_interference(
    directions: Float[Tensor, "m d"],
    p: float,
    amplitude: Amplitude = ONE,
    *,
    samples: int = _SAMPLES,
    seed: int = 0,
) -> Measure:
    """Mean of I_i² over features i and over `samples` draws of z, with its interval over draws.

    Values are drawn as ONE, SIGN or UNIFORM says; raises InvalidInput for another amplitude.
    """
    _check_probability(p)
    units = unit_rows(directions.double())
    generator = torch.Generator().manual_seed(seed)
    z = draw_codes(samples, len(units), p, amplitude, generator)
    interference = (z @ units) @ units.T - z
    return measure_mean(interference.square().mean(1).numpy(), seed=seed)


def draw_codes(
    n: int, m: int, p: float, amplitude: Amplitude, generator: torch.Generator
) -> Float64[Tensor, "n m"]:
    """z [sample, feature]: independent features that fire with probability p."""
    fires = torch.rand(n, m, generator=generator, dtype=torch.float64) < p
    drawn = torch.rand(n, m, generator=generator, dtype=torch.float64)
    if amplitude == SIGN:
        drawn = torch.where(drawn < 0.5, -1.0, 1.0).double()
    elif amplitude == ONE:
        drawn = torch.ones_like(drawn)
    elif amplitude != UNIFORM:
        raise InvalidInput(f"{amplitude} has no sampler", help="use ONE, SIGN or UNIFORM")
    return drawn * fires


def random_frame(m: int, d: int, *, seed: int = 0) -> Float64[Tensor, "m d"]:
    """m independent uniform unit vectors in R^d."""
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(m, d, generator=generator, dtype=torch.float64))


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise InvalidInput(f"a probability of {p}, expected 0 to 1")
