"""TopK with AuxK (Gao et al. 2024, "Scaling and evaluating sparse autoencoders").

The k largest pre-activations of a token are its latents; training/objective.py states the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.fused.step import FusedStep, numba_is_installed
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import (
    FoldedWeights,
    Kernel,
    Step,
    TrainPlan,
    refuse_transcoder,
    require_setting,
)
from auditkit.training.sparse_step import ActivePairs, TorchStep, decode_pairs
from auditkit.training.topk_settings import TopKSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(TopKSettings):
    """Settings of TopK; an `Objective`."""

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput unless there are k latents to choose from, or for a transcoder."""
        refuse_transcoder(plan, self.name)
        require_setting(self.k <= plan.d_sae, "k", self.k, f"1 to d_sae ({plan.d_sae})")

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """Nothing beside what all have."""
        del plan
        return parameters, {}

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """Fused with numba, or in torch."""
        if kernel == "numba" or (kernel == "auto" and numba_is_installed()):
            return FusedStep(plan)
        return TorchStep(plan)

    def penalty(self, report: StepReport) -> float:
        """The weighted AuxK term."""
        return self.aux_coefficient * (report.aux_loss or 0.0)

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec, and how many latents are active."""
        p = state.parameters
        pre_acts = (state.centre(x) @ p.W_enc_rows.T).add_(p.b_enc)
        values, latents = torch.topk(pre_acts, self.k, dim=1, sorted=False)
        pairs = ActivePairs(latents=latents, values=values.relu_())
        return decode_pairs(pairs, p.W_dec), int((pairs.values > 0).sum())

    def fold(self, state: TrainState) -> FoldedWeights:
        """b_enc in the target's units."""
        return FoldedWeights(
            architecture=ArchitectureName.TOPK,
            per_latent={"b_enc": state.parameters.b_enc / state.unit},
            k=self.k,
        )
