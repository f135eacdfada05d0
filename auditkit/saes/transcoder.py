"""A transcoder: activations at one hook point → sparse latents → activations at another.

Dunefsky et al. 2024, "Transcoders Find Interpretable LLM Feature Circuits". It is no autoencoder:
its decoder writes elsewhere than its encoder reads, and what it reconstructs is not its input. So
it is a class of its own, which nothing that expects a `SparseAutoencoder` takes by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from auditkit.core.errors import InvalidInput, WeightsError
from auditkit.core.hook_point import HookPoint
from auditkit.saes.architectures import JumpRelu, Relu
from auditkit.tensors import SparseLatents, sparse_decode

_CHUNK = 2048


class TranscoderName(StrEnum):
    """Architectures under SAELens' names: ReLU, and JumpReLU (which BatchTopK is at inference)."""

    RELU = "transcoder"
    JUMPRELU = "jumprelu_transcoder"


def _no_metadata() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderConfig:
    """A transcoder's configuration: it reads at `hook_point` and writes what is to be at
    `hook_point_out`. `metadata` as in `SaeConfig`."""

    name: str
    architecture: TranscoderName
    d_in: int
    d_out: int
    d_sae: int
    hook_point: HookPoint
    hook_point_out: HookPoint
    model_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=_no_metadata)

    def activation(self) -> Relu | JumpRelu:
        """How pre-activations become latents."""
        return JumpRelu() if self.architecture is TranscoderName.JUMPRELU else Relu()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all tensors."""
        return {
            "W_enc": (self.d_in, self.d_sae),
            "W_dec": (self.d_sae, self.d_out),
            "b_dec": (self.d_out,),
            **dict.fromkeys(self.activation().per_latent, (self.d_sae,)),
        }


class Transcoder:
    """A transcoder with its weights, computing in float32.

    `tensors` are W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_out], b_dec [d_out] and for JumpReLU
    threshold [d_sae]. Raises WeightsError for tensors that do not fit or are not finite.
    """

    def __init__(self, config: TranscoderConfig, tensors: Mapping[str, Tensor]) -> None:
        shapes = config.shapes()
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != shapes:
            raise WeightsError(
                f"transcoder {config.name}: tensors {_list(found)}, expected {_list(shapes)}",
                help="d_in, d_out and d_sae in cfg.json must be those of the weights",
            )
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise WeightsError(
                    f"transcoder {config.name}: {name} holds NaN or infinity",
                    help="the training run diverged or the file is damaged",
                )
        self.config = config
        self.tensors = {n: t.detach().to(torch.float32).contiguous() for n, t in tensors.items()}

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        """Latents of activations at `hook_point`, in the model's own units.

        Raises InvalidInput for another width, NonFiniteActivations where a latent is NaN.
        """
        if x.shape[1] != self.config.d_in:
            raise InvalidInput(
                f"transcoder {self.config.name} reads activations of width {self.config.d_in}, "
                f"and these have {x.shape[1]}",
                help="give it activations of the hook point that it was trained on",
            )
        activation, t = self.config.activation(), self.tensors
        parts = [
            activation.activate(torch.addmm(t["b_enc"], part.float(), t["W_enc"]), t, None)
            for part in x.split(_CHUNK)
        ]
        if not len(x):
            return SparseLatents.empty(self.config.d_sae)
        latents = SparseLatents.concatenate(parts)
        latents.check_finite()
        return latents

    @torch.no_grad()
    def decode(self, latents: SparseLatents) -> Float32[Tensor, "token d_out"]:
        """What is predicted at `hook_point_out`."""
        return sparse_decode(latents, self.tensors["W_dec"]).add_(self.tensors["b_dec"])


def _list(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
