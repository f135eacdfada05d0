"""Do two SAEs of the same activations find the same latents? Matched one to one, floors beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.saes import SparseAutoencoder

SHARED_ABOVE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDirections:
    """The two directions of each of some latents, of any length but zero."""

    encoder: Float[Tensor, "latent d_in"]
    decoder: Float[Tensor, "latent d_in"]

    def __post_init__(self) -> None:
        for name, rows in (("encoder", self.encoder), ("decoder", self.decoder)):
            lengths = rows.norm(dim=1)
            if not bool(torch.isfinite(lengths).all() & (lengths > 0).all()):
                raise InvalidInput(
                    f"an {name} direction is zero or not finite",
                    help="leave out latents that never fire",
                )

    @classmethod
    def of(cls, sae: SparseAutoencoder, live: Bool[Tensor, " d_sae"]) -> LatentDirections:
        """The directions of an SAE's latents for which `live` is true."""
        return cls(encoder=sae.W_enc.T[live].contiguous(), decoder=sae.W_dec[live])

    @classmethod
    def random(cls, n: int, d_in: int, *, seed: int) -> LatentDirections:
        """`n` directions uniform on the sphere, encoder and decoder alike, as training starts."""
        # torch's generator of the same seed would give the very rows that an SAE starts from.
        rows = torch.from_numpy(np.random.default_rng((seed, 0xF1008)).standard_normal((n, d_in)))
        return cls(encoder=rows.float(), decoder=rows.float())

    def __len__(self) -> int:
        return len(self.decoder)

    @property
    def d_in(self) -> int:
        return self.decoder.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondence:
    """What became of the latents of the smaller dictionary, each given a counterpart.

    `shared` is the share of pairs whose encoder cosine and decoder cosine both exceed the
    threshold; the two means are over all pairs. n is the number of pairs.
    """

    shared: Measure
    encoder_cosine: Measure
    decoder_cosine: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedStability:
    """Correspondence of two dictionaries, and two readings to hold it against.

    `matched` pairs one to one; `greedy` gives every latent its best counterpart, which several
    may share, and so flatters; `floor` matches one to one with random directions, as many as the
    other dictionary has.
    """

    matched: Correspondence
    greedy: Correspondence
    floor: Correspondence
    threshold: float


@torch.no_grad()
def measure_stability(
    one: LatentDirections,
    other: LatentDirections,
    *,
    threshold: float = SHARED_ABOVE,
    seed: int = 0,
) -> SeedStability:
    """Match the latents of two SAEs of one hook point, after Paulo & Belrose 2025 ("Sparse
    Autoencoders Trained on the Same Data Learn Different Features").

    The assignment (Kuhn 1955) maximises Σ (encoder cosine + decoder cosine), cosines signed, over
    one-to-one pairs; with dictionaries of different size the larger one's surplus stays without a
    partner. Symmetric in its arguments. Time grows with the cube of the number of latents: about
    a minute at 6,000. Raises MismatchError for directions of different widths.
    """
    if one.d_in != other.d_in:
        raise MismatchError(
            f"directions are {one.d_in} and {other.d_in} wide",
            help="compare SAEs of the same hook point of the same model",
        )
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    if not len(small):
        none = NotMeasured("a dictionary without live latents")
        nothing = Correspondence(shared=none, encoder_cosine=none, decoder_cosine=none)
        return SeedStability(matched=nothing, greedy=nothing, floor=nothing, threshold=threshold)
    pairs = _Cosines.between(small, large)
    random = _Cosines.between(small, LatentDirections.random(len(large), small.d_in, seed=seed))
    return SeedStability(
        matched=pairs.correspondence(pairs.assigned(), threshold),
        greedy=pairs.correspondence(pairs.best(), threshold),
        floor=random.correspondence(random.assigned(), threshold),
        threshold=threshold,
    )


@dataclass(frozen=True, slots=True)
class _Cosines:
    encoder: Tensor
    decoder: Tensor

    @classmethod
    def between(cls, small: LatentDirections, large: LatentDirections) -> _Cosines:
        return cls(
            normalize(small.encoder.float()) @ normalize(large.encoder.float()).T,
            normalize(small.decoder.float()) @ normalize(large.decoder.float()).T,
        )

    def assigned(self) -> Tensor:
        """Each row's column in the best one-to-one assignment."""
        # Rows never outnumber columns here, so every row is assigned and rows come in order.
        _, columns = linear_sum_assignment((self.encoder + self.decoder).numpy(), maximize=True)
        return torch.from_numpy(np.asarray(columns, dtype=np.int64))

    def best(self) -> Tensor:
        """Each row's best column."""
        return (self.encoder + self.decoder).argmax(dim=1)

    def correspondence(self, columns: Tensor, threshold: float) -> Correspondence:
        rows = torch.arange(len(columns))
        encoder = self.encoder[rows, columns].double()
        decoder = self.decoder[rows, columns].double()
        shared = (encoder > threshold) & (decoder > threshold)
        n = len(columns)
        return Correspondence(
            shared=Measured(value=float(shared.double().mean()), n=n),
            encoder_cosine=Measured(value=float(encoder.mean()), n=n),
            decoder_cosine=Measured(value=float(decoder.mean()), n=n),
        )
