"""Toy models of superposition (Elhage et al. 2022): more sparse features than hidden dimensions.

x′ = ReLU(WᵀWx + b) is trained to give back x, whose features are independent, 0 with probability S
(the sparsity) and else uniform on [0, 1]; the loss is Σ_i importance_i (x_i − x′_i)². Rows W_i here
are the features' directions in hidden space, so that the paper's WᵀW is `gram`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput

_INITIAL = 1.0
_LEARNT = 1e-6
_FINAL_RATE = 0.02
_FRESH_BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyPlan:
    """Toy models of one shape, one per sparsity, trained side by side.

    `importance_decay` is the factor of importance from one feature to the next.
    """

    features: int
    hidden: int
    sparsities: tuple[float, ...]
    importance_decay: float = 1.0
    steps: int = 4000
    batch_size: int = 1024
    lr: float = 5e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.sparsities or not all(0 <= s < 1 for s in self.sparsities):
            raise InvalidInput(
                f"sparsities are {self.sparsities}, expected one or more from 0 to below 1"
            )
        if not 0 < self.importance_decay <= 1:
            raise InvalidInput(
                f"importance_decay is {self.importance_decay}, expected above 0, at most 1"
            )

    @property
    def importance(self) -> Float[Tensor, " feature"]:
        return self.importance_decay ** torch.arange(self.features).float()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToyModels:
    """Trained models: directions W, biases b, and each one's loss per sample on fresh data."""

    plan: ToyPlan
    W: Float[Tensor, "model feature hidden"]
    b: Float[Tensor, "model feature"]
    loss: Float[Tensor, " model"]

    @property
    def gram(self) -> Float[Tensor, "model feature feature"]:
        """W_i·W_j: the picture of who is represented, and who shares dimensions with whom."""
        return self.W @ self.W.transpose(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packing:
    """How features share the hidden dimensions of each model.

    `dimensions_per_feature` is D* = hidden/‖W‖²_F: ‖W‖²_F counts the represented features, whose
    norms are near 1. `dimensionality` D_i = ‖W_i‖²/Σ_j (Ŵ_i·W_j)² is the share of a dimension that
    feature i has for itself: 1 alone, 1/2 in an antipodal pair, 2/3 in a triangle, 2/5 in a
    pentagon, 3/4 in a tetrahedron; 0 for one that is not represented. `overlap` is
    Σ_{j≠i} (Ŵ_i·W_j)².
    """

    norms: Float[Tensor, "model feature"]
    overlap: Float[Tensor, "model feature"]
    dimensionality: Float[Tensor, "model feature"]
    dimensions_per_feature: Float[Tensor, " model"]


def train_toy_models(
    plan: ToyPlan, *, progress: Callable[[int, int], None] | None = None
) -> ToyModels:
    """Train by Adam with a falling rate; the same plan gives the same models on one machine.

    `progress(done, total)` is called after every step.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    density = 1 - torch.tensor(plan.sparsities)
    models = len(density)
    scale = _INITIAL / math.sqrt(plan.features)
    W = scale * torch.randn(models, plan.features, plan.hidden, generator=generator)
    W.requires_grad_()
    b = torch.zeros(models, plan.features, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=plan.lr)
    importance = plan.importance
    for step in range(plan.steps):
        share = step / plan.steps
        cosine = (1 + math.cos(math.pi * share)) / 2
        optimiser.param_groups[0]["lr"] = plan.lr * (_FINAL_RATE + (1 - _FINAL_RATE) * cosine)
        x = draw_features(density, plan.batch_size, plan.features, generator)
        loss = weighted_loss(W, b, x, importance)
        optimiser.zero_grad()
        # Each model's gradient is divided by how often its features fire: one rate suits all.
        (loss / density).sum().backward()
        optimiser.step()
        if progress is not None:
            progress(step + 1, plan.steps)
    return ToyModels(
        plan=plan,
        W=W.detach(),
        b=b.detach(),
        loss=_held_out_loss(plan, W, b, generator),
    )


@torch.no_grad()
def _held_out_loss(
    plan: ToyPlan, W: Tensor, b: Tensor, generator: torch.Generator
) -> Float[Tensor, " model"]:
    density = 1 - torch.tensor(plan.sparsities)
    losses: list[Tensor] = []
    for _ in range(_FRESH_BATCHES):
        x = draw_features(density, plan.batch_size, plan.features, generator)
        losses.append(weighted_loss(W, b, x, plan.importance))
    return torch.stack(losses).mean(0)


def draw_features(
    density: Float[Tensor, " model"], samples: int, features: int, generator: torch.Generator
) -> Float[Tensor, "model sample feature"]:
    """Features that fire with probability `density` of their model, uniform on [0, 1] if so.

    One uniform u serves both: u < p decides, and given that u/p is uniform again.
    """
    u = torch.rand(len(density), samples, features, generator=generator)
    p = density[:, None, None]
    return torch.where(u < p, u / p, 0.0)


def weighted_loss(
    W: Float[Tensor, "model feature hidden"],
    b: Float[Tensor, "model feature"],
    x: Float[Tensor, "model sample feature"],
    importance: Float[Tensor, " feature"],
) -> Float[Tensor, " model"]:
    """Σ_i importance_i (x_i − ReLU(WᵀWx + b)_i)², averaged over samples."""
    out = torch.relu(x @ W @ W.transpose(1, 2) + b[:, None, :])
    return ((x - out).square() @ importance).mean(1)


@torch.no_grad()
def measure_packing(W: Float[Tensor, "model feature hidden"]) -> Packing:
    """How the features of each model share its hidden dimensions."""
    norms = W.norm(dim=2)
    units = W / norms.clamp(min=_LEARNT)[:, :, None]
    squares = (units @ W.transpose(1, 2)).square()
    own = norms.square()
    everyone = squares.sum(2)
    learnt = norms > _LEARNT
    share = torch.where(learnt, own / everyone.clamp(min=_LEARNT**2), 0.0)
    return Packing(
        norms=norms,
        overlap=torch.where(learnt, (everyone - own).clamp(min=0.0), 0.0),
        dimensionality=share,
        dimensions_per_feature=W.shape[2] / own.sum(1),
    )
