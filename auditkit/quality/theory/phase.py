"""The phase change of superposition, in theory: what becomes of one extra feature.

n features, of importance 1 but for the extra one's r, share n − 1 hidden dimensions (2 in 1, or 3
in 2). Each fires with probability p, uniform on [0, 1] if so. Three things can become of the extra
feature, and the theory of Elhage et al. 2022 compares the losses of the weights that embody them:

- not represented: its best constant output is E x = p/2, so r·V with V = Var x = p/3 − p²/4;
- a dimension of its own: somebody else pays. In 2 → 1 the other feature is dropped: V. In 3 → 2 the
  other two share one dimension as an antipodal pair, or one of them is dropped;
- superposition: it shares a dimension with another, antipodally. ReLU(x_i − x_j) errs only where
  both fire, and then by min(x_i, x_j), in either output: (1 + r) p² E min² = (1 + r) p²/6.

Three features in two dimensions could also form a triangle (cosines −1/2). Feature i errs by
min(x_i, x_j/2) beside one other, E min² = 1/16, and by min(x_i, (x_j + x_k)/2) beside both,
E min² = 1/6: each costs p²(1 − p)/8 + p³/6. That exceeds 3/4 of the antipodal p²/6 and falls on
three features instead of two, so the triangle never wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput


class Outcome(StrEnum):
    """What became of the extra feature."""

    NOT_REPRESENTED = "not represented"
    DEDICATED = "dedicated dimension"
    SUPERPOSITION = "superposition"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Weights that embody an outcome, and their loss; the extra feature is the last."""

    name: str
    outcome: Outcome
    loss: float
    W: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


def feature_variance(p: float) -> float:
    """V = p/3 − p²/4: the loss of a feature that is not represented, per unit of importance."""
    return p / 3 - p**2 / 4


def antipodal_loss(p: float) -> float:
    """p²/6: what each member of an antipodal pair loses, per unit of importance."""
    return p**2 / 6


def triangle_loss(p: float) -> float:
    """p²(1 − p)/8 + p³/6: what each corner of a triangle loses, per unit of importance."""
    return p**2 * (1 - p) / 8 + p**3 / 6


def candidates(hidden: int, p: float, r: float) -> tuple[Candidate, ...]:
    """The candidate weights for hidden + 1 features in `hidden` (1 or 2) dimensions.

    `p` is the features' density 1 − S, `r` the extra feature's relative importance.
    """
    if hidden not in (1, 2):
        raise InvalidInput(f"{hidden} hidden dimensions, expected 1 or 2")
    if not (0 < p <= 1 and r > 0):
        raise InvalidInput(f"density {p} and importance {r}, expected 0 < p ≤ 1 and r > 0")
    dropped, paired, half = feature_variance(p), antipodal_loss(p), p / 2
    if hidden == 1:
        return (
            _candidate("ignored", Outcome.NOT_REPRESENTED, r * dropped, ((1,), (0,)), (0, half)),
            _candidate("takes over", Outcome.DEDICATED, dropped, ((0,), (1,)), (half, 0)),
            _candidate("antipodal", Outcome.SUPERPOSITION, (1 + r) * paired, ((1,), (-1,)), (0, 0)),
        )
    none = (0, 0, 0)
    corner = math.sqrt(3) / 2
    return (
        _candidate(
            "ignored",
            Outcome.NOT_REPRESENTED,
            r * dropped,
            ((1, 0), (0, 1), (0, 0)),
            (0, 0, half),
        ),
        _candidate(
            "takes over", Outcome.DEDICATED, dropped, ((1, 0), (0, 0), (0, 1)), (0, half, 0)
        ),
        _candidate("others paired", Outcome.DEDICATED, 2 * paired, ((1, 0), (-1, 0), (0, 1)), none),
        _candidate(
            "antipodal", Outcome.SUPERPOSITION, (1 + r) * paired, ((1, 0), (0, 1), (0, -1)), none
        ),
        _candidate(
            "triangle",
            Outcome.SUPERPOSITION,
            (2 + r) * triangle_loss(p),
            ((1, 0), (-0.5, corner), (-0.5, -corner)),
            none,
        ),
    )


def best_candidate(hidden: int, p: float, r: float) -> Candidate:
    """The candidate of least loss: what the theory predicts."""
    return min(candidates(hidden, p, r), key=lambda c: c.loss)


def superposition_threshold(r: float) -> float:
    """2 → 1: the density below which an antipodal pair beats dropping the lesser feature.

    (1 + r) p²/6 < min(1, r)(p/3 − p²/4), that is p < 4s/(2 + 2r + 3s) with s = min(1, r); at r = 1
    it is 4/7. Never above 1.
    """
    lesser = min(1.0, r)
    return min(1.0, 4 * lesser / (2 * (1 + r) + 3 * lesser))


def outcome_of(W: Float[Tensor, "feature hidden"]) -> Outcome:
    """What became of the last feature in trained weights.

    Not represented below half of a whole direction (‖W_e‖² < 1/2, which is its diagonal entry of
    WᵀW); else in superposition where others overlap with it by Σ_j (Ŵ_e·W_j)² > 1/4.
    """
    extra = W[-1]
    square = float(extra.square().sum())
    if square < 0.5:
        return Outcome.NOT_REPRESENTED
    overlap = float((W[:-1] @ extra).square().sum()) / square
    return Outcome.SUPERPOSITION if overlap > 0.25 else Outcome.DEDICATED


def _candidate(
    name: str,
    outcome: Outcome,
    loss: float,
    W: tuple[tuple[float | int, ...], ...],
    b: tuple[float | int, ...],
) -> Candidate:
    return Candidate(
        name=name,
        outcome=outcome,
        loss=loss,
        W=tuple(tuple(float(w) for w in row) for row in W),
        b=tuple(float(v) for v in b),
    )
