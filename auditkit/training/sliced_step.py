"""The step of objectives whose loss is a sum over tokens: JumpReLU, ReLU with L1, Gated.

Where many pairs take part, as early in training, the batch goes through the step some tokens at a
time, and only its sums are kept: no more pre-activations wait in memory than a slice has. Where
they are few, the slices only list theirs, and one sum over the list is faster.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.training.objective_step import Batch, Descent, ObjectiveStep
from auditkit.training.pairs import (
    AllPairs,
    ListedPairs,
    Pairs,
    are_many,
    join_lists,
    listed_where,
)
from auditkit.training.parameters import TrainState

PART_TOKENS = 256
"""Of whole products so many tokens at once: what a step makes of them stays near the processor."""


def _none() -> dict[str, Tensor]:
    return {}


@dataclass(slots=True, kw_only=True)
class Sums:
    """What the parts of a batch add up to: `of_latents` by name, the number of active pairs, and
    for every token what is left over; `frozen_error` is Gated's Σ‖wanted − x̂_frozen‖²."""

    error: Float[Tensor, "batch d_out"]
    of_latents: dict[str, Tensor] = field(default_factory=_none)
    of_pairs: dict[str, Tensor] = field(default_factory=_none)
    active: int = 0
    frozen_error: float = 0.0

    def __getitem__(self, name: str) -> Tensor:
        return self.of_latents[name]

    def add_rows(self, name: str, pairs: Pairs, weights: Tensor, rows: Tensor) -> None:
        """Σ over each latent's pairs of weight · row of the token."""
        self.of_latents[name] = pairs.sum_rows(weights, rows, onto=self.of_latents.get(name))

    def add_weights(self, name: str, pairs: Pairs, weights: Tensor) -> None:
        """Σ over each latent's pairs of weight."""
        sums = pairs.sum_weights(weights)
        known = self.of_latents.get(name)
        self.of_latents[name] = sums if known is None else known.add_(sums)

    def spare(self, name: str, like: Tensor) -> Tensor:
        """Memory in the shape of the pairs' values, the same for every part: what is allocated
        anew for each part leaves holes in the heap that no other part fits into."""
        known = self.of_pairs.get(name)
        if known is None or len(known) < len(like):
            known = self.of_pairs[name] = torch.empty_like(like)
        return known[: len(like)]

    def descent(self, batch: Batch, *, own: dict[str, Tensor], penalty: float) -> Descent:
        """Where the sums of these names are gradients: W_enc_rows, W_dec, b_enc, and encoder_bias
        where it is another than b_enc's; latents with z above zero fired."""
        b_enc = self["b_enc"]
        return Descent(
            W_enc_rows=self["W_enc_rows"],
            W_dec=self["W_dec"],
            b_enc=b_enc,
            own=own,
            encoder_bias=self.of_latents.get("encoder_bias", b_enc),
            x_hat=batch.gradient(self.error),
            error=self.error,
            fired=self["z"] > 0,
            active=self.active,
            penalty=penalty,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Pairs of some of a batch's tokens, with the rows of these tokens."""

    pairs: Pairs
    tokens: slice
    centred: Float[Tensor, "token d_in"]
    wanted: Float[Tensor, "token d_out"]


class SlicedStep(ObjectiveStep):
    """An objective says which pairs take part, what a part adds to the sums, and what they mean."""

    @abstractmethod
    def chosen(
        self, state: TrainState, pre_acts: Float[Tensor, "token d_sae"]
    ) -> Bool[Tensor, "token d_sae"]:
        """The pairs that take part in the step; it may be given others beside them."""

    @abstractmethod
    def add(self, state: TrainState, batch: Batch, part: Part, sums: Sums) -> None:
        """Add a part of the batch to the sums; its pairs' values may be overwritten."""

    @abstractmethod
    def conclude(self, state: TrainState, batch: Batch, sums: Sums) -> Descent:
        """Gradients, from the sums over the whole batch."""

    def descend(self, state: TrainState, batch: Batch) -> Descent:
        """Gradients of a sum over tokens."""
        sums = Sums(error=torch.empty_like(batch.wanted))
        lists = self._add_or_list(state, batch, sums)
        if lists:
            self.add(state, batch, _part(batch, join_lists(lists), slice(0, len(batch))), sums)
        sums.of_pairs.clear()
        return self.conclude(state, batch, sums)

    def _add_or_list(self, state: TrainState, batch: Batch, sums: Sums) -> list[ListedPairs]:
        """The slices' pairs listed, or none where they were too many and are in the sums."""
        lists: list[ListedPairs] = []
        whole = False
        for part in self.slices(state, batch):
            # The first slice decides for all: a list has to cover every token or none.
            if part.tokens.start == 0:
                whole = are_many(self.chosen(state, part.pre_acts))
            if not whole:
                lists.append(listed_where(part.pre_acts, self.chosen(state, part.pre_acts)))
                continue
            for rows in part.split(PART_TOKENS):
                pairs = AllPairs(values=rows.pre_acts)
                self.add(state, batch, _part(batch, pairs, rows.tokens), sums)
        return lists


def _part(batch: Batch, pairs: Pairs, tokens: slice) -> Part:
    return Part(
        pairs=pairs, tokens=tokens, centred=batch.centred[tokens], wanted=batch.wanted[tokens]
    )
