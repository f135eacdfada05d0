"""What the steps of all objectives have in common: the product, the counts, the update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.training.adam import adam_update
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import Kernel, TrainPlan
from auditkit.training.sparse_step import require_deviation, squared_deviation

SLICE_TOKENS = 1024
"""So many tokens are encoded at once: fewer make a product slower, more need more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch on its way through a step, in scaled units.

    `centred` is what the encoder reads, `wanted` the target without b_dec, `deviation` the
    target's Σ‖x − mean x‖².
    """

    centred: Float[Tensor, "batch d_in"]
    wanted: Float[Tensor, "batch d_out"]
    deviation: float

    def __len__(self) -> int:
        return len(self.centred)

    def gradient(self, error: Float[Tensor, "batch d_out"]) -> Float[Tensor, "batch d_out"]:
        """Of Σ‖error‖² / deviation for x̂."""
        return error * (-2.0 / self.deviation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The pre-activations of some of a batch's tokens: memory that the next slice takes over, and
    that an objective may overwrite."""

    tokens: slice
    pre_acts: Float[Tensor, "token d_sae"]

    def split(self, size: int) -> Iterator[Slice]:
        """The same memory, at most `size` tokens at a time."""
        start = self.tokens.start
        for rows in self.pre_acts.split(size):
            yield Slice(tokens=slice(start, start + len(rows)), pre_acts=rows)
            start += len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """What an objective makes of a batch: gradients, and what is to be reported and counted.

    `encoder_bias` is the gradient of what is added to every pre-activation, and so, through W_enc,
    of what was subtracted from the input; `x_hat` the gradient of x̂ where b_dec is added.
    """

    W_enc_rows: Float[Tensor, "d_sae d_in"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    own: dict[str, Tensor]
    encoder_bias: Float[Tensor, " d_sae"]
    x_hat: Float[Tensor, "batch d_out"]
    error: Float[Tensor, "batch d_out"]
    fired: Bool[Tensor, " d_sae"]
    active: int
    aux_loss: float | None = None
    penalty: float = 0.0

    def gradients(self, state: TrainState) -> SaeParameters:
        """For all parameters; an autoencoder's b_dec also acts as what the encoder subtracts."""
        b_dec = self.x_hat.sum(0)
        if "b_in" not in state.buffers:
            b_dec = b_dec - state.parameters.W_enc_rows.T @ self.encoder_bias
        return SaeParameters(
            W_enc_rows=self.W_enc_rows,
            W_dec=self.W_dec,
            b_enc=self.b_enc,
            b_dec=b_dec,
            own=self.own,
        )


def require_torch(kernel: Kernel, name: str) -> None:
    """Raise InvalidInput where numba is asked for by name: this objective has no such kernel."""
    if kernel == "numba":
        raise InvalidInput(
            f"{name} has no step with numba", help="train it with kernel='auto' or 'torch'"
        )


def diverged(step: int, what: str) -> RunFailed:
    """The error for a run whose numbers stopped being numbers at `step` (from 1)."""
    return RunFailed(
        f"training diverged at step {step}: {what}", help="lower lr, or lengthen warmup_steps"
    )


class ObjectiveStep(ABC):
    """Runs training steps on a state, in place; an objective says how a batch descends."""

    def __init__(self, plan: TrainPlan) -> None:
        self.plan = plan

    @abstractmethod
    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients at the state's parameters, which are not changed."""

    def settle(self, state: TrainState, batch: Batch, descent: Descent) -> None:
        """What is to be done after the update; the state counts the step as done."""
        del state, batch, descent

    def dead(self, state: TrainState) -> Bool[Tensor, " d_sae"]:
        """Which latents were silent for too long."""
        return state.silent_tokens >= self.plan.dead_after_tokens

    @torch.no_grad()
    def __call__(
        self,
        state: TrainState,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> StepReport:
        """One step on the batch `x` (scaled units), whose `target` is itself or a transcoder's."""
        batch = self.prepare(state, x, x if target is None else target)
        dead = int(self.dead(state).sum())
        descent = self.descend(state, batch)
        state.silent_tokens.add_(len(x))
        state.silent_tokens[descent.fired] = 0
        adam_update(state, descent.gradients(state), self.plan)
        state.step += 1
        self.settle(state, batch, descent)
        return StepReport(
            squared_error=float(descent.error.square().sum(dtype=torch.float64)),
            squared_deviation=batch.deviation,
            active=descent.active,
            dead=dead,
            aux_loss=descent.aux_loss,
            penalty=descent.penalty,
        )

    def prepare(
        self,
        state: TrainState,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
    ) -> Batch:
        """What a step needs of a batch beside its pre-activations."""
        return Batch(
            centred=state.centre(x),
            wanted=target - state.parameters.b_dec,
            deviation=require_deviation(squared_deviation(target), state.step),
        )

    def slices(self, state: TrainState, batch: Batch) -> Iterator[Slice]:
        """The batch's pre-activations, some tokens at a time; raises RunFailed where the weights
        are not finite any more."""
        p, centred = state.parameters, batch.centred
        memory = centred.new_empty(min(SLICE_TOKENS, len(batch)), p.d_sae)
        for start in range(0, len(batch), SLICE_TOKENS):
            rows = centred[start : start + SLICE_TOKENS]
            pre_acts = torch.addmm(p.b_enc, rows, p.W_enc_rows.T, out=memory[: len(rows)])
            # Comparisons drop NaN silently; every latent's weights show in the first token.
            if start == 0 and not bool(torch.isfinite(pre_acts[0]).all()):
                raise diverged(state.step + 1, "pre-activations are not finite")
            yield Slice(tokens=slice(start, start + len(rows)), pre_acts=pre_acts)
