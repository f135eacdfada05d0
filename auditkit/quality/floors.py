"""Floors beside an SAE: dictionaries that know nothing, or only a covariance, at the same L0.

Each encodes and decodes as an SAE does, so that every measure of an SAE can be taken of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.saes import SparseAutoencoder
from auditkit.tensors import SparseLatents, sparse_decode

_ROWS = 256


@runtime_checkable
class Dictionary(Protocol):
    """What encodes activations sparsely and decodes them: an SAE or a floor."""

    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents: ...

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]: ...


@runtime_checkable
class Floor(Dictionary, Protocol):
    """A dictionary that is no SAE: unit rows, k of them per token around a mean."""

    name: ClassVar[str]
    note: ClassVar[str]

    @property
    def rows(self) -> Float32[Tensor, "latent d_in"]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomDictionary:
    """Unit rows uniform on the sphere; the k of largest projection, least-squares coefficients.

    No coefficients do better on these rows, so an encoder of such a dictionary stays below it as
    long as it chooses rows in this way.
    """

    rows: Float32[Tensor, "latent d_in"]
    mean: Float32[Tensor, " d_in"]
    k: int
    name: ClassVar[str] = "random dictionary"
    note: ClassVar[str] = (
        "as many random unit rows as the SAE has latents, the k of largest projection per token, "
        "least-squares coefficients"
    )

    @classmethod
    def draw(
        cls, x: Float[Tensor, "token d_in"], *, d_sae: int, k: int, seed: int = 0
    ) -> RandomDictionary:
        """`d_sae` rows, around the mean of `x`."""
        generator = torch.Generator().manual_seed(seed)
        rows = normalize(torch.randn(d_sae, x.shape[1], generator=generator), dim=1)
        return cls(rows=rows, mean=x.float().mean(0), k=min(k, d_sae, x.shape[1]))

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        """Choose rows and fit their coefficients, in float64."""
        parts = [self._fit(part - self.mean) for part in x.float().split(_ROWS)]
        return SparseLatents.concatenate(parts or [SparseLatents.empty(len(self.rows))])

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        """The rows' sum, around the mean."""
        del x
        return sparse_decode(latents, self.rows) + self.mean

    def _fit(self, x: Tensor) -> SparseLatents:
        indices = (x @ self.rows.T).topk(self.k, dim=1).indices
        chosen = self.rows[indices].double()
        gram = chosen @ chosen.transpose(1, 2)
        gram.diagonal(dim1=1, dim2=2).add_(1e-10)  # two rows may all but coincide
        target = (chosen @ x.double().unsqueeze(2)).squeeze(2)
        fitted = torch.linalg.solve(gram, target).float()
        return SparseLatents.from_topk(fitted, indices, len(self.rows))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrincipalComponents:
    """The k leading principal components, every one of them active on every token."""

    rows: Float32[Tensor, "latent d_in"]
    mean: Float32[Tensor, " d_in"]
    name: ClassVar[str] = "PCA"
    note: ClassVar[str] = "the k leading components, fitted on the very tokens measured"

    @classmethod
    def fit(cls, x: Float[Tensor, "token d_in"], *, k: int) -> PrincipalComponents:
        """Fitted on `x`, in float64; measured on the same x, this favours it."""
        centred = x.double() - x.double().mean(0)
        vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
        rows = vectors.T.flip(0)[: min(k, x.shape[1])]
        return cls(rows=rows.float().contiguous(), mean=x.float().mean(0))

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        return SparseLatents.from_dense((x.float() - self.mean) @ self.rows.T)

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        del x
        return sparse_decode(latents, self.rows) + self.mean


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeuronBasis:
    """The coordinates themselves; per token the k furthest from their means."""

    mean: Float32[Tensor, " d_in"]
    k: int
    name: ClassVar[str] = "neuron basis"
    note: ClassVar[str] = "the k coordinates furthest from their means, per token"

    @classmethod
    def fit(cls, x: Float[Tensor, "token d_in"], *, k: int) -> NeuronBasis:
        return cls(mean=x.float().mean(0), k=min(k, x.shape[1]))

    @property
    def rows(self) -> Float32[Tensor, "latent d_in"]:
        return torch.eye(len(self.mean))

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        centred = x.float() - self.mean
        indices = centred.abs().topk(self.k, dim=1).indices
        return SparseLatents.from_topk(centred.gather(1, indices), indices, len(self.mean))

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        del x
        return latents.to_dense() + self.mean


def fit_floors(
    x: Float[Tensor, "token d_in"], *, k: int, d_sae: int, seed: int = 0
) -> tuple[Floor, ...]:
    """Random dictionary, PCA and neuron basis at k terms per token."""
    return (
        RandomDictionary.draw(x, d_sae=d_sae, k=k, seed=seed),
        PrincipalComponents.fit(x, k=k),
        NeuronBasis.fit(x, k=k),
    )


def directions_of(dictionary: SparseAutoencoder | Floor) -> Float32[Tensor, "latent d_in"]:
    """What each latent adds to a reconstruction, up to its length."""
    return dictionary.W_dec if isinstance(dictionary, SparseAutoencoder) else dictionary.rows
