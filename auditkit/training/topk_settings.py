"""What a TopK SAE is trained by; the steps of every kernel read it from the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from auditkit.core.errors import InvalidInput
from auditkit.training.plan import TrainPlan, require_setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKSettings:
    """`k` latents per token; of the dead ones `k_aux` explain what is left, weighted with
    `aux_coefficient` (AuxK)."""

    k: int
    k_aux: int = 256
    aux_coefficient: float = 1 / 32
    name: str = field(default="topk", init=False)

    def __post_init__(self) -> None:
        require_setting(self.k >= 1, "k", self.k, "1 to d_sae")
        check_auxk(self.k_aux, self.aux_coefficient)


def check_auxk(k_aux: int, aux_coefficient: float) -> None:
    """Raise InvalidInput where AuxK cannot be done so; 0 of either does without it."""
    require_setting(k_aux >= 0, "k_aux", k_aux, "0 or more")
    finite = math.isfinite(aux_coefficient) and aux_coefficient >= 0
    require_setting(finite, "aux_coefficient", aux_coefficient, "0 or more")


def topk_settings(plan: TrainPlan) -> TopKSettings:
    """The plan's objective, where that is TopK; raise InvalidInput where it is another."""
    if not isinstance(plan.objective, TopKSettings):
        raise InvalidInput(
            f"this step trains topk alone, and the plan's objective is {plan.objective.name}",
            help="take the step that the objective makes",
        )
    return plan.objective
