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
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.objective_step import Batch, Descent, require_torch
from auditkit.training.pairs import clear_unless_positive
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import (
    FoldedWeights,
    Kernel,
    Step,
    TrainPlan,
    refuse_transcoder,
    require_setting,
)
from auditkit.training.sliced_step import Part, SlicedStep, Sums


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


class GatedStep(SlicedStep):
    """All terms live on the pairs with an open gate."""

    def __init__(self, plan: TrainPlan, settings: Gated) -> None:
        super().__init__(plan)
        self._settings = settings

    def chosen(
        self, state: TrainState, pre_acts: Float[Tensor, "token d_sae"]
    ) -> Bool[Tensor, "token d_sae"]:
        """Open gates."""
        del state
        return pre_acts > 0

    def add(self, state: TrainState, batch: Batch, part: Part, sums: Sums) -> None:
        """Gradients of the three terms."""
        p, pairs = state.parameters, part.pairs
        stretch = pairs.take(p.own["r_mag"].exp())
        gate = pairs.values.relu_()
        product = torch.sub(gate, pairs.take(p.b_enc), out=sums.spare("product", gate))
        z = torch.mul(product, stretch, out=sums.spare("z", gate))
        clear_unless_positive(z.add_(pairs.take(p.own["b_mag"])).relu_(), gate)
        error = part.wanted - pairs.decode(z, p.W_dec)
        x_hat = batch.gradient(error)
        sums.error[part.tokens] = error
        sums.active += int(torch.count_nonzero(z))
        sums.add_weights("z", pairs, z)
        sums.add_rows("W_dec", pairs, z, x_hat)
        magnitude = pairs.pull(x_hat, p.W_dec, memory=sums.spare("magnitude", gate))
        clear_unless_positive(magnitude, z)
        sums.add_weights("b_mag", pairs, magnitude)
        magnitude.mul_(stretch)
        sums.add_weights("r_mag", pairs, product.mul_(magnitude))
        frozen_error = part.wanted - pairs.decode(gate, p.W_dec)
        opening = pairs.pull(batch.gradient(frozen_error), p.W_dec, memory=product)
        clear_unless_positive(opening.add_(self._weight(state, batch)), gate)
        sums.add_weights("b_enc", pairs, opening)
        opening.add_(magnitude)
        sums.add_weights("encoder_bias", pairs, opening)
        sums.add_rows("W_enc_rows", pairs, opening, part.centred)
        sums.add_weights("gate", pairs, gate)
        sums.frozen_error += float(frozen_error.square().sum(dtype=torch.float64))

    def conclude(self, state: TrainState, batch: Batch, sums: Sums) -> Descent:
        """The sums are the gradients."""
        l1 = float(sums["gate"].sum(dtype=torch.float64))
        gate_fvu = sums.frozen_error / batch.deviation
        return sums.descent(
            batch,
            own={name: sums[name] for name in ("b_mag", "r_mag")},
            penalty=self._weight(state, batch) * l1 + gate_fvu,
        )

    def _weight(self, state: TrainState, batch: Batch) -> float:
        weight = self._settings.l1 * self.plan.sparsity_weight(state.step)
        return weight / (len(batch) * math.sqrt(self.plan.width_out))
