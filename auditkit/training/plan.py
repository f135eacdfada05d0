"""What is trained, on how much, and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.saes import ArchitectureName
from auditkit.training.parameters import SaeParameters, StepReport, TrainState

Kernel = Literal["auto", "numba", "torch"]
Step = Callable[..., StepReport]
"""Runs one training step on a state, in place: `step(state, x)` with a batch [batch, d_in] in
scaled units, `step(state, x, target)` for a transcoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedWeights:
    """What an SAE has at inference beside W_enc, W_dec and b_dec: the tensors of shape [d_sae] of
    its architecture, in the target's own units, and its `k` where it has one."""

    architecture: ArchitectureName
    per_latent: Mapping[str, Tensor]
    k: int | None = None


@runtime_checkable
class Objective(Protocol):
    """What training minimises: a frozen record of settings that knows how to train by them.

    `name` is what train.yaml and cards call it. The protocol covers one SAE from its first
    parameters to its last: `complete` gives the parameters and buffers that it has beside the four
    of every SAE, `make_step` trains, `reconstruct` evaluates, `fold` hands over.
    """

    @property
    def name(self) -> str: ...

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput where the settings do not fit the plan's sizes."""
        ...

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """The first parameters, from those that all have in common, and the first buffers."""
        ...

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """The step; `auto` takes the fastest kernel that is installed.

        Raises InvalidInput for a kernel that this objective does not have.
        """
        ...

    def penalty(self, report: StepReport) -> float:
        """What the objective added to the batch's FVU to give its loss."""
        ...

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec as at inference, and how many (token, latent) pairs are active; `x` and what
        is returned are in scaled units."""
        ...

    def fold(self, state: TrainState) -> FoldedWeights:
        """What the trained SAE has at inference."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """An SAE and its training; every number that changes the result is here or in `objective`.

    Activations are scaled so that mean ‖x‖² = d_in (folded back into the weights on save), so
    `lr` means the same for every model. `init_scale` is the norm of an encoder column at the
    start (the decoder's is 1). A latent is dead when it was silent for `dead_after_tokens`
    tokens. Rows above `high_norm_factor` × the median norm are not trained on. Penalties on
    sparsity rise linearly from zero over the first `sparsity_warmup` of the steps.

    With `d_out` it is a transcoder, from inputs of width d_in to targets of width d_out (Dunefsky
    et al. 2024); without, an autoencoder.

    With `frozen_decoder` the decoder's rows stay the random unit vectors that they start as, while
    the encoder and both biases are trained: the floor that a trained dictionary has to beat
    (Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders").
    """

    d_in: int
    d_sae: int
    objective: Objective
    steps: int
    d_out: int | None = None
    batch_size: int = 2048
    lr: float = 1e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    sparsity_warmup: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-10
    dead_after_tokens: int = 200_000
    init_scale: float = 0.1
    seed: int = 0
    held_out: int = 16_384
    high_norm_factor: float = 10.0
    frozen_decoder: bool = False

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "batch_size", "steps", "dead_after_tokens", "held_out"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.d_out is not None and self.d_out < 1:
            raise InvalidInput(f"d_out is {self.d_out}, expected at least 1, or none for an SAE")
        for name in ("lr", "eps", "init_scale", "high_norm_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name} is {value}, expected a positive number")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected 0 to below 1")
        if self.warmup_steps < 0:
            raise InvalidInput(f"warmup_steps is {self.warmup_steps}, expected 0 or more")
        for name in ("decay_fraction", "sparsity_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected 0 to 1")
        self.objective.check(self)

    @property
    def is_transcoder(self) -> bool:
        return self.d_out is not None

    @property
    def width_out(self) -> int:
        """Width of what is reconstructed."""
        return self.d_in if self.d_out is None else self.d_out

    def learning_rate(self, step: int) -> float:
        """Rate of step `step` (from 0): linear warm-up, then flat, then linear to zero over the
        last `decay_fraction` of the steps."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay_steps = round(self.decay_fraction * self.steps)
        left = self.steps - step
        cool = min(1.0, left / (decay_steps + 1)) if decay_steps else 1.0
        return self.lr * warm * cool

    def sparsity_weight(self, step: int) -> float:
        """What a penalty on sparsity is multiplied with at step `step` (from 0): 0 to 1, linear
        over the first `sparsity_warmup` of the steps."""
        rising = round(self.sparsity_warmup * self.steps)
        return min(1.0, (step + 1) / rising) if rising else 1.0


def require_setting(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise InvalidInput for an objective's setting that is not as `expected`."""
    if not holds:
        raise InvalidInput(f"{name} is {value}, expected {expected}")


def refuse_transcoder(plan: TrainPlan, name: str) -> None:
    """Raise InvalidInput for a transcoder by an objective that no file layout has a form for."""
    if plan.is_transcoder:
        raise InvalidInput(
            f"d_out is {plan.d_out}, and SAELens' layout has no {name} transcoder",
            help="train it by batch_topk, matryoshka_batch_topk, jumprelu or relu_l1",
        )


def plain_plan(plan: TrainPlan) -> dict[str, Any]:
    """A plan as JSON values, for cards and digests."""
    return to_plain(plan)


def is_plan_of_card(plan: TrainPlan, stored: Mapping[str, Any]) -> bool:
    """Whether a card's plan is this one; a field that the card does not know had its default."""
    stored = dict(stored)
    if "objective" not in stored and "k" in stored:
        # Cards from before objectives were chosen speak of TopK alone.
        named = {n: stored.pop(n) for n in ("k", "k_aux", "aux_coefficient") if n in stored}
        stored["objective"] = {"name": "topk", **named}
    return _equals(plan, stored)


def _equals(record: Any, stored: Any) -> bool:
    if not is_dataclass(record):
        return to_plain(record) == stored
    return isinstance(stored, Mapping) and all(
        _equals(getattr(record, f.name), stored[f.name])
        if f.name in stored
        else getattr(record, f.name) == f.default
        for f in fields(record)
    )
