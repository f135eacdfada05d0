"""What a rank has to know of the whole batch and of all latents, and how it learns it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.training.distributed.mesh import Mesh


def spread_over_data(x: Float[Tensor, "batch d_in"], mesh: Mesh) -> float:
    """Σ‖x − mean x‖² over the whole batch, of which `x` is this rank's share; in float64."""
    exact = x.to(torch.float64)
    if mesh.data == 1:
        return float((exact - exact.mean(0)).square().sum())
    sums = torch.cat([exact.sum(0), exact.square().sum()[None]])
    mesh.sum_over_data(sums)
    return float(sums[-1] - sums[:-1].square().sum() / (len(x) * mesh.data))


def among_largest(
    values: Float[Tensor, "batch candidate"], k: int, mesh: Mesh
) -> Bool[Tensor, "batch candidate"]:
    """Which of this rank's candidates are among the k largest of the row's, token by token."""
    if mesh.latents == 1:
        return torch.ones_like(values, dtype=torch.bool)
    everyone = torch.cat(mesh.gather_latents(values), dim=1)
    chosen = torch.zeros_like(everyone, dtype=torch.bool)
    chosen.scatter_(1, everyone.topk(min(k, everyone.shape[1]), dim=1, sorted=False).indices, True)
    width = values.shape[1]
    return chosen[:, mesh.latent_rank * width : (mesh.latent_rank + 1) * width]
