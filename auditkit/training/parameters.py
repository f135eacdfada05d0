"""The tensors that training changes, one row per latent so that a latent's update is local."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

_COMMON = ("W_enc_rows", "W_dec", "b_enc", "b_dec")


def _none() -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SaeParameters:
    """Weights in scaled units. `W_enc_rows` is W_enc transposed: a row per latent, like W_dec.

    `own` are the tensors of shape [d_sae] that one objective has beside these (a threshold). For
    an autoencoder d_out is d_in, and b_dec is also what is subtracted before the encoder.
    """

    W_enc_rows: Float[Tensor, "d_sae d_in"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_out"]
    own: Mapping[str, Tensor] = field(default_factory=_none)

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        return self.W_enc_rows.shape[1]

    def zeros_like(self) -> SaeParameters:
        """Zeros of the same shapes: gradients or Adam moments."""
        return self.from_named({name: torch.zeros_like(t) for name, t in self.named().items()})

    def named(self) -> dict[str, Tensor]:
        """Name → tensor, the tensors themselves."""
        return {**{name: getattr(self, name) for name in _COMMON}, **self.own}

    @classmethod
    def from_named(cls, named: Mapping[str, Tensor]) -> SaeParameters:
        """What `named` gives, put together again."""
        own = {name: tensor for name, tensor in named.items() if name not in _COMMON}
        return cls(**{name: named[name] for name in _COMMON}, own=own)


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Everything that a step reads and writes, and so everything that a checkpoint holds.

    `silent_tokens` counts, per latent, the tokens since it was last active; `scale` is what
    activations are multiplied with before they come here, `target_scale` the same of a
    transcoder's targets. `buffers` are tensors that are kept without being trained: an objective's
    own, and `b_in`, the constant that a transcoder subtracts from its inputs.
    """

    parameters: SaeParameters
    first_moments: SaeParameters
    second_moments: SaeParameters
    silent_tokens: Int[Tensor, " d_sae"]
    scale: float
    step: int = 0
    target_scale: float | None = None
    buffers: dict[str, Tensor] = field(default_factory=_none)

    @property
    def unit(self) -> float:
        """What is reconstructed is in scaled units this many times what it is in its own."""
        return self.scale if self.target_scale is None else self.target_scale

    def centre(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        """What the encoder reads: x − b_dec, or x less a constant where b_dec is the target's."""
        return x - self.buffers.get("b_in", self.parameters.b_dec)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one step saw, before its update, in float64.

    `squared_error` Σ‖x−x̂‖² and `squared_deviation` Σ‖x−mean x‖² over the batch (scaled units; x is
    the target); `active` is the number of active (token, latent) pairs; `aux_loss` is
    Σ‖e−ê‖²/Σ‖e−mean e‖², None where no latent was dead; `penalty` is what the objective added to
    the loss for sparsity, weighted.
    """

    squared_error: float
    squared_deviation: float
    active: int
    dead: int
    aux_loss: float | None
    penalty: float = 0.0

    @property
    def explained_variance(self) -> float:
        return 1.0 - self.squared_error / self.squared_deviation
