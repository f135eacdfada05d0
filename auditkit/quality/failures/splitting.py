"""Feature splitting: one latent of a narrow dictionary becomes several in a wide one.

Bricken et al. 2023 ("Towards Monosemanticity") saw it with the eye. Here a piece of a latent is a
wide latent of nearly the same direction that fires only where the narrow one does, and not
everywhere it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.statistics import binomial_rate, measure_mean
from auditkit.saes import SparseAutoencoder
from auditkit.tensors import SparseLatents

LEAST_COSINE = 0.7
LEAST_PRECISION = 0.8
WHOLE_RECALL = 0.8
LEAST_FIRES = 20
_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FiringDictionary:
    """A dictionary's directions and where its latents fire on some text."""

    decoder: Float[Tensor, "d_sae d_in"]
    latents: SparseLatents

    def __post_init__(self) -> None:
        if len(self.decoder) != self.latents.d_sae:
            raise InvalidInput(
                f"{len(self.decoder)} directions and latents of width {self.latents.d_sae}"
            )

    @classmethod
    def of(cls, sae: SparseAutoencoder, latents: SparseLatents) -> FiringDictionary:
        """An SAE and what it made of the text."""
        return cls(decoder=sae.W_dec, latents=latents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """What becomes of a narrow dictionary's latents in another; n counts those that fire enough.

    A piece of latent j is another-dictionary latent i with decoder cosine above `LEAST_COSINE`,
    P(j fires | i fires) ≥ `LEAST_PRECISION` and P(i fires | j fires) < `WHOLE_RECALL`. `pieces` is
    their mean number per latent, `split` the share of latents with two or more, `covered` the share
    whose pieces, two or more, together fire on `WHOLE_RECALL` of where it does. `kept` is the share
    that has a counterpart of that precision and recall instead: carried over whole. `near` is the
    share with any latent above the cosine, fire as it may: no other can be split or kept.
    """

    pieces: Measure
    split: Measure
    covered: Measure
    kept: Measure
    near: Measure


@torch.no_grad()
def measure_splitting(narrow: FiringDictionary, wide: FiringDictionary) -> Splitting:
    """Count the pieces of `narrow`'s latents in `wide`, both on the same tokens.

    Beside a number against width stands that against a second seed of equal width, the floor:
    dictionaries that differ in nothing but chance cut up one another's latents too. Latents that
    fire on fewer than `LEAST_FIRES` tokens are left out on both sides. Invariant to the scale of
    directions and activations and to the order of latents and tokens. Raises MismatchError for
    directions of different widths or other tokens.
    """
    if narrow.decoder.shape[1] != wide.decoder.shape[1]:
        raise MismatchError(
            f"directions are {narrow.decoder.shape[1]} and {wide.decoder.shape[1]} wide",
            help="compare SAEs of the same hook point of the same model",
        )
    if narrow.latents.n_tokens != wide.latents.n_tokens:
        raise MismatchError(
            f"{narrow.latents.n_tokens:,} and {wide.latents.n_tokens:,} tokens",
            help="encode the same text with both SAEs",
        )
    ours, theirs = _Firing.of(narrow), _Firing.of(wide)
    if not len(ours.rows):
        none = NotMeasured(f"no latent fires on {LEAST_FIRES} tokens")
        return Splitting(pieces=none, split=none, covered=none, kept=none, near=none)
    return _summarise(ours, theirs, _near_pairs(ours.directions, theirs.directions))


@dataclass(frozen=True, slots=True, eq=False)
class _Firing:
    """The latents that fire enough: their numbers, unit directions, and tokens as columns."""

    rows: NDArray[np.int64]
    directions: Tensor
    tokens: csc_matrix
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, found: FiringDictionary) -> _Firing:
        latents = found.latents
        counts = torch.bincount(latents.indices, minlength=latents.d_sae)
        rows = (counts >= LEAST_FIRES).nonzero().squeeze(1)
        fires = csc_matrix(
            (
                np.ones(latents.nnz, dtype=np.int32),
                (latents.token_ids().numpy(), latents.indices.numpy()),
            ),
            shape=(latents.n_tokens, latents.d_sae),
        )
        return cls(
            rows.numpy(),
            normalize(found.decoder[rows].float(), dim=1),
            fires[:, rows.numpy()],
            counts[rows].numpy(),
        )

    def where(self, j: int) -> NDArray[np.integer]:
        """The tokens on which latent j, counted among these, fires."""
        return self.tokens.indices[self.tokens.indptr[j] : self.tokens.indptr[j + 1]]


def _near_pairs(ours: Tensor, theirs: Tensor) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(ours), _ROWS):
        near = (ours[start : start + _ROWS] @ theirs.T > LEAST_COSINE).nonzero()
        pairs.extend((start + int(j), int(i)) for j, i in near.tolist())
    return pairs


def _summarise(ours: _Firing, theirs: _Firing, pairs: list[tuple[int, int]]) -> Splitting:
    n = len(ours.rows)
    pieces: list[list[int]] = [[] for _ in range(n)]
    near, kept = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for j, i in pairs:
        near[j] = True
        joint = len(np.intersect1d(ours.where(j), theirs.where(i), assume_unique=True))
        if joint < LEAST_PRECISION * theirs.counts[i]:
            continue
        if joint < WHOLE_RECALL * ours.counts[j]:
            pieces[j].append(i)
        else:
            kept[j] = True
    split = np.array([len(found) > 1 for found in pieces])
    covered = np.array(
        [several and _cover(ours, theirs, j, pieces[j]) for j, several in enumerate(split)]
    )
    return Splitting(
        pieces=measure_mean([len(found) for found in pieces]),
        split=binomial_rate(int(split.sum()), n),
        covered=binomial_rate(int(covered.sum()), n),
        kept=binomial_rate(int(kept.sum()), n),
        near=binomial_rate(int(near.sum()), n),
    )


def _cover(ours: _Firing, theirs: _Firing, j: int, pieces: list[int]) -> bool:
    """Do the pieces together fire on enough of where latent j does?"""
    anywhere = np.unique(np.concatenate([theirs.where(i) for i in pieces]))
    joint = len(np.intersect1d(ours.where(j), anywhere, assume_unique=True))
    return joint >= WHOLE_RECALL * int(ours.counts[j])
