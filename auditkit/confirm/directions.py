"""The direction a rule's signal stands for, and the directions it is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.settings import LatentTable
from auditkit.core.directions import LockedDirection
from auditkit.core.locks import LockedLatent, LockedSignal
from auditkit.saes import SparseAutoencoder

MAX_COSINE = 0.2
_TRIES = 40
_ENOUGH = 99
"""Candidates at which tolerances stop widening."""
_RELAXATIONS = ((0.25, 0.2), (0.5, 0.5), (1.0, 1.0), (math.inf, math.inf))
"""Tolerances of matching: log10 of density, relative mean active value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDirection:
    """What steering a signal adds to x per unit of dose: `norm_per_dose` along `unit`.

    A dose of α raises latent j by α·u_j·M_j, u_j its share of the signal's weights (|u| sums to 1)
    and M_j its 99th percentile; several latents together are brought to the norm that one of them
    would have, Σ|u_j|·M_j·‖d_j‖, so that a dose means the same for one latent as for many.

    A plain direction v has no latents: M is the distance between the means of the examples that it
    was fitted on, and it reads x·v − `midpoint`, the place halfway between them. `rows` are the
    changes of x per unit of each latent, or v.
    """

    latents: tuple[int, ...]
    shares: NDArray[np.float64]
    scales: NDArray[np.float64]
    unit: Float[Tensor, " d_in"]
    norm_per_dose: float
    rows: Float[Tensor, "latent d_in"]
    midpoint: float | None = None

    @property
    def scale(self) -> float:
        """A dose of 1 in the SAE's own units, the mean over the latents: Σ|u_j|·M_j."""
        return float(np.abs(self.shares) @ self.scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlDirections:
    """Unit directions of one kind, and what was given up to find them."""

    units: Float[Tensor, "n d_in"]
    notes: tuple[str, ...] = ()


def target_direction(
    sae: SparseAutoencoder, signal: LockedSignal, table: LatentTable
) -> TargetDirection | str:
    """The signal's direction, or the reason why it has none (unresolved, dead latents)."""
    if signal.unresolved is not None or not signal.latents:
        return f"signal {signal.name} has no latents: {signal.unresolved or 'none were locked'}"
    if signal.direction is not None:
        return _plain_direction(signal.direction, signal.latents[0])
    live = [part for part in signal.latents if table.q99[part.latent] > 0]
    if not live:
        return f"no latent of signal {signal.name} ever fires on the reference text (dead)"
    weights = np.array([part.weight for part in live])
    if not np.abs(weights).sum() > 0:
        return f"every weight of signal {signal.name} is 0"
    latents = tuple(part.latent for part in live)
    shares = weights / np.abs(weights).sum()
    scales = table.q99[list(latents)]
    rows = decoder_rows(sae, latents)
    steps = rows * torch.tensor(scales, dtype=torch.float32)[:, None]
    total = (steps * torch.tensor(shares, dtype=torch.float32)[:, None]).sum(dim=0)
    norm = float(np.abs(shares) @ steps.norm(dim=1).double().numpy())
    if not float(total.norm()) > 1e-9 * norm:
        return f"the latents of signal {signal.name} cancel one another"
    return TargetDirection(
        latents=latents,
        shares=shares,
        scales=scales,
        unit=total / total.norm(),
        norm_per_dose=norm,
        rows=rows,
    )


def _plain_direction(direction: LockedDirection, share: LockedLatent) -> TargetDirection:
    """A value of ±1 lies at the examples' means, so they are two scales apart."""
    v = torch.tensor(direction.components(), dtype=torch.float32)
    sign = -1.0 if share.weight < 0 else 1.0
    return TargetDirection(
        latents=(),
        shares=np.array([sign]),
        scales=np.array([2 * share.scale]),
        unit=sign * v / v.norm(),
        norm_per_dose=2 * share.scale * float(v.norm()),
        rows=v[None],
        midpoint=share.offset,
    )


def decoder_rows(sae: SparseAutoencoder, latents: Sequence[int]) -> Float[Tensor, "n d_in"]:
    """Change of x per unit of each latent, in the model's own units."""
    return sae.decoder_directions(torch.tensor(list(latents), dtype=torch.long))


def matched_latents(
    sae: SparseAutoencoder, target: TargetDirection, table: LatentTable, *, n: int, seed: int
) -> ControlDirections:
    """`n` directions of live latents like the target's: density, mean active value, |cos| < 0.2.

    For several latents, each control takes as many, one matched to each, with the target's shares.
    Where fewer than 99 match, or `n` if that is less, the tolerances widen step by step, and a note
    says how far. A plain direction has a value at every token and so no density: any live latent is
    a control of it. From 99 on, a larger `n` has the controls of a smaller one first.
    """
    every = decoder_rows(sae, range(len(table.density)))
    lengths = every.norm(dim=1).clamp(min=1e-12)
    cosines = ((every @ target.unit) / lengths).abs().numpy()
    usable = (table.density > 0) & (table.q99 > 0) & (cosines < MAX_COSINE)
    usable[list(target.latents)] = False
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.density))
    notes: list[str] = []
    candidates = [_candidates(latent, table, usable, order, n, notes) for latent in target.latents]
    if target.midpoint is not None:
        notes.append("a direction has no density: the latents beside it are any live ones")
        candidates = [order[usable[order]]]
    if len(candidates) == 1:
        picks = [(int(c),) for c in candidates[0][:n]]
    else:
        picks = _combinations(candidates, every, target, table, n, rng)
    if len(picks) < n:
        notes.append(f"only {len(picks)} of {n} matched latent controls exist")
    units = [_unit(every, pick, target.shares, table.q99) for pick in picks]
    found = torch.stack(units) if units else torch.zeros(0, every.shape[1])
    return ControlDirections(units=found, notes=tuple(dict.fromkeys(notes)))


def isotropic_directions(d_in: int, *, n: int, seed: int) -> ControlDirections:
    """Directions drawn evenly from the sphere; a larger `n` has those of a smaller one first."""
    return ControlDirections(units=_normalised(_normal_rows(n, d_in, seed=seed)))


def covariance_directions(
    activations: Float[Tensor, "token d_in"], *, n: int, seed: int
) -> ControlDirections:
    """Directions drawn with the covariance of `activations`: likelier where the model varies.

    A larger `n` has those of a smaller one first.
    """
    centred = activations - activations.mean(dim=0)
    drawn = [row @ centred for row in _normal_rows(n, len(centred), seed=seed + 1)]
    return ControlDirections(units=_normalised(torch.stack(drawn) if drawn else centred[:0]))


def _normal_rows(n: int, width: int, *, seed: int) -> Float[Tensor, "n width"]:
    """Drawn row by row: one draw of all would give other numbers for another `n`."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(width, generator=generator) for _ in range(n)]
    return torch.stack(rows) if rows else torch.zeros(0, width)


def _candidates(
    latent: int,
    table: LatentTable,
    usable: NDArray[np.bool_],
    order: NDArray[np.int64],
    n: int,
    notes: list[str],
) -> NDArray[np.int64]:
    safe_density = np.where(usable, table.density, 1.0)
    apart = np.abs(np.log10(safe_density) - math.log10(table.density[latent]))
    ratio = np.abs(np.where(usable, table.mean, 0.0) / table.mean[latent] - 1)
    found = order[:0]
    for step, (density, mean) in enumerate(_RELAXATIONS):
        found = order[(usable & (apart <= density) & (ratio <= mean))[order]]
        if len(found) >= min(n, _ENOUGH) or not math.isfinite(density):
            if step:
                widened = (
                    f"density within {density:g} of log10, mean active value within {mean:.0%}"
                    if math.isfinite(density)
                    else "any live latent"
                )
                notes.append(f"latent {latent}: too few controls match closely, taken: {widened}")
            break
    return found


def _combinations(
    candidates: Sequence[NDArray[np.int64]],
    every: Float[Tensor, "d_sae d_in"],
    target: TargetDirection,
    table: LatentTable,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    picks: dict[tuple[int, ...], None] = {}
    if min(len(c) for c in candidates) == 0:
        return []
    for _ in range(_TRIES * n):
        if len(picks) == n:
            break
        pick = tuple(int(rng.choice(c)) for c in candidates)
        if len(set(pick)) < len(pick) or pick in picks:
            continue
        unit = _unit(every, pick, target.shares, table.q99)
        if abs(float(unit @ target.unit)) < MAX_COSINE:
            picks[pick] = None
    return list(picks)


def _unit(
    every: Float[Tensor, "d_sae d_in"],
    pick: Sequence[int],
    shares: NDArray[np.float64],
    scales: NDArray[np.float64],
) -> Float[Tensor, " d_in"]:
    weights = torch.tensor(shares * scales[list(pick)], dtype=torch.float32)
    return _normalised((weights[:, None] * every[list(pick)]).sum(dim=0)[None])[0]


def _normalised(x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)
