"""A sparse autoencoder at inference: activations → sparse latents → reconstruction."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput, NonFiniteActivations
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import SaeIdentity
from auditkit.saes.architectures import ElementWise, architectures
from auditkit.saes.config import SaeConfig
from auditkit.saes.normalisation import TokenAffine, normalise
from auditkit.saes.weights import check_tensors, weights_sha256
from auditkit.tensors import SparseLatents, sparse_decode

MAX_CHUNK = 4096
PRODUCT_BYTES = 64 * 2**20
MIN_NORM = 1e-8


class SparseAutoencoder:
    """An SAE with its weights, computing in float32.

    `tensors` are named as in SAELens (W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_dec [d_in] and
    the architecture's own of [d_sae]). float32 tensors are taken over, not copied: pass clones if
    they go on changing. `notes` are warnings about the source that a user should see. Raises
    WeightsError for tensors that do not fit the configuration or are not finite.
    """

    def __init__(
        self, config: SaeConfig, tensors: Mapping[str, Tensor], *, notes: tuple[str, ...] = ()
    ) -> None:
        check_tensors(config, tensors)
        self.config = config
        self.notes = notes
        self.tensors: dict[str, Tensor] = {
            name: t.detach().to(torch.float32).contiguous() for name, t in tensors.items()
        }
        self._architecture = architectures()[config.architecture]
        self._local = threading.local()

    def with_metadata(self, metadata: Mapping[str, Any]) -> SparseAutoencoder:
        """The same SAE with other metadata; no number changes."""
        return SparseAutoencoder(
            replace(self.config, metadata=metadata), self.tensors, notes=self.notes
        )

    @property
    def hook_point(self) -> HookPoint:
        return self.config.hook_point

    @property
    def W_enc(self) -> Float32[Tensor, "d_in d_sae"]:
        return self.tensors["W_enc"]

    @property
    def W_dec(self) -> Float32[Tensor, "d_sae d_in"]:
        return self.tensors["W_dec"]

    @property
    def b_enc(self) -> Float32[Tensor, " d_sae"]:
        """The encoder's bias; a gated SAE has two others and raises InvalidInput."""
        if "b_enc" not in self.tensors:
            raise InvalidInput(
                f"SAE {self.config.name}: a gated SAE has no b_enc",
                help="its biases are tensors['b_gate'] and tensors['b_mag']",
            )
        return self.tensors["b_enc"]

    @property
    def b_dec(self) -> Float32[Tensor, " d_in"]:
        return self.tensors["b_dec"]

    @cached_property
    def identity(self) -> SaeIdentity:
        """Name, flags and the digest of the float32 weights it computes with."""
        c = self.config
        return SaeIdentity(
            name=c.name,
            weights_sha256=weights_sha256(self.tensors),
            architecture=c.architecture.value,
            hook_point=c.hook_point.name,
            d_in=c.d_in,
            d_sae=c.d_sae,
            dtype="float32",
            k=c.k,
            normalize_activations=c.normalize_activations.value,
            apply_b_dec_to_input=c.apply_b_dec_to_input,
            rescale_acts_by_decoder_norm=c.rescale_acts_by_decoder_norm,
            model_name=c.model_name,
        )

    @cached_property
    def decoder_norms(self) -> Float32[Tensor, " d_sae"]:
        """Norms of the decoder's rows, at least 1e-8."""
        return self.W_dec.norm(dim=1).clamp(min=MIN_NORM)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        """Latents of activations `x` in the model's own units.

        Raises InvalidInput for another width, NonFiniteActivations where x or a latent is NaN or
        infinite.
        """
        x = self.checked(x)
        size = self.chunk_tokens()
        parts = [self._encode_chunk(chunk) for chunk in x.split(size)] if len(x) else []
        if not parts:
            return SparseLatents.empty(self.config.d_sae)
        latents = parts[0] if len(parts) == 1 else SparseLatents.concatenate(parts)
        latents.check_finite()
        return latents

    @torch.no_grad()
    def watched(
        self, x: Float[Tensor, "token d_in"], latents: Int64[Tensor, " n"]
    ) -> Float32[Tensor, "token n"]:
        """Activations of some latents only, cheaper than encode where latents do not compete.

        For topk, where each depends on all others, it goes through encode. The sums of the matrix
        product may be taken in another order than in encode (differences of float32 rounding).
        """
        self._check_latents(latents)
        if not isinstance(self._architecture, ElementWise):
            return self.encode(x).to_dense()[:, latents]
        z = self.encoder_input(self.checked(x))
        tensors = {name: self.tensors[name][latents] for name in self._architecture.per_latent}
        pre_acts = torch.addmm(tensors[self._architecture.bias], z, self.W_enc[:, latents])
        return self._architecture.acts(pre_acts, tensors)

    @torch.no_grad()
    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d_in"] | None = None
    ) -> Float32[Tensor, "token d_in"]:
        """Reconstruction x̂ in the model's own units.

        `x` are the activations that were encoded; needed where each token is normalised by itself
        (constant_norm_rescale, layer_norm): raises InvalidInput if it is missing there.
        """
        if self.config.rescale_acts_by_decoder_norm:
            latents = SparseLatents(
                indices=latents.indices,
                values=latents.values / self.decoder_norms[latents.indices],
                offsets=latents.offsets,
                d_sae=latents.d_sae,
            )
        x_hat = sparse_decode(latents, self.W_dec).add_(self.b_dec)
        affine = self._affine(x)
        return x_hat if affine is None else x_hat.mul_(affine.scale).add_(affine.shift)

    def decoder_directions(self, latents: Int64[Tensor, " n"]) -> Float32[Tensor, "n d_in"]:
        """The change of x, in the model's own units, per unit of each latent.

        Raises InvalidInput where the unit differs from token to token (constant_norm_rescale,
        layer_norm): there it is `normalised_directions(latents)` times `token_scales(x)`.
        """
        if self.config.normalize_activations.per_token:
            raise InvalidInput(
                f"SAE {self.config.name}: under {self.config.normalize_activations.value} "
                "a latent's direction has another length at every token",
                help="multiply normalised_directions(latents) by token_scales(x)",
            )
        return self.normalised_directions(latents)

    def normalised_directions(self, latents: Int64[Tensor, " n"]) -> Float32[Tensor, "n d_in"]:
        """The change of the normalised reconstruction per unit of each latent."""
        self._check_latents(latents)
        directions = self.W_dec[latents]
        if self.config.rescale_acts_by_decoder_norm:
            directions = directions / self.decoder_norms[latents, None]
        return directions

    @torch.no_grad()
    def token_scales(self, x: Float[Tensor, "token d_in"]) -> Float32[Tensor, " token"]:
        """Model units per normalised unit at each token; 1 unless tokens are normalised."""
        affine = self._affine(x)
        return torch.ones(len(x)) if affine is None else affine.scale.squeeze(1)

    def _encode_chunk(self, x: Float32[Tensor, "token d_in"]) -> SparseLatents:
        pre_acts = self.pre_acts(self.encoder_input(x))
        return self._architecture.activate(pre_acts, self.tensors, self.config.k)

    def pre_acts(self, z: Float32[Tensor, "token d_in"]) -> Float32[Tensor, "token d_sae"]:
        """Pre-activations as latents compete or are cut off, of what `encoder_input` gives.

        The memory is this thread's own and is overwritten by its next call.
        """
        out = self._product(len(z))
        torch.addmm(self.tensors[self._architecture.bias], z, self.W_enc, out=out)
        if self.config.rescale_acts_by_decoder_norm:
            out.mul_(self.decoder_norms)
        return out

    def encoder_input(self, x: Float32[Tensor, "token d_in"]) -> Float32[Tensor, "token d_in"]:
        """What the encoder's product is taken of: x normalised, and without b_dec if applied."""
        z, _ = normalise(x, self.config.normalize_activations)
        return z - self.b_dec if self.config.apply_b_dec_to_input else z

    def _affine(self, x: Float[Tensor, "token d_in"] | None) -> TokenAffine | None:
        if not self.config.normalize_activations.per_token:
            return None
        if x is None:
            raise InvalidInput(
                f"SAE {self.config.name}: decoding under "
                f"{self.config.normalize_activations.value} needs each token's own scale",
                help="pass the activations that were encoded: decode(latents, x)",
            )
        return normalise(self.checked(x), self.config.normalize_activations)[1]

    def checked(self, x: Float[Tensor, "token d_in"]) -> Float32[Tensor, "token d_in"]:
        """Activations in float32; raises as `encode` does."""
        if x.shape[1] != self.config.d_in:
            raise InvalidInput(
                f"SAE {self.config.name} reads activations of width {self.config.d_in}, "
                f"and these have {x.shape[1]}",
                help="check_fits(sae, model.identity) says whether SAE and model belong together",
            )
        x = x.detach().to(torch.float32)
        # A sum is finite only if all its terms are; looking at each is needed only if it is not.
        if not bool(torch.isfinite(x.sum(dim=1)).all()):
            bad = int((~torch.isfinite(x)).any(dim=1).sum())
            if bad:
                raise NonFiniteActivations(
                    f"activations at {self.hook_point} are NaN or infinite in {bad} of "
                    f"{len(x)} tokens",
                    help="run the model in float32: float16 overflows on large activations",
                )
        return x

    def _check_latents(self, latents: Int64[Tensor, " n"]) -> None:
        if len(latents) and not 0 <= int(latents.min()) <= int(latents.max()) < self.config.d_sae:
            raise InvalidInput(
                f"SAE {self.config.name} has the latents 0 to {self.config.d_sae - 1}, "
                f"and {int(latents.min())} to {int(latents.max())} are asked for"
            )

    def chunk_tokens(self) -> int:
        """Into how many tokens at a time long batches are cut."""
        return max(16, min(MAX_CHUNK, PRODUCT_BYTES // (4 * self.config.d_sae)))

    def _product(self, tokens: int) -> Float32[Tensor, "token d_sae"]:
        # Fresh memory costs more than the selection itself (page faults), so each thread keeps one.
        buffer: Tensor | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < tokens:
            buffer = torch.empty(tokens, self.config.d_sae)
            self._local.buffer = buffer
        return buffer[:tokens]
