"""Train an SAE on a planted world: its activations, settings that suit it, and the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.core.errors import InvalidInput
from auditkit.core.progress import Progress
from auditkit.quality.worlds import PlantedWorld, WorldSize
from auditkit.saes import SparseAutoencoder
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TopK,
    TrainEvent,
    TrainPlan,
    train_sae,
)
from auditkit.training.plan import Kernel

TRAIN_STREAM = 1
HOOK_POINT = "blocks.0.hook_resid_post"
"""A world has no layers; an SAE must name one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldBudget:
    """How long SAEs are trained on a world: `rows` distinct tokens, `steps` of `batch_size`."""

    rows: int
    steps: int
    batch_size: int
    lr: float = 3e-3
    dead_after_tokens: int = 10_000
    held_out: int = 2048

    @property
    def tokens(self) -> int:
        """Tokens seen, repetitions counted."""
        return self.steps * self.batch_size


BUDGETS = {
    WorldSize.SMALL: WorldBudget(rows=65_536, steps=1500, batch_size=512),
    WorldSize.MEDIUM: WorldBudget(rows=262_144, steps=2500, batch_size=1024),
    WorldSize.LARGE: WorldBudget(rows=524_288, steps=4000, batch_size=2048),
}


def _topk(world: PlantedWorld) -> Objective:
    return TopK(k=world.k, k_aux=world.d_sae // 4)


def _batch_topk(world: PlantedWorld) -> Objective:
    return BatchTopK(k=world.k, k_aux=world.d_sae // 4)


def _matryoshka(world: PlantedWorld) -> Objective:
    return MatryoshkaBatchTopK(k=world.k, k_aux=world.d_sae // 4)


def _jumprelu(world: PlantedWorld) -> Objective:
    return JumpReLU(target_l0=world.true_l0, bandwidth=0.02, initial_threshold=0.01)


def _relu_l1(world: PlantedWorld) -> Objective:
    del world
    return ReluL1(l1=0.25)


def _gated(world: PlantedWorld) -> Objective:
    del world
    return Gated(l1=0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """An objective's settings for a world. Those that must find their sparsity by a penalty take a
    higher rate, or longer; `lr` is None where the budget's own will do."""

    make: Callable[[PlantedWorld], Objective]
    longer: int = 1
    lr: float | None = None


_SETTINGS = {
    "topk": _Setting(make=_topk),
    "batch_topk": _Setting(make=_batch_topk),
    "matryoshka_batch_topk": _Setting(make=_matryoshka),
    "jumprelu": _Setting(make=_jumprelu, longer=2, lr=1e-2),
    "relu_l1": _Setting(make=_relu_l1, longer=2, lr=2e-2),
    "gated": _Setting(make=_gated, lr=1e-2),
}


def world_objectives() -> tuple[str, ...]:
    """The objectives that have settings for planted worlds."""
    return tuple(_SETTINGS)


def world_objective(name: str, world: PlantedWorld) -> Objective:
    """An objective with the settings that it is judged with in planted worlds: about as many
    latents per token as features fire. Raises InvalidInput for a name without such settings."""
    return _setting(name).make(world)


def world_budget(name: str, world: PlantedWorld) -> WorldBudget:
    """How long that objective is trained on a world. Raises InvalidInput as `world_objective`."""
    own, budget = _setting(name), BUDGETS[WorldSize(world.size)]
    return replace(budget, steps=budget.steps * own.longer, lr=own.lr or budget.lr)


def _setting(name: str) -> _Setting:
    if name not in _SETTINGS:
        raise InvalidInput(
            f"objective {name!r} has no settings for planted worlds",
            help="there are settings for " + ", ".join(_SETTINGS),
        )
    return _SETTINGS[name]


def world_plan(
    world: PlantedWorld,
    objective: Objective,
    *,
    budget: WorldBudget,
    seed: int = 0,
    frozen_decoder: bool = False,
    d_sae: int | None = None,
) -> TrainPlan:
    """What is trained on a world."""
    return TrainPlan(
        d_in=world.d_in,
        d_sae=d_sae or world.d_sae,
        objective=objective,
        steps=budget.steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        dead_after_tokens=budget.dead_after_tokens,
        held_out=budget.held_out,
        seed=seed,
        frozen_decoder=frozen_decoder,
    )


def store_world(world: PlantedWorld, folder: Path, *, rows: int) -> ActivationStore:
    """Write the first `rows` tokens of a world's training stream, in float16 as harvested ones.

    A folder that already holds them is read again; one of another world raises MismatchError.
    """
    meta = ActivationMeta(
        hook_point=HOOK_POINT,
        d_in=world.d_in,
        key=f"{world.digest}:{rows}",
        model={"name": f"planted world {world.name}"},
    )
    writer = ActivationWriter(folder, meta)
    if writer.meta.complete:
        return ActivationStore(folder)
    for batch in world.batches(rows, stream=TRAIN_STREAM):
        writer.append(batch.x, source=world.name)
    return writer.finish()


def train_on_world(
    plan: TrainPlan,
    store: ActivationStore,
    *,
    name: str,
    kernel: Kernel = "auto",
    progress: Progress | None = None,
) -> SparseAutoencoder:
    """Train by the plan on a stored world, one step of progress to a step."""

    def advance(event: TrainEvent) -> None:
        del event
        if progress is not None:
            progress.advance()

    return train_sae(
        plan, store, name=name, evaluate_every=plan.steps, kernel=kernel, progress=advance
    )
