"""Floors beside an SAE's explained variance: what dictionaries reach that know nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.audits import NamedMeasure
from auditkit.core.measured import Measure, Measured, NotMeasured

_ROWS = 2048


@torch.no_grad()
def floor_measures(
    x: Float[Tensor, "token d_in"], *, k: int, d_sae: int, seed: int = 0
) -> tuple[NamedMeasure, ...]:
    """Centred explained variance at k terms per token: random dictionary, PCA, neuron basis.

    The random dictionary has `d_sae` unit rows; its k rows of largest projection are used, with
    least-squares coefficients, the best that this choice of rows can do. PCA keeps its k leading
    components (fitted on x itself, which favours it); the neuron basis keeps the k coordinates
    furthest from the mean.
    """
    centred = x.float() - x.float().mean(0)
    few = centred[:_ROWS]
    found = {
        f"floor: random dictionary of {d_sae:,}": (_random(few, k, d_sae, seed), few),
        f"floor: PCA, {k} components": (_pca(centred, k), centred),
        f"floor: neuron basis, {k} coordinates": (_neurons(centred, k), centred),
    }
    return tuple(
        NamedMeasure(
            name=f"{name}, explained variance",
            value=Measured(value=1 - error / float(rows.double().square().sum()), n=len(rows)),
            unit="share",
        )
        for name, (error, rows) in found.items()
    )


def measure_pca_floor(x: Float[Tensor, "token d_in"], *, k: int) -> Measure:
    """Centred explained variance of the k leading principal components of x, fitted on x."""
    centred = x.float() - x.float().mean(0)
    spread = float(centred.double().square().sum())
    if spread <= 0:
        return NotMeasured("all activations are equal: there is no variance to explain")
    return Measured(value=1 - _pca(centred, k) / spread, n=len(x))


def _random(x: Tensor, k: int, d_sae: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, x.shape[1], generator=generator), dim=1)
    error = 0.0
    for part in x.split(256):
        chosen = rows[(part @ rows.T).topk(k, dim=1).indices]
        fitted = torch.linalg.lstsq(chosen.transpose(1, 2), part.unsqueeze(2)).solution
        x_hat = (chosen.transpose(1, 2) @ fitted).squeeze(2)
        error += float((part - x_hat).double().square().sum())
    return error


def _pca(x: Tensor, k: int) -> float:
    values = torch.linalg.eigvalsh(x.double().T @ x.double())
    return float(values[:-k].clamp(min=0).sum())


def _neurons(x: Tensor, k: int) -> float:
    kept = x.double().square().topk(k, dim=1).values.sum()
    return float(x.double().square().sum() - kept)
