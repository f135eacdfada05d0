"""The step of objectives that select latents: TopK, BatchTopK, Matryoshka BatchTopK.

The latents stand in groups; the first group alone has to reconstruct the target, the first two
have to, and so on, and the loss is the mean FVU over these prefixes plus AuxK's term. One group is
an ordinary SAE.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.training.auxk import AuxGradients, auxk_gradients
from auditkit.training.objective_step import Batch, Descent, ObjectiveStep
from auditkit.training.pairs import ListedPairs
from auditkit.training.parameters import TrainState
from auditkit.training.plan import TrainPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The selected pairs of the latents start ≤ j < stop, numbered from 0."""

    start: int
    stop: int
    pairs: ListedPairs

    @property
    def latents(self) -> slice:
        return slice(self.start, self.stop)


class SelectionStep(ObjectiveStep):
    """Steps for latents in groups that end at `ends`, the last at d_sae."""

    def __init__(
        self, plan: TrainPlan, *, ends: tuple[int, ...], k_aux: int, aux_coefficient: float
    ) -> None:
        super().__init__(plan)
        self._bounds = tuple(zip((0, *ends), ends, strict=False))
        self._k_aux, self._aux_coefficient = k_aux, aux_coefficient

    @abstractmethod
    def select(self, state: TrainState, pre_acts: Float[Tensor, "batch d_sae"]) -> ListedPairs:
        """The pairs that are active: all have positive values."""

    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients of the mean FVU over prefixes, and of AuxK."""
        p = state.parameters
        pairs = self.select(state, batch.pre_acts)
        groups = [
            Group(start=a, stop=b, pairs=pairs.among(a, b)[0] if len(self._bounds) > 1 else pairs)
            for a, b in self._bounds
        ]
        errors = _prefix_errors(groups, batch, p.W_dec)
        W_enc_rows, W_dec = torch.empty_like(p.W_enc_rows), torch.empty_like(p.W_dec)
        b_enc = torch.empty_like(p.b_enc)
        x_hat = torch.zeros_like(batch.wanted)
        # A group's latents are part of every prefix from their own on.
        for group, error in reversed(list(zip(groups, errors, strict=True))):
            x_hat = x_hat + batch.gradient(error) / len(groups)
            at, of = group.latents, group.pairs
            pull = of.pull(x_hat, p.W_dec[at])
            W_dec[at] = of.sum_rows(of.values, x_hat)
            W_enc_rows[at] = of.sum_rows(pull, batch.centred)
            b_enc[at] = of.sum_weights(pull)
        aux = self._aux(state, batch, errors[-1])
        if aux is not None:
            W_dec.index_add_(0, aux.latents, aux.W_dec)
            W_enc_rows.index_add_(0, aux.latents, aux.W_enc_rows)
            b_enc.index_add_(0, aux.latents, aux.b_enc)
        fired = torch.zeros(p.d_sae, dtype=torch.bool)
        fired[pairs.latents] = True
        return Descent(
            W_enc_rows=W_enc_rows,
            W_dec=W_dec,
            b_enc=b_enc,
            own={},
            encoder_bias=b_enc,
            x_hat=x_hat,
            error=errors[-1],
            fired=fired,
            active=len(pairs.latents),
            aux_loss=None if aux is None else aux.loss,
            penalty=self._penalty(errors, batch, aux),
        )

    def _aux(self, state: TrainState, batch: Batch, error: Tensor) -> AuxGradients | None:
        dead = self.dead(state).nonzero().squeeze(1)
        if not (len(dead) and self._k_aux and self._aux_coefficient):
            return None
        return auxk_gradients(
            state.parameters,
            batch.pre_acts,
            batch.centred,
            error,
            dead,
            k_aux=self._k_aux,
            aux_coefficient=self._aux_coefficient,
        )

    def _penalty(self, errors: list[Tensor], batch: Batch, aux: AuxGradients | None) -> float:
        """What prefixes and AuxK add to the FVU of all latents."""
        lost = [float(e.square().sum(dtype=torch.float64)) / batch.deviation for e in errors]
        weighted = 0.0 if aux is None else self._aux_coefficient * aux.loss
        return sum(lost) / len(lost) - lost[-1] + weighted


def _prefix_errors(groups: list[Group], batch: Batch, W_dec: Tensor) -> list[Tensor]:
    """What each prefix leaves over, the shortest first."""
    errors: list[Tensor] = []
    left = batch.wanted
    for group in groups:
        left = left - group.pairs.decode(group.pairs.values, W_dec[group.latents])
        errors.append(left)
    return errors
