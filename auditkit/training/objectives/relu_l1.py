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
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.objective_step import Batch, Descent, require_torch
from auditkit.training.pairs import clear_unless_positive
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import FoldedWeights, Kernel, Step, TrainPlan, require_setting
from auditkit.training.resampling import resample
from auditkit.training.sliced_step import Part, SlicedStep, Sums


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


class ReluL1Step(SlicedStep):
    """ReLU, L1, and resampling."""

    def __init__(self, plan: TrainPlan, settings: ReluL1) -> None:
        super().__init__(plan)
        self._settings = settings

    def chosen(
        self, state: TrainState, pre_acts: Float[Tensor, "token d_sae"]
    ) -> Bool[Tensor, "token d_sae"]:
        """Positive values."""
        del state
        return pre_acts > 0

    def add(self, state: TrainState, batch: Batch, part: Part, sums: Sums) -> None:
        """Gradients of FVU and L1."""
        p, pairs = state.parameters, part.pairs
        z = pairs.values.relu_()
        error = part.wanted - pairs.decode(z, p.W_dec)
        x_hat = batch.gradient(error)
        pull = pairs.pull(x_hat, p.W_dec, memory=sums.spare("pull", z))
        clear_unless_positive(pull.add_(self._weight(state, batch)), z)
        sums.error[part.tokens] = error
        sums.active += int(torch.count_nonzero(z))
        sums.add_weights("z", pairs, z)
        sums.add_weights("b_enc", pairs, pull)
        sums.add_rows("W_enc_rows", pairs, pull, part.centred)
        sums.add_rows("W_dec", pairs, z, x_hat)

    def conclude(self, state: TrainState, batch: Batch, sums: Sums) -> Descent:
        """The sums are the gradients."""
        l1 = float(sums["z"].sum(dtype=torch.float64))
        return sums.descent(batch, own={}, penalty=self._weight(state, batch) * l1)

    def _weight(self, state: TrainState, batch: Batch) -> float:
        weight = self._settings.l1 * self.plan.sparsity_weight(state.step)
        return weight / (len(batch) * math.sqrt(self.plan.width_out))

    def settle(self, state: TrainState, batch: Batch, descent: Descent) -> None:
        """Draw dead latents anew where this step is one to do it after."""
        if state.step not in self._settings.resample_at:
            return
        dead = self.dead(state).nonzero().squeeze(1)
        if len(dead):
            resample(state, batch, descent.error, dead, seed=self.plan.seed)
