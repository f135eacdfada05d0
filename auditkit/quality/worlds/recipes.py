"""The five worlds in three sizes, each with one thing that makes it hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from auditkit.quality.worlds.firing import (
    Correlated,
    Firing,
    Hierarchical,
    Independent,
    Probabilities,
    Steady,
)
from auditkit.quality.worlds.packing import pack_directions, random_unit_rows
from auditkit.quality.worlds.world import PlantedWorld, WorldKind, WorldSize

PACKED = 0.14
"""The largest |cos| that dictionaries are packed to, so that a gate world's ρ is at most 0.15."""
SPREAD = 0.25
CHILDREN = 3
CHILD_SHARE = 0.6
GROUP = 8
CORRELATION = 0.6
CROWDING = 4
MEAN_NORM = 4.0
OUTLIER_DIMENSIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Width, number of latents and mean number of firing features; a world that is not crowded has
    as many features as latents."""

    d_in: int
    d_sae: int
    l0: int


SIZES = {
    WorldSize.SMALL: Dimensions(d_in=64, d_sae=128, l0=4),
    WorldSize.MEDIUM: Dimensions(d_in=256, d_sae=768, l0=8),
    WorldSize.LARGE: Dimensions(d_in=576, d_sae=2304, l0=16),
}


def make_world(
    kind: WorldKind, size: WorldSize = WorldSize.SMALL, *, seed: int = 0
) -> PlantedWorld:
    """A world of one kind and size; equal arguments give equal worlds to the bit.

    - independent: rates within a factor of 4, near-orthogonal features (ρ ≤ 0.15), as many of them
      on every token (`Steady`). The gate world.
    - correlated: features fire in groups of 8, so that their number differs from token to token.
    - hierarchical: a quarter are parents with three exclusive children each; 60% of a parent's
      firings are with a child.
    - anisotropic: each feature by itself around a mean four times as long as the rest of an
      activation, nearly all of it in three outlier dimensions.
    - crowded: four times as many features as latents, random rather than packed, rates by Zipf's
      law: an SAE can have at best the most frequent quarter.
    """
    sizes = SIZES[size]
    n = sizes.d_sae * (CROWDING if kind is WorldKind.CROWDED else 1)
    rng = np.random.default_rng((seed, list(WorldKind).index(kind), n, 0x3071D))
    firing, parents = _firing(kind, n, float(sizes.l0), rng)
    if kind is WorldKind.CROWDED:
        features = random_unit_rows(n, sizes.d_in, seed=int(rng.integers(2**31)))
    else:
        features = pack_directions(n, sizes.d_in, max_cosine=PACKED, seed=int(rng.integers(2**31)))
    return PlantedWorld(
        kind=kind.value,
        size=size.value,
        seed=seed,
        features=features,
        bias=_bias(kind, sizes, rng),
        firing=firing,
        magnitudes=torch.ones(n),
        spread=SPREAD,
        d_sae=sizes.d_sae,
        k=sizes.l0,
        parents=parents,
    )


def _firing(
    kind: WorldKind, n: int, l0: float, rng: np.random.Generator
) -> tuple[Firing, np.ndarray | None]:
    """The firing model, with the parents of a hierarchy."""
    if kind is WorldKind.CORRELATED:
        groups = np.arange(n, dtype=np.int64) // GROUP
        rates = _even_rates(n, l0, rng)
        return Correlated(rates=rates, groups=groups, correlation=CORRELATION), None
    if kind is WorldKind.HIERARCHICAL:
        roots = n // (1 + CHILDREN)
        parents = np.concatenate([np.arange(roots), np.arange(n - roots) % roots]).astype(np.int64)
        rates = _even_rates(roots, l0 / (1 + CHILD_SHARE), rng)
        return Hierarchical(parents=parents, parent_rates=rates, child_share=CHILD_SHARE), parents
    if kind is WorldKind.CROWDED:
        falling = 1 / np.arange(1, n + 1)
        rates = np.minimum(falling * (l0 / falling.sum()), 0.3)
        return Independent(rates=rates * (l0 / rates.sum())), None
    if kind is WorldKind.INDEPENDENT:
        return Steady(rates=_even_rates(n, l0, rng)), None
    return Independent(rates=_even_rates(n, l0, rng)), None


def _even_rates(n: int, l0: float, rng: np.random.Generator) -> Probabilities:
    """Rates that differ by up to a factor of 4 and sum to `l0`, in random order."""
    relative = np.geomspace(0.5, 2.0, n)[rng.permutation(n)]
    return relative * (l0 / relative.sum())


def _bias(kind: WorldKind, sizes: Dimensions, rng: np.random.Generator) -> Float32[Tensor, " d_in"]:
    """What is added to every token."""
    if kind is not WorldKind.ANISOTROPIC:
        small = rng.standard_normal(sizes.d_in)
        return torch.from_numpy(small / np.linalg.norm(small)).float()
    bias = rng.standard_normal(sizes.d_in) * 0.1
    outliers = rng.permutation(sizes.d_in)[:OUTLIER_DIMENSIONS]
    bias[outliers] = rng.choice([-1.0, 1.0], OUTLIER_DIMENSIONS) * rng.uniform(
        3, 6, OUTLIER_DIMENSIONS
    )
    typical = np.sqrt(sizes.l0 * (1 + SPREAD**2))
    bias *= MEAN_NORM * typical / np.linalg.norm(bias)
    return torch.from_numpy(bias).float()
