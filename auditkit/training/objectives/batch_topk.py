"""BatchTopK with AuxK (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders").

In training the k·batch largest positive pre-activations of a whole batch are its latents, so that
tokens share them out by need. At inference a token stands alone: a latent is active above one
threshold, learnt as a moving average of the smallest value that was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.objective_step import Batch, Descent, Slice, require_torch
from auditkit.training.pairs import ListedPairs, join_lists, list_pairs, listed_where
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import FoldedWeights, Kernel, Step, TrainPlan, require_setting
from auditkit.training.selection_step import SelectionStep
from auditkit.training.topk_settings import check_auxk

THRESHOLD = "threshold"
_SAFETY = 0.8
_LISTED_TOKENS = 64
_LISTED_SHARE = 2
"""How many tokens are listed at once, and how many times what is wanted a list may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTopK:
    """`k` latents per token on average; of the dead ones `k_aux` explain what is left, weighted
    with `aux_coefficient`. The threshold moves by `threshold_rate` of the way at every step."""

    k: int
    k_aux: int = 256
    aux_coefficient: float = 1 / 32
    threshold_rate: float = 0.01
    name: str = field(default="batch_topk", init=False)

    def __post_init__(self) -> None:
        require_setting(self.k >= 1, "k", self.k, "1 to d_sae")
        rate = self.threshold_rate
        require_setting(0 < rate <= 1, "threshold_rate", rate, "more than 0 and at most 1")
        check_auxk(self.k_aux, self.aux_coefficient)

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput unless there are k latents to choose from."""
        require_setting(self.k <= plan.d_sae, "k", self.k, f"1 to d_sae ({plan.d_sae})")

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """A threshold that the first step sets."""
        del plan
        return parameters, {THRESHOLD: torch.zeros(1, dtype=torch.float64)}

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """In torch."""
        require_torch(kernel, self.name)
        return BatchTopKStep(plan, self, ends=(plan.d_sae,))

    def penalty(self, report: StepReport) -> float:
        """The weighted AuxK term."""
        return report.penalty

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec by the learnt threshold, and how many latents are active."""
        p = state.parameters
        pre_acts = (state.centre(x) @ p.W_enc_rows.T).add_(p.b_enc)
        pairs = listed_where(pre_acts, pre_acts > state.buffers[THRESHOLD].to(pre_acts.dtype))
        return pairs.decode(pairs.values, p.W_dec), len(pairs.latents)

    def fold(self, state: TrainState) -> FoldedWeights:
        """JumpReLU with one threshold for all latents."""
        p = state.parameters
        threshold = float(state.buffers[THRESHOLD]) / state.unit
        return FoldedWeights(
            architecture=ArchitectureName.JUMPRELU,
            per_latent={
                "b_enc": p.b_enc / state.unit,
                "threshold": torch.full_like(p.b_enc, threshold),
            },
        )


class BatchTopKStep(SelectionStep):
    """Selects over the batch, and follows the smallest value kept."""

    def __init__(self, plan: TrainPlan, settings: BatchTopK, *, ends: tuple[int, ...]) -> None:
        super().__init__(
            plan, ends=ends, k_aux=settings.k_aux, aux_coefficient=settings.aux_coefficient
        )
        self._settings = settings
        self._guess = 0.0
        self._smallest: float | None = None

    def select(self, slices: Callable[[], Iterator[Slice]], tokens: int) -> ListedPairs:
        """The k·batch largest positive pre-activations; what ties with the last is kept too."""
        wanted = self._settings.k * tokens
        pairs = _largest(slices(), wanted, above=self._guess)
        if len(pairs.values) < wanted and self._guess > 0:
            pairs = _largest(slices(), wanted, above=0.0)
        self._smallest = None
        if len(pairs.values):
            self._smallest = float(pairs.values.min())
            # Only a hint of where to look in the next batch: it never changes what is selected.
            self._guess = _SAFETY * self._smallest
        return pairs

    def settle(self, state: TrainState, batch: Batch, descent: Descent) -> None:
        """Move the threshold towards the smallest value kept."""
        del batch, descent
        if self._smallest is None:
            return
        rate = 1.0 if state.step == 1 else self._settings.threshold_rate
        threshold = state.buffers[THRESHOLD]
        threshold.add_(rate * (self._smallest - threshold))


def _largest(slices: Iterator[Slice], wanted: int, *, above: float) -> ListedPairs:
    """The `wanted` largest of what is greater than `above`, and what ties with the last."""
    lists: list[ListedPairs] = []
    count = 0
    for part in slices:
        for rows in part.pre_acts.split(_LISTED_TOKENS):
            lists.append(listed_where(rows, rows > above))
            count += len(lists[-1].values)
            if count > _LISTED_SHARE * wanted:
                lists = [_keep_largest(join_lists(lists), wanted)]
                count = len(lists[0].values)
                above = max(above, _below(lists[0].values.min()))
    return _keep_largest(join_lists(lists), wanted)


def _keep_largest(pairs: ListedPairs, wanted: int) -> ListedPairs:
    if len(pairs.values) <= wanted:
        return pairs
    kept = pairs.values >= pairs.values.topk(wanted, sorted=False).values.min()
    return list_pairs(
        pairs.values[kept],
        pairs.latents[kept],
        pairs.tokens[kept],
        batch=len(pairs.starts),
        d_sae=pairs.d_sae,
    )


def _below(value: Tensor) -> float:
    """The next smaller number of its type: what ties with the value is greater."""
    return float(torch.nextafter(value, torch.zeros_like(value)))
