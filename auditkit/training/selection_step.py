"""The step of objectives that select latents: TopK, BatchTopK, Matryoshka BatchTopK.

The latents stand in groups; the first group alone has to reconstruct the target, the first two
have to, and so on, and the loss is the mean FVU over these prefixes plus AuxK's term. One group is
an ordinary SAE.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from auditkit.training.auxk import AuxGradients, auxk_gradients
from auditkit.training.objective_step import Batch, Descent, ObjectiveStep, Slice
from auditkit.training.pairs import ListedPairs
from auditkit.training.parameters import SaeParameters, TrainState
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
    def select(self, slices: Callable[[], Iterator[Slice]], tokens: int) -> ListedPairs:
        """The pairs that are active, all with positive values, in a batch of so many tokens;
        `slices` gives its pre-activations, at every call anew."""

    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients of the mean FVU over prefixes, and of AuxK."""
        p = state.parameters
        dead = self._to_wake(state)
        of_dead = batch.centred.new_empty(len(batch), len(dead))
        pairs = self.select(lambda: self._keeping(state, batch, dead, of_dead), len(batch))
        groups = [
            Group(start=a, stop=b, pairs=pairs.among(a, b)[0] if len(self._bounds) > 1 else pairs)
            for a, b in self._bounds
        ]
        errors = _prefix_errors(groups, batch, p.W_dec)
        x_hat, sums = _gradients(groups, errors, state, batch)
        W_enc_rows, W_dec, b_enc = (_assemble(s) for s in sums)
        aux = self._aux(state, batch, errors[-1], dead, of_dead)
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

    def _to_wake(self, state: TrainState) -> Tensor:
        """The dead latents, for AuxK; none where it is off."""
        wanted = bool(self._k_aux and self._aux_coefficient)
        return (self.dead(state) & wanted).nonzero().squeeze(1)

    def _keeping(
        self, state: TrainState, batch: Batch, dead: Tensor, of_dead: Tensor
    ) -> Iterator[Slice]:
        """The batch's slices; the pre-activations of the dead are kept in `of_dead`."""
        for part in self.slices(state, batch):
            torch.index_select(part.pre_acts, 1, dead, out=of_dead[part.tokens])
            yield part

    def _aux(
        self, state: TrainState, batch: Batch, error: Tensor, dead: Tensor, of_dead: Tensor
    ) -> AuxGradients | None:
        if not len(dead):
            return None
        p = state.parameters
        theirs = SaeParameters(
            W_enc_rows=p.W_enc_rows[dead], W_dec=p.W_dec[dead], b_enc=p.b_enc[dead], b_dec=p.b_dec
        )
        found = auxk_gradients(
            theirs,
            of_dead,
            batch.centred,
            error,
            torch.arange(len(dead)),
            k_aux=self._k_aux,
            aux_coefficient=self._aux_coefficient,
        )
        return replace(found, latents=dead)

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


def _gradients(
    groups: list[Group], errors: list[Tensor], state: TrainState, batch: Batch
) -> tuple[Tensor, tuple[list[Tensor], ...]]:
    """Of x̂ where b_dec is added, and for each group, first to last, of its W_enc_rows, W_dec and
    b_enc."""
    p = state.parameters
    x_hat = torch.zeros_like(batch.wanted)
    sums: tuple[list[Tensor], ...] = ([], [], [])
    # A group's latents are part of every prefix from their own on.
    for group, error in reversed(list(zip(groups, errors, strict=True))):
        x_hat = x_hat + batch.gradient(error) / len(groups)
        of = group.pairs
        pull = of.pull(x_hat, p.W_dec[group.latents])
        found = (
            of.sum_rows(pull, batch.centred),
            of.sum_rows(of.values, x_hat),
            of.sum_weights(pull),
        )
        for known, new in zip(sums, found, strict=True):
            known.insert(0, new)
    return x_hat, sums


def _assemble(parts: list[Tensor]) -> Tensor:
    """One tensor of all groups; the parts are given up as soon as it stands."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    parts.clear()
    return whole
