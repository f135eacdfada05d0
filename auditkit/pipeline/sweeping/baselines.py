"""What a sweep's SAEs have to beat: PCA and a random dictionary at the same number of terms.

Both are made as SAEs, so that explained variance and ΔCE are measured on them by the same code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.hook_point import HookPoint
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from auditkit.tensors import SparseLatents

_CHUNK = 512


def principal_components(
    x: Float[Tensor, "token d_in"], k: int, hook_point: HookPoint
) -> SparseAutoencoder:
    """PCA's reconstruction with its k leading components, fitted on x itself, which favours it.

    A component v and its negative are two ReLU latents, of which one is active: the sum of both is
    the projection x·v, whatever its sign, and L0 is k.
    """
    mean = x.mean(0)
    centred = (x - mean).double()
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -k:].T.float()
    both = torch.cat([vectors, -vectors])
    config = SaeConfig(
        name=f"pca-{k}",
        architecture=ArchitectureName.STANDARD,
        d_in=x.shape[1],
        d_sae=len(both),
        hook_point=hook_point,
    )
    tensors = {
        "W_enc": both.T.contiguous(),
        "W_dec": both,
        "b_enc": torch.zeros(len(both)),
        "b_dec": mean,
    }
    return SparseAutoencoder(config, tensors)


class RandomDictionary(SparseAutoencoder):
    """`d_sae` random unit rows; a token takes the k of largest projection, with the coefficients
    that reconstruct it best (least squares), which is the most that this choice of rows can do."""

    @classmethod
    def draw(
        cls, x: Float[Tensor, "token d_in"], k: int, *, d_sae: int, hook_point: HookPoint, seed: int
    ) -> RandomDictionary:
        """A dictionary around the mean of `x`."""
        generator = torch.Generator().manual_seed(seed)
        rows = normalize(torch.randn(d_sae, x.shape[1], generator=generator), dim=1)
        config = SaeConfig(
            name=f"random-{d_sae}-{k}",
            architecture=ArchitectureName.TOPK,
            d_in=x.shape[1],
            d_sae=d_sae,
            k=k,
            hook_point=hook_point,
        )
        tensors = {
            "W_enc": rows.T.contiguous(),
            "W_dec": rows,
            "b_enc": torch.zeros(d_sae),
            "b_dec": x.mean(0),
        }
        return cls(config, tensors)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> SparseLatents:
        """The chosen rows with their least-squares coefficients, which may be negative."""
        x = self.checked(x)
        parts = [self._fit(chunk - self.b_dec) for chunk in x.split(_CHUNK)] if len(x) else []
        return SparseLatents.concatenate(parts) if parts else SparseLatents.empty(self.config.d_sae)

    def _fit(self, centred: Float[Tensor, "token d_in"]) -> SparseLatents:
        k = self.config.k
        assert k is not None, "draw gives k"
        chosen = (centred @ self.W_enc).topk(k, dim=1).indices
        rows = self.W_dec[chosen]
        gram = rows @ rows.transpose(1, 2)
        # Rows may all but coincide in a small space; the ridge keeps the system solvable.
        gram.diagonal(dim1=1, dim2=2).add_(1e-5)
        values = torch.linalg.solve(gram, (rows @ centred.unsqueeze(2)).squeeze(2))
        return SparseLatents.from_topk(values, chosen, self.config.d_sae)
