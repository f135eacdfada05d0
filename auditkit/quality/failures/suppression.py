"""Feature suppression, of the whole SAE and latent by latent, without knowing true features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.quality.reconstruction import ReconstructionTotals
from auditkit.saes import SparseAutoencoder
from auditkit.tensors import SparseLatents

ENOUGH_FIRES = 30
"""A latent that fires more rarely is left out of figures over latents: its γ is mostly noise."""
SUPPRESSED_BELOW = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """How far reconstructions fall short of activations, on held-out tokens.

    γ = E‖x̂‖² / E[x·x̂] (Wright & Sharkey 2024), as it is and about what the SAE decodes from no
    latents at all (its b_dec), which hides suppression where the mean is large. `latents` are those
    that fired at least `ENOUGH_FIRES` times; median, 10th and 90th percentile of their own γ, and
    the share of them below 0.9.
    """

    explained_variance: Measure
    gamma: Measure
    gamma_about_bias: Measure
    median: Measure
    low: Measure
    high: Measure
    suppressed: Measure
    latents: int


class SuppressionTotals:
    """Sums over tokens for an SAE; the same whatever the batches they came in.

    A latent's own γ is the whole one's with all other latents held: with d_j its decoder row and
    e_j = x − x̂ + f_j d_j what is left for it to explain, γ_j = Σ‖f_j d_j‖² / Σ e_j·f_j d_j.
    Below 1, a longer row would have explained more; 1 / γ_j is the best factor for it.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        d_sae = sae.config.d_sae
        self._directions = sae.normalised_directions(torch.arange(d_sae))
        self._power = torch.zeros(d_sae, dtype=torch.float64)
        self._pull = torch.zeros(d_sae, dtype=torch.float64)
        self._fires = torch.zeros(d_sae, dtype=torch.int64)
        self._whole = ReconstructionTotals()
        self._about_bias = ReconstructionTotals()

    def add(self, x: Float[Tensor, "token d_in"]) -> None:
        """Add activations in the model's own units."""
        for rows in x.split(self._sae.chunk_tokens()):
            self._add(rows)

    def _add(self, x: Float[Tensor, "token d_in"]) -> None:
        sae = self._sae
        latents = sae.encode(x)
        x_hat = sae.decode(latents, x)
        silence = sae.decode(_no_latents(len(x), latents.d_sae), x)
        self._whole.add(x, x_hat)
        self._about_bias.add(x - silence, x_hat - silence)
        amounts = latents.to_dense() * sae.token_scales(x)[:, None]
        lengths = self._directions.double().square().sum(dim=1)
        self._power += amounts.double().square().sum(dim=0) * lengths
        owed = amounts.T @ (x - x_hat)
        self._pull += (owed.double() * self._directions).sum(dim=1)
        self._fires += (amounts != 0).sum(dim=0)

    @property
    def fires(self) -> Int64[Tensor, " d_sae"]:
        """On how many tokens each latent fired."""
        return self._fires

    def latent_gammas(self) -> Float[Tensor, " d_sae"]:
        """γ_j of each latent (float64); infinite where it explains nothing, or never fired."""
        owed = self._power + self._pull
        return torch.where(owed > 0, self._power / owed, torch.inf)

    def measure(self) -> Suppression:
        """What the sums amount to."""
        usual = self._fires >= ENOUGH_FIRES
        gammas = self.latent_gammas()[usual]
        n = len(gammas)
        quantiles = _quantiles(gammas)
        below: Measure = NotMeasured(f"no latent fired {ENOUGH_FIRES} times")
        if n:
            below = Measured(value=float((gammas < SUPPRESSED_BELOW).double().mean()), n=n)
        return Suppression(
            explained_variance=self._whole.explained_variance(),
            gamma=self._whole.relative_bias(),
            gamma_about_bias=self._about_bias.relative_bias(),
            low=quantiles[0],
            median=quantiles[1],
            high=quantiles[2],
            suppressed=below,
            latents=n,
        )


def _quantiles(gammas: Tensor) -> tuple[Measure, Measure, Measure]:
    """10%, 50% and 90%; by rank, because a γ may be infinite."""
    n = len(gammas)
    if not n:
        nothing = NotMeasured(f"no latent fired {ENOUGH_FIRES} times")
        return nothing, nothing, nothing
    ordered = gammas.sort().values
    found: list[Measure] = []
    for share in (0.1, 0.5, 0.9):
        value = float(ordered[min(n - 1, int(share * n))])
        finite = value != float("inf")
        found.append(
            Measured(value=value, n=n)
            if finite
            else NotMeasured("latents in that place explain nothing of what the others leave")
        )
    return found[0], found[1], found[2]


def _no_latents(tokens: int, d_sae: int) -> SparseLatents:
    return SparseLatents(
        indices=torch.empty(0, dtype=torch.int64),
        values=torch.empty(0),
        offsets=torch.zeros(tokens + 1, dtype=torch.int64),
        d_sae=d_sae,
    )
