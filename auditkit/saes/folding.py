"""Scales folded into the weights, so that an SAE gives the same results with fewer steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.saes.config import ArchitectureName, Normalisation
from auditkit.saes.sparse_autoencoder import SparseAutoencoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """z = (x − mean) @ matrix and back x = z @ inverse + mean (arXiv 2511.13981)."""

    mean: Float[Tensor, " d_in"]
    matrix: Float[Tensor, "d_in d_in"]
    inverse: Float[Tensor, "d_in d_in"]


def fold_decoder_norm(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The same reconstructions with decoder rows of norm 1: latents are multiplied by the norms.

    A topk SAE with `rescale_acts_by_decoder_norm` keeps its latents and loses the flag; one without
    it raises InvalidInput, because its selection would change. Rows of norm 0 stay 0.
    """
    config, norms = sae.config, sae.decoder_norms
    topk = config.architecture is ArchitectureName.TOPK
    if topk and not config.rescale_acts_by_decoder_norm:
        raise InvalidInput(
            f"SAE {config.name}: the decoder's norms cannot be folded into a topk SAE "
            "without rescale_acts_by_decoder_norm: other latents would be selected"
        )
    tensors = dict(sae.tensors)
    tensors["W_dec"] = sae.W_dec / norms[:, None]
    tensors["W_enc"] = sae.W_enc * norms
    for name in ("b_enc", "threshold", "b_gate", "b_mag"):
        if name in tensors:
            tensors[name] = tensors[name] * norms
    config = replace(config, rescale_acts_by_decoder_norm=False)
    return SparseAutoencoder(config, tensors, notes=sae.notes)


def fold_activation_scale(sae: SparseAutoencoder, factor: float) -> SparseAutoencoder:
    """The SAE on raw activations, of one that was trained on activations times `factor`.

    This ends `normalize_activations: expected_average_only_in`, whose factor is
    √d_in / mean ‖x‖. Raises InvalidInput unless the factor is positive.
    """
    if not factor > 0:
        raise InvalidInput(f"SAE {sae.config.name}: the activations' factor {factor} must be > 0")
    if sae.config.rescale_acts_by_decoder_norm:
        sae = fold_decoder_norm(sae)
    tensors = dict(sae.tensors)
    tensors["W_enc"] = sae.W_enc * factor
    tensors["W_dec"] = sae.W_dec / factor
    tensors["b_dec"] = sae.b_dec / factor
    config = replace(sae.config, normalize_activations=Normalisation.NONE)
    return SparseAutoencoder(config, tensors, notes=sae.notes)


def fold_whitening(sae: SparseAutoencoder, whitening: Whitening) -> SparseAutoencoder:
    """The SAE on raw activations, of one that was trained on whitened ones.

    The latents of x are those of (x − mean) @ matrix; computed in float64.
    """
    if sae.config.rescale_acts_by_decoder_norm:
        sae = fold_decoder_norm(sae)
    mean, matrix, inverse = (
        t.to(torch.float64) for t in (whitening.mean, whitening.matrix, whitening.inverse)
    )
    tensors = {name: t.to(torch.float64) for name, t in sae.tensors.items()}
    tensors["W_enc"] = matrix @ tensors["W_enc"]
    tensors["W_dec"] = tensors["W_dec"] @ inverse
    tensors["b_dec"] = tensors["b_dec"] @ inverse + mean
    if not sae.config.apply_b_dec_to_input:
        shift = mean @ tensors["W_enc"]
        for name in ("b_enc", "b_gate"):
            if name in tensors:
                tensors[name] = tensors[name] - shift
        if "b_mag" in tensors:
            tensors["b_mag"] = tensors["b_mag"] - shift * tensors["r_mag"].exp()
    config = replace(sae.config, normalize_activations=Normalisation.NONE)
    return SparseAutoencoder(config, tensors, notes=sae.notes)


def fold_pre_bias(sae: SparseAutoencoder, *, applied: bool) -> SparseAutoencoder:
    """The same latents with b_dec subtracted from the input (`applied`) or not.

    The encoder's biases take over what b_dec did, (x − b_dec) W_enc = x W_enc − b_dec W_enc;
    computed in float64.
    """
    if sae.config.apply_b_dec_to_input == applied:
        return sae
    sign = 1.0 if applied else -1.0
    shift = sign * (sae.b_dec.double() @ sae.W_enc.double())
    tensors: dict[str, Tensor] = dict(sae.tensors)
    for name in ("b_enc", "b_gate"):
        if name in tensors:
            tensors[name] = tensors[name].double() + shift
    if "b_mag" in tensors:
        tensors["b_mag"] = tensors["b_mag"].double() + shift * tensors["r_mag"].double().exp()
    config = replace(sae.config, apply_b_dec_to_input=applied)
    return SparseAutoencoder(config, tensors, notes=sae.notes)
