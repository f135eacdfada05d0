"""AuxK on a mesh: the dead latents of all ranks explain what the living ones leave over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.training.auxk import AuxGradients
from auditkit.training.distributed.mesh import Mesh
from auditkit.training.distributed.sums import among_largest, spread_over_data
from auditkit.training.parameters import SaeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedAux:
    """Gradients for the dead latents here (None where nothing is to be done anywhere), the
    unweighted loss over the whole batch, and how many latents are dead over all ranks."""

    gradients: AuxGradients | None
    loss: float | None
    dead: int


def distributed_auxk(
    parameters: SaeParameters,
    pre_acts: Float[Tensor, "batch rows"],
    centred: Float[Tensor, "batch d_in"],
    error: Float[Tensor, "batch d_in"],
    is_dead: Bool[Tensor, " rows"],
    *,
    mesh: Mesh,
    k_aux: int,
    aux_coefficient: float,
) -> DistributedAux:
    """What `auxk_gradients` gives in one process, for the latents and tokens of this rank.

    Per token the `k_aux` largest pre-activations among the dead latents of all ranks take part.
    Every rank calls it, whether it has dead latents or not.
    """
    latents = is_dead.nonzero().squeeze(1)
    dead = int(mesh.sum_over_latents(torch.tensor([len(latents)])))
    if not (dead and k_aux and aux_coefficient):
        return DistributedAux(gradients=None, loss=None, dead=dead)
    W_dec = parameters.W_dec[latents]
    z = pre_acts.index_select(1, latents)
    if dead > k_aux:
        z = _largest(z, k_aux, mesh)
    z.relu_()
    missing = error - mesh.sum_over_latents(z @ W_dec)
    spread = max(spread_over_data(error, mesh), torch.finfo(error.dtype).tiny)
    left = missing.square().sum(dtype=torch.float64)
    loss = float(mesh.sum_over_data(left)) / spread
    grad_out = missing.mul_(-2.0 * aux_coefficient / spread)
    grad_z = (grad_out @ W_dec.T).mul_(z > 0)
    gradients = AuxGradients(
        latents=latents,
        W_enc_rows=grad_z.T @ centred,
        W_dec=z.T @ grad_out,
        b_enc=grad_z.sum(0),
        loss=loss,
    )
    return DistributedAux(gradients=gradients, loss=loss, dead=dead)


def _largest(z: Float[Tensor, "batch dead"], k_aux: int, mesh: Mesh) -> Float[Tensor, "batch dead"]:
    """`z` where it is among the k_aux largest of the row's dead latents, 0 elsewhere."""
    here = min(k_aux, z.shape[1])
    values, indices = z.topk(here, dim=1, sorted=False)
    # Ranks differ in how many of their latents are dead, and a gather wants equal shapes.
    padded = z.new_full((len(z), k_aux), -torch.inf)
    padded[:, :here] = values
    own = among_largest(padded, k_aux, mesh)
    kept = padded.masked_fill(own.logical_not(), 0.0)[:, :here]
    return torch.zeros_like(z).scatter_(1, indices, kept)
