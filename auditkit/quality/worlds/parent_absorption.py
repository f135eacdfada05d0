"""Absorption where the hierarchy is known: a parent's latent falls silent because a child's does
its work (Chanin et al. 2024, "A is for Absorption")."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.statistics import measure_mean
from auditkit.quality.worlds.readers import Reading
from auditkit.quality.worlds.world import PlantedBatch, PlantedWorld

LEANS_ABOVE = 0.2
LEAST_TOKENS = 20
_ROWS = 2048


@dataclass(slots=True, kw_only=True)
class AbsorptionTotals:
    """Counts for every pair of a child and its parent.

    `latents` are the latents that stand for the features, [feature]; `leaning` is the cosine of the
    child's latent with the parent's planted direction.
    """

    children: Int64[Tensor, " pair"]
    parents: Int64[Tensor, " pair"]
    latents: Int64[Tensor, " feature"]
    leaning: Float[Tensor, " pair"]
    with_child: Tensor = field(init=False)
    absorbed: Tensor = field(init=False)
    alone: Tensor = field(init=False)
    missed: Tensor = field(init=False)

    @classmethod
    def of(
        cls,
        world: PlantedWorld,
        directions: Float[Tensor, "latent d_in"],
        latents: Int64[Tensor, " feature"],
    ) -> AbsorptionTotals:
        """For a world with a hierarchy."""
        assert world.parents is not None
        above = torch.from_numpy(np.asarray(world.parents, dtype=np.int64))
        children = (above != torch.arange(len(above))).nonzero().squeeze(1)
        parents = above[children]
        rows = normalize(directions[latents[children]].double(), dim=1)
        leaning = (rows * world.features[parents].double()).sum(dim=1)
        return cls(children=children, parents=parents, latents=latents, leaning=leaning)

    def __post_init__(self) -> None:
        pairs = len(self.children)
        self.with_child = torch.zeros(pairs, dtype=torch.int64)
        self.absorbed = torch.zeros(pairs, dtype=torch.int64)
        self.alone = torch.zeros(len(self.latents), dtype=torch.int64)
        self.missed = torch.zeros(len(self.latents), dtype=torch.int64)

    def add(self, batch: PlantedBatch, reading: Reading) -> None:
        """Add a batch and what a dictionary made of it."""
        for start in range(0, batch.amounts.n_tokens, _ROWS):
            stop = min(start + _ROWS, batch.amounts.n_tokens)
            on = reading.latents.rows(start, stop).to_dense() != 0
            self._add(batch.amounts.rows(start, stop).to_dense() > 0, on[:, self.latents])

    def _add(self, planted: Tensor, on: Tensor) -> None:
        """`planted` and `on` say of each feature whether it fires, and whether its latent does."""
        child = planted[:, self.children]
        silent = ~on[:, self.parents]
        self.with_child += child.sum(dim=0)
        self.absorbed += (child & silent & on[:, self.children]).sum(dim=0)
        of_parent = torch.zeros(planted.shape, dtype=torch.int32)
        alone = planted & (of_parent.index_add_(1, self.parents, child.int()) == 0)
        self.alone += alone.sum(dim=0)
        self.missed += (alone & ~on).sum(dim=0)

    def excess(self) -> Measure:
        """P(parent's latent silent, child's on and leaning on the parent | child) − P(parent's
        latent silent | parent alone), mean over pairs seen often enough."""
        enough = (self.with_child >= LEAST_TOKENS) & (self.alone[self.parents] >= LEAST_TOKENS)
        if not bool(enough.any()):
            return NotMeasured(f"no pair of child and parent fired on {LEAST_TOKENS} tokens each")
        leans = self.leaning > LEANS_ABOVE
        absorbed = torch.where(leans, self.absorbed, 0).double() / self.with_child.clamp(min=1)
        missed = self.missed.double() / self.alone.clamp(min=1)
        return measure_mean((absorbed - missed[self.parents])[enough].numpy())
