"""ReLU with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity").

    z = ReLU(W_encᵀ(x − b_dec) + b_enc),  x̂ = W_decᵀ z + b_dec
    L = Σ‖x − x̂‖² / Σ‖x − mean x‖²  +  l1 · mean_t ‖z_t‖₁ / √d_out

with unit-norm decoder rows, the gradient along them removed, and the penalty warmed up. At given
steps dead latents are drawn anew (their "neuron resampling"; training/resampling.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.objective_step import Batch, Descent, ObjectiveStep, require_torch
from auditkit.training.pairs import pairs_where
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import FoldedWeights, Kernel, Step, TrainPlan, require_setting
from auditkit.training.resampling import resample


@dataclass(frozen=True, slots=True, kw_only=True)
class ReluL1:
    """`l1` weighs mean ‖z‖₁, in units of the target's root mean square norm, against FVU. After the
    steps `resample_at` (counted from 1) latents that are dead then are drawn anew."""

    l1: float
    resample_at: tuple[int, ...] = ()
    name: str = field(default="relu_l1", init=False)

    def __post_init__(self) -> None:
        good = math.isfinite(self.l1) and self.l1 >= 0
        require_setting(good, "l1", self.l1, "0 or more")
        steps = self.resample_at
        require_setting(all(s >= 1 for s in steps), "resample_at", steps, "steps from 1 on")

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput where a frozen decoder would have to be drawn anew."""
        require_setting(
            not (plan.frozen_decoder and self.resample_at),
            "resample_at",
            self.resample_at,
            "none with a frozen decoder",
        )

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """Nothing beside what all have."""
        del plan
        return parameters, {}

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """In torch."""
        require_torch(kernel, self.name)
        return ReluL1Step(plan, self)

    def penalty(self, report: StepReport) -> float:
        """The weighted L1 term."""
        return report.penalty

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec, and how many latents are active."""
        p = state.parameters
        z = (state.centre(x) @ p.W_enc_rows.T).add_(p.b_enc).relu_()
        return z @ p.W_dec, int(torch.count_nonzero(z))

    def fold(self, state: TrainState) -> FoldedWeights:
        """ReLU."""
        return FoldedWeights(
            architecture=ArchitectureName.STANDARD,
            per_latent={"b_enc": state.parameters.b_enc / state.unit},
        )


class ReluL1Step(ObjectiveStep):
    """ReLU, L1, and resampling."""

    def __init__(self, plan: TrainPlan, settings: ReluL1) -> None:
        super().__init__(plan)
        self._settings = settings

    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients of FVU and L1."""
        p = state.parameters
        weight = self._settings.l1 * self.plan.sparsity_weight(state.step)
        weight /= len(batch) * math.sqrt(self.plan.width_out)
        pairs = pairs_where(batch.pre_acts, batch.pre_acts > 0)
        z = pairs.values.relu_()
        error = batch.wanted - pairs.decode(z, p.W_dec)
        x_hat = batch.gradient(error)
        pull = pairs.pull(x_hat, p.W_dec).add_(weight).mul_(z > 0)
        b_enc = pairs.sum_weights(pull)
        return Descent(
            W_enc_rows=pairs.sum_rows(pull, batch.centred),
            W_dec=pairs.sum_rows(z, x_hat),
            b_enc=b_enc,
            own={},
            encoder_bias=b_enc,
            x_hat=x_hat,
            error=error,
            fired=pairs.sum_weights(z) > 0,
            active=int(torch.count_nonzero(z)),
            penalty=weight * float(z.sum(dtype=torch.float64)),
        )

    def settle(self, state: TrainState, batch: Batch, descent: Descent) -> None:
        """Draw dead latents anew where this step is one to do it after."""
        if state.step not in self._settings.resample_at:
            return
        dead = self.dead(state).nonzero().squeeze(1)
        if len(dead):
            resample(state, batch, descent.error, dead, seed=self.plan.seed)
