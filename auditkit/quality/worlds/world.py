"""A planted world: activations made of known features, x = Σ a_g D_g + b, to judge an SAE by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import Measured
from auditkit.quality.worlds.firing import Firing
from auditkit.quality.worlds.packing import max_cosines
from auditkit.tensors import SparseLatents, sparse_decode

BATCH_TOKENS = 4096
_SMALLEST_AMOUNT = 0.1


class WorldKind(StrEnum):
    """What is hard about a world."""

    INDEPENDENT = "independent"
    CORRELATED = "correlated"
    HIERARCHICAL = "hierarchical"
    ANISOTROPIC = "anisotropic"
    CROWDED = "crowded"


class WorldSize(StrEnum):
    """How large a world is; `SIZES` has the numbers."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlantedBatch:
    """Some tokens of a world: `x` [token, d_in] and what it is made of, `amounts` (a, one column
    to a feature, all positive)."""

    x: Float32[Tensor, "token d_in"]
    amounts: SparseLatents


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlantedWorld:
    """A source of activations x = Σ_g a_g D_g + b whose features are known.

    `features` (D) are unit rows. Where feature g fires, a_g is normal with mean `magnitudes[g]` and
    standard deviation `spread` times that, cut off below a tenth of the mean. `d_sae` is how many
    latents an SAE of this world gets, `k` how many of them a token, near the mean number of
    features that fire (`true_l0`). `kind` is one of `WorldKind`, or the name of a world from
    elsewhere. `parents[g]` is g's parent, g itself where it has none; None in
    worlds without a hierarchy.
    """

    kind: str
    size: str
    seed: int
    features: Float32[Tensor, "feature d_in"]
    bias: Float32[Tensor, " d_in"]
    firing: Firing
    magnitudes: Float32[Tensor, " feature"]
    spread: float
    d_sae: int
    k: int
    parents: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        norms = self.features.norm(dim=1)
        if bool((norms - 1).abs().max() > 1e-4):
            raise InvalidInput("planted features have norm 1: their length is in the amounts")
        if len(self.firing.rates) != len(self.features):
            raise InvalidInput(
                f"{len(self.features)} features and firing rates of {len(self.firing.rates)}"
            )

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.size}/{self.seed}"

    @property
    def n_features(self) -> int:
        return len(self.features)

    @property
    def d_in(self) -> int:
        return self.features.shape[1]

    @property
    def true_l0(self) -> float:
        """Mean number of features that fire on a token."""
        return float(self.firing.rates.sum())

    @property
    def digest(self) -> str:
        """What determines every row that comes out of it."""
        parts = {
            "name": self.name,
            "features": _checksum(self.features),
            "bias": _checksum(self.bias),
            "magnitudes": _checksum(self.magnitudes),
            "spread": self.spread,
            "rates": [float(rate) for rate in self.firing.rates],
        }
        return fingerprint(parts)

    def coherence(self) -> Measured:
        """ρ: the planted dictionary's own mean max |cos|, over its features."""
        return Measured(value=float(max_cosines(self.features).mean()), n=self.n_features)

    def batch(self, number: int, *, tokens: int = BATCH_TOKENS, stream: int = 0) -> PlantedBatch:
        """Batch `number` of a stream; streams are independent of one another, and a batch is a
        function of world, stream, number and size alone."""
        rng = np.random.default_rng((self.seed, 0xAC7, stream, number))
        fires = self.firing.draw(tokens, rng)
        rows, columns = np.nonzero(fires)
        noise = rng.standard_normal(len(rows), dtype=np.float32)
        relative = np.maximum(1 + self.spread * noise, _SMALLEST_AMOUNT)
        index = torch.from_numpy(columns.astype(np.int64))
        counts = torch.from_numpy(fires.sum(axis=1).astype(np.int64))
        amounts = SparseLatents(
            indices=index,
            values=torch.from_numpy(relative.astype(np.float32)) * self.magnitudes[index],
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            d_sae=self.n_features,
        )
        return PlantedBatch(x=sparse_decode(amounts, self.features) + self.bias, amounts=amounts)

    def batches(
        self, tokens: int, *, stream: int = 0, batch: int = BATCH_TOKENS
    ) -> Iterator[PlantedBatch]:
        """`tokens` tokens of a stream, `batch` at a time, the last batch cut short."""
        for number in range(-(-tokens // batch)):
            left = min(batch, tokens - number * batch)
            yield self.batch(number, tokens=left, stream=stream)


def _checksum(tensor: Tensor) -> str:
    return fingerprint(tensor.double().flatten().tolist())
