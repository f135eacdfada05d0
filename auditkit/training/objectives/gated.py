"""Gated SAEs (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse
Autoencoders", eq. 3-8).

    π = W_encᵀ(x − b_dec) + b_gate,  m = exp(r_mag) ⊙ W_encᵀ(x − b_dec) + b_mag
    z = 1[π > 0] ⊙ ReLU(m),  x̂ = W_decᵀ z + b_dec
    L = FVU(x̂)  +  l1 · mean_t ‖ReLU(π_t)‖₁ / √d_out  +  FVU(x̂_frozen(ReLU(π)))

x̂_frozen has the decoder's weights and bias, which get no gradient through it: it is what teaches
the gate, through which no gradient of the first term flows. The gate's bias is `b_enc` in training.
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
from auditkit.training.plan import (
    FoldedWeights,
    Kernel,
    Step,
    TrainPlan,
    refuse_transcoder,
    require_setting,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """`l1` weighs mean ‖ReLU(π)‖₁, in units of the target's root mean square norm, against FVU."""

    l1: float
    name: str = field(default="gated", init=False)

    def __post_init__(self) -> None:
        good = math.isfinite(self.l1) and self.l1 >= 0
        require_setting(good, "l1", self.l1, "0 or more")

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput for a transcoder."""
        refuse_transcoder(plan, self.name)

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """Magnitudes that start as the gate's pre-activations."""
        del plan
        own = {name: torch.zeros_like(parameters.b_enc) for name in ("b_mag", "r_mag")}
        return SaeParameters.from_named({**parameters.named(), **own}), {}

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """In torch."""
        require_torch(kernel, self.name)
        return GatedStep(plan, self)

    def penalty(self, report: StepReport) -> float:
        """The weighted L1 term and the gate's own FVU."""
        return report.penalty

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec, and how many latents are active."""
        p = state.parameters
        product = state.centre(x) @ p.W_enc_rows.T
        closed = product + p.b_enc <= 0
        z = product.mul_(p.own["r_mag"].exp()).add_(p.own["b_mag"]).relu_().masked_fill_(closed, 0)
        return z @ p.W_dec, int(torch.count_nonzero(z))

    def fold(self, state: TrainState) -> FoldedWeights:
        """Gated, with its two biases in the target's units."""
        p = state.parameters
        return FoldedWeights(
            architecture=ArchitectureName.GATED,
            per_latent={
                "b_gate": p.b_enc / state.unit,
                "b_mag": p.own["b_mag"] / state.unit,
                "r_mag": p.own["r_mag"].clone(),
            },
        )


class GatedStep(ObjectiveStep):
    """All terms live on the pairs with an open gate."""

    def __init__(self, plan: TrainPlan, settings: Gated) -> None:
        super().__init__(plan)
        self._settings = settings

    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients of the three terms."""
        p = state.parameters
        r_mag, b_mag = p.own["r_mag"], p.own["b_mag"]
        weight = self._settings.l1 * self.plan.sparsity_weight(state.step)
        weight /= len(batch) * math.sqrt(self.plan.width_out)
        pairs = pairs_where(batch.pre_acts, batch.pre_acts > 0)
        gate = pairs.values.relu_()
        is_open = gate > 0
        stretch = pairs.take(r_mag.exp())
        product = gate - pairs.take(p.b_enc)
        z = (product * stretch).add_(pairs.take(b_mag)).relu_().mul_(is_open)
        error = batch.wanted - pairs.decode(z, p.W_dec)
        x_hat = batch.gradient(error)
        magnitude = pairs.pull(x_hat, p.W_dec).mul_(z > 0)
        own = {
            "b_mag": pairs.sum_weights(magnitude),
            "r_mag": pairs.sum_weights(product.mul_(magnitude).mul_(stretch)),
        }
        frozen_error = batch.wanted - pairs.decode(gate, p.W_dec)
        opening = pairs.pull(batch.gradient(frozen_error), p.W_dec).add_(weight).mul_(is_open)
        b_enc = pairs.sum_weights(opening)
        encoder = opening.add_(magnitude.mul_(stretch))
        gate_fvu = float(frozen_error.square().sum(dtype=torch.float64)) / batch.deviation
        return Descent(
            W_enc_rows=pairs.sum_rows(encoder, batch.centred),
            W_dec=pairs.sum_rows(z, x_hat),
            b_enc=b_enc,
            own=own,
            encoder_bias=pairs.sum_weights(encoder),
            x_hat=x_hat,
            error=error,
            fired=pairs.sum_weights(z) > 0,
            active=int(torch.count_nonzero(z)),
            penalty=weight * float(gate.sum(dtype=torch.float64)) + gate_fvu,
        )
