"""Which latent fires where which feature does: counts over tokens, the same for any batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from auditkit.core.errors import MismatchError
from auditkit.quality.reconstruction import ReconstructionTotals
from auditkit.quality.sparsity import SparsityTotals
from auditkit.quality.worlds.readers import Reading
from auditkit.quality.worlds.world import PlantedBatch

_ROWS = 2048


@dataclass(slots=True, kw_only=True)
class FiringTotals:
    """Sums over tokens for `n_features` planted features and `d_sae` latents.

    `both[g, j]` counts tokens on which feature g and latent j fire; `products[g, j]` sums a_g·f_j,
    `squares[g, j]` sums a_g² over those tokens. The counts are exact integers; the sums float64.
    """

    n_features: int
    d_sae: int
    both: Tensor = field(init=False)
    products: Tensor = field(init=False)
    squares: Tensor = field(init=False)
    feature_fires: Tensor = field(init=False)
    reconstruction: ReconstructionTotals = field(init=False)
    sparsity: SparsityTotals = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.n_features, self.d_sae)
        self.both = torch.zeros(shape, dtype=torch.int64)
        self.products = torch.zeros(shape, dtype=torch.float64)
        self.squares = torch.zeros(shape, dtype=torch.float64)
        self.feature_fires = torch.zeros(self.n_features, dtype=torch.int64)
        self.reconstruction = ReconstructionTotals()
        self.sparsity = SparsityTotals(self.d_sae)

    @property
    def tokens(self) -> int:
        return self.sparsity.tokens

    @property
    def latent_fires(self) -> Tensor:
        """On how many tokens each latent fires, i64 [d_sae]."""
        return self.sparsity.fires

    def add(self, batch: PlantedBatch, reading: Reading) -> None:
        """Add a batch and what a dictionary made of it; MismatchError for other sizes."""
        planted, latents = batch.amounts, reading.latents
        if (planted.d_sae, latents.d_sae) != (self.n_features, self.d_sae):
            raise MismatchError(
                f"these totals are of {self.n_features} features and {self.d_sae} latents, and the "
                f"batch has {planted.d_sae} and {latents.d_sae}"
            )
        if planted.n_tokens != latents.n_tokens:
            raise MismatchError(f"{latents.n_tokens} tokens read of {planted.n_tokens}")
        self.reconstruction.add(batch.x, reading.x_hat)
        self.sparsity.add(latents)
        self.feature_fires += torch.bincount(planted.indices, minlength=self.n_features)
        for start in range(0, planted.n_tokens, _ROWS):
            stop = min(start + _ROWS, planted.n_tokens)
            self._add_dense(
                planted.rows(start, stop).to_dense(), latents.rows(start, stop).to_dense()
            )

    def _add_dense(self, a: Tensor, f: Tensor) -> None:
        on = (f != 0).float()
        # At most `_ROWS` ones are added up, so the counts are exact in float32.
        self.both += ((a != 0).float().T @ on).round().long()
        self.products += (a.T @ f).double()
        self.squares += (a.square().T @ on).double()
