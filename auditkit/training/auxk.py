"""AuxK: latents that fell silent explain what the living ones leave over, and so come back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditkit.training.parameters import SaeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxGradients:
    """Gradients of α·Σ‖e−ê‖²/Σ‖e−mean e‖² for the dead latents alone, and the unweighted loss."""

    latents: Int[Tensor, " dead"]
    W_enc_rows: Float[Tensor, "dead d_in"]
    W_dec: Float[Tensor, "dead d_out"]
    b_enc: Float[Tensor, " dead"]
    loss: float


def auxk_gradients(
    parameters: SaeParameters,
    pre_acts: Float[Tensor, "batch d_sae"],
    centred: Float[Tensor, "batch d_in"],
    error: Float[Tensor, "batch d_out"],
    latents: Int[Tensor, " dead"],
    *,
    k_aux: int,
    aux_coefficient: float,
) -> AuxGradients:
    """Gradients through the `k_aux` largest pre-activations per token among the dead `latents`.

    `pre_acts` include b_enc; `centred` is x − b_dec; `error` is e = x − x̂, a constant here
    (Gao et al. 2024, A.2). Dense over the dead columns: they are few, and with k_aux of them per
    token there is little sparsity left to use.
    """
    W_dec = parameters.W_dec[latents]
    z = pre_acts.index_select(1, latents)
    if z.shape[1] > k_aux:
        values, indices = z.topk(k_aux, dim=1, sorted=False)
        z = torch.zeros_like(z).scatter_(1, indices, values)
    z.relu_()
    missing = torch.addmm(error, z, W_dec, alpha=-1.0)
    spread = (error - error.mean(0)).square().sum().clamp_min(torch.finfo(error.dtype).tiny)
    loss = missing.square().sum() / spread
    grad_out = missing.mul_(-2.0 * aux_coefficient / float(spread))
    grad_z = (grad_out @ W_dec.T).mul_(z > 0)
    return AuxGradients(
        latents=latents,
        W_enc_rows=grad_z.T @ centred,
        W_dec=z.T @ grad_out,
        b_enc=grad_z.sum(0),
        loss=float(loss),
    )
