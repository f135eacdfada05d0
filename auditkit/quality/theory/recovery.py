"""When a dictionary's sparse codes can be recovered: restricted isometry and exact recovery.

δ_k is the least δ with (1 − δ)‖z‖² ≤ ‖D z‖² ≤ (1 + δ)‖z‖² for every k-sparse z: the largest
|eigenvalue − 1| of the Gram matrix of any k atoms. To compute it is NP-hard, so it is bracketed:
from above by Gershgorin's discs, whose radius is at most μ₁(k − 1) ≤ (k − 1)μ; from below by sets
of k atoms that were tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured
from auditkit.quality.theory.coherence import babel, unit_rows

CANDES_LIMIT = math.sqrt(2) - 1
"""δ_2k below it: ℓ₁ minimisation recovers every k-sparse code (Candès 2008, Theorem 1.2)."""


_GREEDY = 16


class Verdict(StrEnum):
    """Whether a condition holds of a dictionary, as far as the bracket tells."""

    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class IsometryBracket:
    """lower ≤ δ_k ≤ babel ≤ gershgorin; `lower.n` is how many sets of atoms were tried.

    `random` is the lower bound that sets drawn at random alone gave.
    """

    k: int
    lower: Measured
    random: float
    babel: float
    gershgorin: float

    def below(self, limit: float) -> Verdict:
        """Is δ_k < limit?"""
        if self.babel < limit:
            return Verdict.HOLDS
        return Verdict.FAILS if self.lower.value >= limit else Verdict.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryGuarantees:
    """What is guaranteed of k-sparse codes of a dictionary of coherence μ.

    `tropp_limit` = 1/(2k − 1): below it orthogonal matching pursuit and basis pursuit recover every
    k-sparse code (Tropp 2004, Corollary 3.6). `babel_sum` = μ₁(k − 1) + μ₁(k) < 1 suffices as well
    and asks less. `largest_k` is the largest k that μ < 1/(2k − 1) admits; None for μ = 0, which
    admits any. `candes` says whether δ_2k < √2 − 1, from the bracket `isometry_2k`.
    """

    k: int
    coherence: float
    tropp_limit: float
    tropp: Verdict
    babel_sum: float
    largest_k: int | None
    isometry_2k: IsometryBracket
    candes: Verdict


@torch.no_grad()
def bracket_isometry(
    directions: Float[Tensor, "m d"],
    k: int,
    *,
    sets: int = 500,
    greedy: int = _GREEDY,
    seed: int = 0,
) -> IsometryBracket:
    """Bracket δ_k: `sets` random sets of k atoms, and 2·`greedy` sets grown to be bad.

    A grown set starts at an atom and its most coherent partner, and takes the atom that the extreme
    eigenvector of its Gram matrix leans on most. Raises InvalidInput unless 1 ≤ k ≤ m.
    """
    units = unit_rows(directions)
    m = len(units)
    if not 1 <= k <= m:
        raise InvalidInput(f"k is {k}, expected 1 to {m}, the number of directions")
    overlaps = babel(directions, k - 1) if k > 1 else torch.zeros(1, dtype=torch.float64)
    return _bracket(units, overlaps, k, sets=sets, greedy=greedy, seed=seed)


def _bracket(
    units: Tensor, overlaps: Tensor, k: int, *, sets: int, greedy: int, seed: int
) -> IsometryBracket:
    m = len(units)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(m, generator=generator)[:k] for _ in range(sets)])
    random = max(isometry_of(units, part) for part in drawn.split(64))
    grown = grow_bad_sets(units, k, starts=min(greedy, m), generator=generator)
    lower = max(random, isometry_of(units, grown))
    upper, coherence = float(overlaps[-1]), float(overlaps[0])
    # Rounding must not put the bracket's ends out of order where they meet.
    return IsometryBracket(
        k=k,
        lower=Measured(value=min(lower, upper), n=sets + len(grown)),
        random=min(random, upper),
        babel=upper,
        gershgorin=max(upper, (k - 1) * coherence),
    )


def isometry_of(units: Float[Tensor, "m d"], sets: Int64[Tensor, "set k"]) -> float:
    """Largest |eigenvalue − 1| of the Gram matrices of some sets of unit atoms."""
    atoms = units[sets].double()
    eigenvalues = torch.linalg.eigvalsh(atoms @ atoms.transpose(1, 2))
    return float((eigenvalues - 1).abs().max())


def grow_bad_sets(
    units: Float[Tensor, "m d"], k: int, *, starts: int, generator: torch.Generator
) -> Int64[Tensor, "set k"]:
    """From each of `starts` random atoms, one set for the largest eigenvalue, one for the least."""
    first = torch.randperm(len(units), generator=generator)[:starts]
    return torch.stack([_grow(units, int(atom), k, end) for atom in first for end in (-1, 0)])


def _grow(units: Tensor, atom: int, k: int, end: int) -> Tensor:
    chosen = [atom]
    rows = [units @ units[atom]]
    while len(chosen) < k:
        cosines = torch.stack(rows)
        vector = torch.linalg.eigh(cosines[:, chosen]).eigenvectors[:, end]
        leaning = (vector @ cosines).abs()
        leaning[chosen] = -1.0
        chosen.append(int(leaning.argmax()))
        rows.append(units @ units[chosen[-1]])
    return torch.tensor(chosen)


@torch.no_grad()
def recovery_guarantees(
    directions: Float[Tensor, "m d"], k: int, *, sets: int = 500, seed: int = 0
) -> RecoveryGuarantees:
    """Tropp's and Candès' conditions on a dictionary for codes of k atoms, 1 ≤ k ≤ m/2."""
    m = len(directions)
    if not 1 <= 2 * k <= m:
        raise InvalidInput(f"k is {k}, expected 1 to {m // 2}, half the number of directions")
    overlaps = babel(directions, 2 * k - 1)
    coherence = float(overlaps[0])
    babel_sum = float(overlaps[k - 1]) + (float(overlaps[k - 2]) if k > 1 else 0.0)
    bracket = _bracket(
        unit_rows(directions), overlaps, 2 * k, sets=sets, greedy=min(_GREEDY, m), seed=seed
    )
    limit = 1 / (2 * k - 1)
    return RecoveryGuarantees(
        k=k,
        coherence=coherence,
        tropp_limit=limit,
        tropp=Verdict.HOLDS if coherence < limit or babel_sum < 1 else Verdict.OPEN,
        babel_sum=babel_sum,
        largest_k=largest_recoverable_k(coherence),
        isometry_2k=bracket,
        candes=bracket.below(CANDES_LIMIT),
    )


def largest_recoverable_k(coherence: float) -> int | None:
    """The largest k with coherence < 1/(2k − 1), that is k < (1 + 1/μ)/2; None for μ = 0."""
    if coherence <= 0:
        return None
    return math.ceil((1 + 1 / coherence) / 2 - 1e-12) - 1


def exact_recovery_coefficient(
    directions: Float[Tensor, "m d"], support: Int64[Tensor, " k"]
) -> float:
    """max over atoms outside the support of ‖D_S⁺ d_j‖₁; 0 where none is outside.

    Below 1, orthogonal matching pursuit and basis pursuit recover every code on that support, and
    for OMP it is necessary too in the sense of Tropp 2004, Theorems 3.1 and 3.10. Raises
    InvalidInput where the support's atoms are linearly dependent.
    """
    units = unit_rows(directions.double())
    chosen = units[support]
    gram = chosen @ chosen.T
    if float(torch.linalg.eigvalsh(gram)[0]) < 1e-12:
        raise InvalidInput(
            f"the {len(support)} atoms of the support are linearly dependent",
            help="a code on them is not unique",
        )
    outside = torch.ones(len(units), dtype=torch.bool)
    outside[support] = False
    if not outside.any():
        return 0.0
    coefficients = torch.linalg.solve(gram, chosen @ units[outside].T)
    return float(coefficients.abs().sum(0).max())
