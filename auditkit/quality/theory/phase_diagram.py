"""The phase change of superposition, by training: the same small models, free in every weight.

The loss is not sampled: it is the expectation over x, by Gauss–Legendre quadrature over every set
of features that may fire, so that training has no noise and no rare coincidence is missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory.phase import Outcome, best_candidate, outcome_of

_NODES = {2: 16, 3: 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """hidden + 1 features in `hidden` dimensions, at every density and relative importance.

    Each cell is trained from `starts` random weights; the one of least loss counts.
    """

    hidden: int
    densities: tuple[float, ...]
    importances: tuple[float, ...]
    starts: int = 4
    steps: int = 500
    lr: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden not in (1, 2):
            raise InvalidInput(f"{self.hidden} hidden dimensions, expected 1 or 2")
        if not all(0 < p <= 1 for p in self.densities):
            raise InvalidInput("a density is outside (0, 1]")
        if not all(r > 0 for r in self.importances):
            raise InvalidInput("a relative importance is not positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCell:
    """One density and importance: what theory expects, what training came to, and their losses."""

    density: float
    importance: float
    expected: Outcome
    expected_loss: float
    found: Outcome
    found_loss: float
    norm: float
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quadrature:
    """Points x, their weights given who fires, and how many do; exact for smooth losses."""

    points: Float[Tensor, "point feature"]
    weights: Float[Tensor, " point"]
    active: Int64[Tensor, " point"]

    @classmethod
    def over_cube(cls, features: int, *, nodes: int | None = None) -> Quadrature:
        """Gauss–Legendre nodes on [0, 1] for each feature that fires, 0 for the others."""
        at, mass = np.polynomial.legendre.leggauss(nodes or _NODES[features])
        values = list(zip((at + 1) / 2, mass / 2, strict=True))
        points: list[tuple[float, ...]] = []
        weights: list[float] = []
        active: list[int] = []
        for fires in itertools.product((False, True), repeat=features):
            choices = [values if on else [(0.0, 1.0)] for on in fires]
            for chosen in itertools.product(*choices):
                points.append(tuple(float(v) for v, _ in chosen))
                weights.append(float(np.prod([w for _, w in chosen])))
                active.append(sum(fires))
        return cls(
            points=torch.tensor(points, dtype=torch.float32),
            weights=torch.tensor(weights, dtype=torch.float32),
            active=torch.tensor(active),
        )

    def probabilities(self, density: Float[Tensor, " model"]) -> Float[Tensor, "model point"]:
        """Weight of each point where features fire with each model's density."""
        p, silent = density[:, None], self.points.shape[1] - self.active
        return self.weights * p**self.active * (1 - p) ** silent


def expected_loss(
    W: Float[Tensor, "model feature hidden"],
    b: Float[Tensor, "model feature"],
    importance: Float[Tensor, "model feature"],
    probabilities: Float[Tensor, "model point"],
    points: Float[Tensor, "point feature"],
) -> Float[Tensor, " model"]:
    """E Σ_i importance_i (x_i − ReLU(WᵀWx + b)_i)² of each model."""
    out = torch.relu(points @ (W @ W.transpose(1, 2)) + b[:, None, :])
    weighted = torch.einsum("mqf,mf->mq", (points - out).square(), importance)
    return (weighted * probabilities).sum(1)


def map_phases(
    plan: PhasePlan, *, progress: Callable[[int, int], None] | None = None
) -> tuple[PhaseCell, ...]:
    """Theory and training for every density × importance; `progress(done, total)` per step."""
    grid = list(itertools.product(plan.densities, plan.importances))
    features = plan.hidden + 1
    quadrature = Quadrature.over_cube(features)
    density = torch.tensor([p for p, _ in grid]).repeat_interleave(plan.starts)
    importance = torch.ones(len(density), features)
    importance[:, -1] = torch.tensor([r for _, r in grid]).repeat_interleave(plan.starts)
    probabilities = quadrature.probabilities(density)
    W, b = _initial(len(density), features, plan)
    optimiser = torch.optim.Adam([W, b], lr=plan.lr)
    # Losses of order density·importance: all cells then learn at one rate.
    size = density * importance.amin(1)
    for step in range(plan.steps):
        optimiser.param_groups[0]["lr"] = plan.lr * (1 - step / plan.steps)
        loss = expected_loss(W, b, importance, probabilities, quadrature.points)
        optimiser.zero_grad()
        (loss / size).sum().backward()
        optimiser.step()
        if progress is not None:
            progress(step + 1, plan.steps)
    with torch.no_grad():
        reached = expected_loss(W, b, importance, probabilities, quadrature.points)
    best = reached.reshape(len(grid), plan.starts).argmin(1)
    chosen = torch.arange(len(grid)) * plan.starts + best
    return tuple(
        _cell(plan.hidden, p, r, W.detach()[i], float(reached[i]))
        for (p, r), i in zip(grid, chosen.tolist(), strict=True)
    )


def agreement(cells: tuple[PhaseCell, ...]) -> float:
    """Share of the cells where training came to what theory expects."""
    return sum(c.expected is c.found for c in cells) / len(cells)


def _initial(models: int, features: int, plan: PhasePlan) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(plan.seed)
    W = torch.randn(models, features, plan.hidden, generator=generator) * 0.7
    return W.requires_grad_(), torch.zeros(models, features, requires_grad=True)


def _cell(hidden: int, p: float, r: float, W: Tensor, loss: float) -> PhaseCell:
    expected = best_candidate(hidden, p, r)
    norm = float(W[-1].norm())
    overlap = float((W[:-1] @ W[-1]).square().sum()) / max(norm**2, 1e-12)
    return PhaseCell(
        density=p,
        importance=r,
        expected=expected.outcome,
        expected_loss=expected.loss,
        found=outcome_of(W),
        found_loss=loss,
        norm=norm,
        overlap=overlap,
    )
