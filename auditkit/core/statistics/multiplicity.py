"""Correction for having asked many questions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_CONTROLS = 2000
"""Controls per target at most: what more of them would show is too small to matter."""


def benjamini_hochberg(p_values: Sequence[float] | NDArray[np.floating]) -> list[float]:
    """q-values in the order given (Benjamini & Hochberg 1995): reject q ≤ α for an FDR of α.

    Raises ValueError for a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64).ravel()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values lie in [0, 1]")
    if p.size == 0:
        return []
    order = np.argsort(p, kind="stable")
    raised = p[order] * p.size / np.arange(1, p.size + 1)
    from_the_top = np.minimum.accumulate(raised[::-1])[::-1]
    q = np.empty_like(p)
    q[order] = np.minimum(from_the_top, 1.0)
    return [float(v) for v in q]


def controls_needed(tests: int, q: float) -> int:
    """Controls per target at which a lone true effect among `tests` tests comes below `q`.

    A rank among K controls gives at best p = 1/(K + 1), and Benjamini–Hochberg multiplies the
    smallest p by `tests`: K > tests/q − 1 (20 tests at 0.05: 400; with 399 it is 0.05 exactly).
    """
    if tests < 1 or not 0 < q < 1:
        raise ValueError(f"needs at least one test and a q in (0, 1), not {tests} and {q}")
    return math.floor(tests / q + 1e-9)
