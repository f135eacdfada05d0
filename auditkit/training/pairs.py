"""The (token, latent) pairs that take part in a step, and the four sums that a step needs of them.

With few pairs they are listed, and every sum is an embedding_bag over the list. Early in training
an objective without a fixed k has half of all latents active; there the same sums are products of
whole matrices. Steps are written once for both: a `weights` argument has an entry for every pair,
in the shape of `values`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

DENSE_SHARE = 0.05
"""From this share of all pairs on, whole products are faster than sums over a list."""


@runtime_checkable
class Pairs(Protocol):
    """Pairs of a batch with their pre-activations `values`."""

    @property
    def values(self) -> Tensor:
        """Pre-activations, one per pair; a step may overwrite them."""
        ...

    def take(self, per_latent: Float[Tensor, " d_sae"]) -> Tensor:
        """The entry of each pair's latent, in a shape that broadcasts with `values`."""
        ...

    def decode(
        self, weights: Tensor, W_dec: Float[Tensor, "d_sae d_out"]
    ) -> Float[Tensor, "batch d_out"]:
        """Σ over a token's pairs of weight · row of W_dec."""
        ...

    def pull(
        self,
        grad: Float[Tensor, "batch d_out"],
        W_dec: Float[Tensor, "d_sae d_out"],
        *,
        memory: Tensor | None = None,
    ) -> Tensor:
        """grad · row of W_dec for every pair: the gradient of `decode` for its weights. It may
        lie in `memory`, which has an entry for every pair."""
        ...

    def sum_rows(
        self,
        weights: Tensor,
        rows: Float[Tensor, "batch width"],
        *,
        onto: Float[Tensor, "d_sae width"] | None = None,
    ) -> Float[Tensor, "d_sae width"]:
        """Σ over a latent's pairs of weight · row of the token, added to `onto` where given."""
        ...

    def sum_weights(self, weights: Tensor) -> Float[Tensor, " d_sae"]:
        """Σ over a latent's pairs of weight."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPairs:
    """Pairs as a list in the order of tokens; token t has `starts[t]` up to the next one's."""

    values: Float[Tensor, " pair"]
    latents: Int[Tensor, " pair"]
    tokens: Int[Tensor, " pair"]
    starts: Int[Tensor, " batch"]
    d_sae: int

    def take(self, per_latent: Float[Tensor, " d_sae"]) -> Float[Tensor, " pair"]:
        """The entry of each pair's latent."""
        return per_latent[self.latents]

    def decode(
        self, weights: Float[Tensor, " pair"], W_dec: Float[Tensor, "d_sae d_out"]
    ) -> Float[Tensor, "batch d_out"]:
        """Σ over a token's pairs of weight · row of W_dec."""
        return _bags(self.latents, W_dec, self.starts, weights)

    def pull(
        self,
        grad: Float[Tensor, "batch d_out"],
        W_dec: Float[Tensor, "d_sae d_out"],
        *,
        memory: Float[Tensor, " pair"] | None = None,
    ) -> Float[Tensor, " pair"]:
        """grad · row of W_dec for every pair; the memory is not used."""
        del memory
        if not len(self.latents):
            return torch.zeros_like(self.values)
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            grad.contiguous(), W_dec, self.latents, self.starts, self.tokens, 0
        )

    def sum_rows(
        self,
        weights: Float[Tensor, " pair"],
        rows: Float[Tensor, "batch width"],
        *,
        onto: Float[Tensor, "d_sae width"] | None = None,
    ) -> Float[Tensor, "d_sae width"]:
        """Σ over a latent's pairs of weight · row of the token."""
        order = self.latents.argsort(stable=True)
        counts = torch.bincount(self.latents, minlength=self.d_sae)
        sums = _bags(self.tokens[order], rows, counts.cumsum(0) - counts, weights[order])
        return sums if onto is None else onto.add_(sums)

    def sum_weights(self, weights: Float[Tensor, " pair"]) -> Float[Tensor, " d_sae"]:
        """Σ over a latent's pairs of weight."""
        return weights.new_zeros(self.d_sae).index_add_(0, self.latents, weights)

    def among(self, start: int, stop: int) -> tuple[ListedPairs, Bool[Tensor, " pair"]]:
        """The pairs of the latents start ≤ j < stop, numbered from 0, and which these are."""
        here = (self.latents >= start) & (self.latents < stop)
        latents, tokens = self.latents[here] - start, self.tokens[here]
        part = list_pairs(
            self.values[here], latents, tokens, batch=len(self.starts), d_sae=stop - start
        )
        return part, here


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPairs:
    """Every pair of the batch, whether it is active or not."""

    values: Float[Tensor, "batch d_sae"]

    def take(self, per_latent: Float[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
        """The latents' entries, which broadcast over tokens."""
        return per_latent

    def decode(
        self, weights: Float[Tensor, "batch d_sae"], W_dec: Float[Tensor, "d_sae d_out"]
    ) -> Float[Tensor, "batch d_out"]:
        """weights @ W_dec."""
        return weights @ W_dec

    def pull(
        self,
        grad: Float[Tensor, "batch d_out"],
        W_dec: Float[Tensor, "d_sae d_out"],
        *,
        memory: Float[Tensor, "batch d_sae"] | None = None,
    ) -> Float[Tensor, "batch d_sae"]:
        """grad @ W_decᵀ."""
        return torch.mm(grad, W_dec.T, out=memory)

    def sum_rows(
        self,
        weights: Float[Tensor, "batch d_sae"],
        rows: Float[Tensor, "batch width"],
        *,
        onto: Float[Tensor, "d_sae width"] | None = None,
    ) -> Float[Tensor, "d_sae width"]:
        """weightsᵀ @ rows."""
        return weights.T @ rows if onto is None else onto.addmm_(weights.T, rows)

    def sum_weights(self, weights: Float[Tensor, "batch d_sae"]) -> Float[Tensor, " d_sae"]:
        """Sums over tokens, as a product: three times as fast as `sum`."""
        return weights.new_ones(len(weights)) @ weights


def clear_unless_positive(values: Tensor, where: Tensor) -> Tensor:
    """`values`, in place, with zeros where `where` has nothing above zero. One pass over memory: to
    multiply with a mask makes numbers of the mask first."""
    clear = torch.ops.aten.threshold_backward.grad_input
    return clear(values, where, 0, grad_input=values)


def are_many(chosen: Bool[Tensor, "batch d_sae"]) -> bool:
    """Whether the `chosen` pairs are better not listed."""
    return int(torch.count_nonzero(chosen)) > DENSE_SHARE * chosen.numel()


def listed_where(
    pre_acts: Float[Tensor, "batch d_sae"], chosen: Bool[Tensor, "batch d_sae"]
) -> ListedPairs:
    """The `chosen` pairs, listed."""
    batch, d_sae = pre_acts.shape
    places = chosen.view(-1).nonzero().squeeze(1)
    tokens = torch.div(places, d_sae, rounding_mode="floor")
    return list_pairs(
        pre_acts.view(-1)[places], places - tokens * d_sae, tokens, batch=batch, d_sae=d_sae
    )


def list_pairs(
    values: Float[Tensor, " pair"],
    latents: Int[Tensor, " pair"],
    tokens: Int[Tensor, " pair"],
    *,
    batch: int,
    d_sae: int,
) -> ListedPairs:
    """Pairs that are in the order of their tokens."""
    counts = torch.bincount(tokens, minlength=batch)
    return ListedPairs(
        values=values,
        latents=latents,
        tokens=tokens,
        starts=counts.cumsum(0) - counts,
        d_sae=d_sae,
    )


def join_lists(lists: Sequence[ListedPairs]) -> ListedPairs:
    """The pairs of slices that follow one another, as those of one batch."""
    if len(lists) == 1:
        return lists[0]
    sizes = [len(pairs.starts) for pairs in lists]
    firsts = [0, *itertools.accumulate(sizes)]
    return list_pairs(
        torch.cat([pairs.values for pairs in lists]),
        torch.cat([pairs.latents for pairs in lists]),
        torch.cat([pairs.tokens + first for pairs, first in zip(lists, firsts, strict=False)]),
        batch=firsts[-1],
        d_sae=lists[0].d_sae,
    )


def _bags(indices: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    if not len(indices):
        return rows.new_zeros(len(starts), rows.shape[1])
    return embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=weights)
