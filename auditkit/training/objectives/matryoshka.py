"""Matryoshka BatchTopK (Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse
Autoencoders").

Latents are selected as in BatchTopK. Several prefixes of the dictionary have to reconstruct the
input each on its own, so that general features settle in the first latents and are not absorbed by
special ones. The paper adds the prefixes' losses up; here it is their mean, which is the same up to
the weight of AuxK.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from auditkit.training.objective_step import require_torch
from auditkit.training.objectives.batch_topk import BatchTopK, BatchTopKStep
from auditkit.training.plan import Kernel, Step, TrainPlan, require_setting


@dataclass(frozen=True, slots=True, kw_only=True)
class MatryoshkaBatchTopK(BatchTopK):
    """As `BatchTopK`; prefixes end at these shares of the latents, rising, the last at 1."""

    group_shares: tuple[float, ...] = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
    name: str = field(default="matryoshka_batch_topk", init=False)

    def __post_init__(self) -> None:
        # Named, because a class with slots is made anew, and plain super() knows the first one.
        BatchTopK.__post_init__(self)
        shares = self.group_shares
        rising = all(a < b for a, b in itertools.pairwise((0.0, *shares)))
        require_setting(
            bool(shares) and rising and shares[-1] == 1,
            "group_shares",
            shares,
            "rising shares of the latents, the last of them 1",
        )

    def ends(self, d_sae: int) -> tuple[int, ...]:
        """Where the prefixes of a dictionary of d_sae latents end."""
        return tuple(round(share * d_sae) for share in self.group_shares)

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput unless k latents can be chosen and every group has one."""
        BatchTopK.check(self, plan)
        ends = self.ends(plan.d_sae)
        require_setting(
            all(a < b for a, b in itertools.pairwise((0, *ends))),
            "group_shares",
            self.group_shares,
            f"at least one of {plan.d_sae} latents in every group",
        )

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """In torch."""
        require_torch(kernel, self.name)
        return BatchTopKStep(plan, self, ends=self.ends(plan.d_sae))
