"""What is judged in a planted world: SAEs, floors, and the planted dictionary as the ceiling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from sklearn.decomposition import FastICA
from torch import Tensor

from auditkit.quality.floors import Dictionary, PrincipalComponents, RandomDictionary
from auditkit.quality.lookups.rival_directions import Whitening
from auditkit.quality.worlds.world import PlantedBatch, PlantedWorld
from auditkit.saes import SparseAutoencoder
from auditkit.tensors import SparseLatents, sparse_decode

FIT_TOKENS = 16_384
FIT_STREAM = 3
_ICA_TOKENS = 8_192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What became of a batch: latents, and the reconstruction from them."""

    latents: SparseLatents
    x_hat: Float[Tensor, "token d_in"]


@runtime_checkable
class Reader(Protocol):
    """Latents and their directions; `directions` are what each adds to x̂ per unit."""

    @property
    def directions(self) -> Float[Tensor, "latent d_in"]: ...

    def read(self, batch: PlantedBatch) -> Reading: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DictionaryReader:
    """An SAE or a floor, which see x alone."""

    dictionary: Dictionary
    directions: Float[Tensor, "latent d_in"]

    @classmethod
    def of_sae(cls, sae: SparseAutoencoder) -> DictionaryReader:
        """An SAE, its directions in the world's own units."""
        rows = sae.decoder_directions(torch.arange(sae.config.d_sae))
        return cls(dictionary=sae, directions=rows)

    def read(self, batch: PlantedBatch) -> Reading:
        latents = self.dictionary.encode(batch.x)
        return Reading(latents=latents, x_hat=self.dictionary.decode(latents, batch.x))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Oracle:
    """The planted dictionary, told which features fire and how much: no SAE does better.

    `kept` are the features that it has latents for: all, or where there are more features than
    latents the most frequent ones.
    """

    directions: Float32[Tensor, "latent d_in"]
    kept: Int64[Tensor, " latent"]
    bias: Float32[Tensor, " d_in"]

    @classmethod
    def of(cls, world: PlantedWorld) -> Oracle:
        """As many latents as the world's SAEs have."""
        kept = frequent_features(world)
        return cls(directions=world.features[kept], kept=kept, bias=world.bias)

    def read(self, batch: PlantedBatch) -> Reading:
        latents = restrict(batch.amounts, self.kept)
        return Reading(latents=latents, x_hat=sparse_decode(latents, self.directions) + self.bias)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransposeDictionary:
    """The planted dictionary with its transpose as encoder, and no bias: the k features of largest
    positive projection. What knowing D is worth to an encoder that does not know its overlaps."""

    rows: Float32[Tensor, "latent d_in"]
    bias: Float32[Tensor, " d_in"]
    k: int

    @classmethod
    def of(cls, world: PlantedWorld) -> TransposeDictionary:
        """As many latents as the world's SAEs have."""
        return cls(rows=world.features[frequent_features(world)], bias=world.bias, k=world.k)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        values, latents = ((x.float() - self.bias) @ self.rows.T).topk(self.k, dim=1)
        return SparseLatents.from_topk(values.relu(), latents, len(self.rows))

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        del x
        return sparse_decode(latents, self.rows) + self.bias


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndependentComponents:
    """As many independent components as dimensions (FastICA), each turned to its longer tail; per
    token the k of largest positive value."""

    unmixing: Float32[Tensor, "latent d_in"]
    rows: Float32[Tensor, "latent d_in"]
    mean: Float32[Tensor, " d_in"]
    k: int

    @classmethod
    def fit(cls, x: Float[Tensor, "token d_in"], *, k: int, seed: int = 0) -> IndependentComponents:
        """Fitted on `x`; each component's row is its column of the mixing matrix."""
        whitening = Whitening.of(x)
        centred = x.double() - x.double().mean(0)
        z = (centred @ whitening.map.T).numpy()
        # scikit-learn's annotations know `whiten` as a string alone.
        settings: dict[str, Any] = {"whiten": False, "max_iter": 100, "tol": 1e-2}
        ica: Any = FastICA(**settings, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ica.fit(z)
        rotation = torch.from_numpy(np.asarray(ica.components_)).double()
        sources = torch.from_numpy(z) @ rotation.T
        side = torch.where(sources.pow(3).mean(0) < 0, -1.0, 1.0).double().unsqueeze(1)
        unmixing = side * (rotation @ whitening.map)
        mixing = torch.linalg.pinv(unmixing).T
        # Per unit of the component: a latent's value is in units of its own row's norm.
        length = mixing.norm(dim=1, keepdim=True)
        return cls(
            unmixing=(unmixing * length).float(),
            rows=(mixing / length).float(),
            mean=x.float().mean(0),
            k=min(k, len(unmixing)),
        )

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        values, latents = ((x.float() - self.mean) @ self.unmixing.T).topk(self.k, dim=1)
        return SparseLatents.from_topk(values.relu(), latents, len(self.rows))

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        del x
        return sparse_decode(latents, self.rows) + self.mean


def frequent_features(world: PlantedWorld) -> Int64[Tensor, " latent"]:
    """The most frequent features, as many as the world's SAEs have latents, in rising order."""
    order = np.argsort(-world.firing.rates, kind="stable")[: world.d_sae]
    return torch.from_numpy(np.sort(order))


def restrict(amounts: SparseLatents, kept: Int64[Tensor, " latent"]) -> SparseLatents:
    """The columns `kept` (rising) of sparse rows, renumbered from 0."""
    if len(kept) == amounts.d_sae:
        return amounts
    place = torch.full((amounts.d_sae,), -1, dtype=torch.int64)
    place[kept] = torch.arange(len(kept))
    columns = place[amounts.indices]
    held = columns >= 0
    counts = torch.bincount(amounts.token_ids()[held], minlength=amounts.n_tokens)
    return SparseLatents(
        indices=columns[held],
        values=amounts.values[held],
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        d_sae=len(kept),
    )


def floor_readers(world: PlantedWorld, *, seed: int = 0) -> dict[str, Reader]:
    """What an SAE must beat: random rows, principal and independent components, at the world's k.

    All are fitted on tokens of the world that no measure is taken on. The frozen decoder, which has
    to be trained, is not among them.
    """
    parts = list(world.batches(FIT_TOKENS, stream=FIT_STREAM))
    x = torch.cat([part.x for part in parts])
    # torch's generator of the training's own seed would give the very rows that an SAE starts from.
    random = RandomDictionary.draw(x, d_sae=world.d_sae, k=world.k, seed=0xD1C7 + seed)
    principal = PrincipalComponents.fit(x, k=world.k)
    independent = IndependentComponents.fit(x[:_ICA_TOKENS], k=world.k, seed=seed)
    return {
        "random dictionary": DictionaryReader(dictionary=random, directions=random.rows),
        "PCA": DictionaryReader(dictionary=principal, directions=principal.rows),
        "ICA": DictionaryReader(dictionary=independent, directions=independent.rows),
    }


def ceiling_readers(world: PlantedWorld) -> dict[str, Reader]:
    """What no SAE can beat, and what the planted dictionary is worth with a naive encoder."""
    transpose = TransposeDictionary.of(world)
    return {
        "planted, oracle": Oracle.of(world),
        "planted, transpose": DictionaryReader(dictionary=transpose, directions=transpose.rows),
    }
