"""LASSO codes on a given dictionary, along the path to a given number of atoms (scikit-learn)."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory.coherence import unit_rows
from auditkit.tensors import SparseLatents

_SLACK = 1.25


@torch.no_grad()
def lasso_codes(
    x: Float[Tensor, "token d"],
    directions: Float[Tensor, "latent d"],
    k: int,
    *,
    nonnegative: bool = False,
) -> SparseLatents:
    """Per token the LASSO solution of smallest penalty that has at most k atoms.

    Least angle regression follows the whole path of min ½‖x − Dᵀz‖² + λ‖z‖₁ exactly (Efron et al.
    2004), with z ≥ 0 where `nonnegative`; penalties fall until k atoms are active. Coefficients are
    as the penalty shrinks them, for unit atoms: `refit_codes` undoes that. A path that needs more
    than 1.25 k steps (atoms may leave it) is cut there. Raises InvalidInput unless 1 ≤ k ≤ latent.
    """
    units = unit_rows(directions.double())
    if not 1 <= k <= len(units):
        raise InvalidInput(f"k is {k}, expected 1 to {len(units)}, the number of atoms")
    design = np.asfortranarray(units.numpy().T)
    codes = np.zeros((len(x), len(units)), dtype=np.float32)
    for token, row in enumerate(x.double().numpy()):
        codes[token] = _follow(design, row, k, nonnegative)
    return SparseLatents.from_dense(torch.from_numpy(codes))


def _follow(design: np.ndarray, row: np.ndarray, k: int, nonnegative: bool) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path

    if not row.any():
        return np.zeros(design.shape[1])
    with warnings.catch_warnings():
        # Where two atoms all but coincide, a path ends early; what it reached is a solution.
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = lars_path(
            design,
            row,
            method="lasso",
            positive=nonnegative,
            max_iter=int(np.ceil(_SLACK * k)) + 1,
            Gram=None,
        )[2]
    counts = np.count_nonzero(path, axis=0)
    # Each point has less error than the one before it.
    return path[:, int(np.flatnonzero(counts <= k)[-1])]
