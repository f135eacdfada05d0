"""How many directions R^d holds whose pairwise |cos| stays within ε: what is certain, both ways.

Counts are natural logarithms: in 576 dimensions they pass any float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv, betaln

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.quality.theory.coherence import log_moment

_UNDERFLOW = 1e-280
_MOMENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingBounds:
    """ln N of the largest set of unit vectors in R^d with all |cos| ≤ ε lies between these.

    `covering`: a largest set leaves no room, so the double caps {v : |u·v| > ε} around its members
    cover the sphere, and N ≥ 1/P(|u·v| > ε) (Shannon 1959, Wyner 1965). With P ≤ 2 exp(−dε²/2)
    that is at least ½ exp(dε²/2): exponential in d at any fixed ε.
    `johnson_lindenstrauss`: what projecting an orthonormal basis at random guarantees (weaker).
    `moments`: Sidelnikov's inequality read backwards, N ≤ (1 − ε^{2t})/(B_t − ε^{2t}), least over
    t; it speaks only where ε is small against √(t/d).
    `kabatjanskii_levenstein`: d times the asymptotic rate of their 1978 upper bound, which lacks
    its o(d) term, so that at finite d it is a rate and no bound.
    """

    d: int
    epsilon: float
    covering: float
    johnson_lindenstrauss: float
    moments: Measure
    kabatjanskii_levenstein: float


def packing_bounds(d: int, epsilon: float) -> PackingBounds:
    """What is known of the largest set with |cos| ≤ `epsilon` in R^d, 0 < ε < 1, d ≥ 2."""
    _check(d, epsilon)
    upper = log_moment_count(d, epsilon)
    return PackingBounds(
        d=d,
        epsilon=epsilon,
        covering=max(math.log(d), -log_pair_tail(epsilon, d)),  # a basis is always there
        johnson_lindenstrauss=log_projected_count(d, epsilon),
        moments=NotMeasured("ε is too large for a bound by moments")
        if upper is None
        else Measured(value=upper, n=d),
        kabatjanskii_levenstein=d * rate_kabatjanskii_levenstein(epsilon),
    )


def pair_tail(epsilon: float, d: int) -> float:
    """P(|u·v| > ε) of independent uniform unit vectors: (u·v)² is Beta(1/2, (d − 1)/2)."""
    _check_dimension(d)
    return float(betainc((d - 1) / 2, 0.5, 1 - min(1.0, max(0.0, epsilon)) ** 2))


def log_pair_tail(epsilon: float, d: int) -> float:
    """ln P(|u·v| > ε); where that underflows, an upper bound within ln 1/ε of it.

    With a = (d − 1)/2 and x = 1 − ε², I_x(a, ½) = ∫₀ˣ t^{a−1} (1 − t)^{−½} dt / B(a, ½), and
    (1 − t)^{−½} ≤ 1/ε on [0, x].
    """
    _check(d, epsilon)
    tail = pair_tail(epsilon, d)
    if tail > _UNDERFLOW:
        return math.log(tail)
    a = (d - 1) / 2
    return a * math.log1p(-(epsilon**2)) - math.log(a) - float(betaln(a, 0.5)) - math.log(epsilon)


def log_projected_count(d: int, epsilon: float) -> float:
    """ln m that the Johnson–Lindenstrauss lemma gives; at least ln d.

    Dasgupta & Gupta 2003: n points fit into d ≥ 4 ln n / (η²/2 − η³/3) dimensions with squared
    distances within 1 ± η. Of the origin and m orthonormal vectors, every norm² is then in
    1 ± η and every distance² in 2(1 ± η), so |u·v| ≤ 2η and |cos| ≤ 2η/(1 − η) = ε for
    η = ε/(2 + ε).
    """
    _check(d, epsilon)
    eta = epsilon / (2 + epsilon)
    log_points = d * (eta**2 / 2 - eta**3 / 3) / 4
    # ln(n − 1), which stays finite where n is hardly above 1.
    return max(math.log(d), log_points + math.log(-math.expm1(-log_points)))


def log_moment_count(d: int, epsilon: float) -> float | None:
    """ln of the least (1 − ε^{2t})/(B_t − ε^{2t}) over t with B_t > ε^{2t}; None without any."""
    _check(d, epsilon)
    bounds: list[float] = []
    for t in range(1, _MOMENTS + 1):
        moment, power = log_moment(t, d), 2 * t * math.log(epsilon)
        if power < moment:
            rest = math.log1p(-math.exp(power)) - math.log1p(-math.exp(power - moment))
            bounds.append(rest - moment)
    return min(bounds, default=None)


def rate_kabatjanskii_levenstein(epsilon: float) -> float:
    """Limsup of (ln N)/d for spherical codes with cos ≤ ε (Kabatjanskii & Levenstein 1978).

    (1 + a) ln(1 + a) − a ln a with a = (1 − sin θ)/(2 sin θ), cos θ = ε. Lines with |cos| ≤ ε are
    such codes, so it bounds them too. Near ε = 0 it is about (ε²/4) ln(4e/ε²).
    """
    _check(2, epsilon)
    sine = math.sqrt(1 - epsilon**2)
    a = epsilon**2 / (1 + sine) / (2 * sine)  # 1 − sin θ without cancellation
    return (1 + a) * math.log1p(a) - a * math.log(a)


def random_coherence(m: int, d: int) -> float:
    """Expected coherence of m uniform directions in R^d: ∫₀¹ 1 − (1 − P(|u·v| > t))^N dt.

    The N = m(m − 1)/2 cosines are pairwise independent, not jointly; treating them as if they
    were is exact for m = 2 and in the limit (Cai, Fan & Jiang 2013, Theorem 1).
    """
    _check_many(m, d)
    t = np.linspace(0.0, 1.0, 20_001)
    tail = betainc((d - 1) / 2, 0.5, 1 - t**2)
    pairs = m * (m - 1) / 2
    with np.errstate(divide="ignore"):  # at t = 0 the tail is 1
        exceeds = -np.expm1(pairs * np.log1p(-tail))
    return float(np.trapezoid(exceeds, t))


def random_coherence_quantile(m: int, d: int, q: float) -> float:
    """The q-quantile of that coherence: t with (1 − P(|u·v| > t))^N = q."""
    _check_many(m, d)
    if not 0 < q < 1:
        raise InvalidInput(f"a quantile of {q}, expected one between 0 and 1")
    tail = -math.expm1(math.log(q) / (m * (m - 1) / 2))
    return math.sqrt(1 - float(betaincinv((d - 1) / 2, 0.5, tail)))


def asymptotic_coherence(m: int, d: int) -> float:
    """√(4 ln m / d), to which the coherence of a random frame tends where ln m ≪ d."""
    _check_many(m, d)
    return math.sqrt(4 * math.log(m) / d)


def _check(d: int, epsilon: float) -> None:
    _check_dimension(d)
    if not 0 < epsilon < 1:
        raise InvalidInput(f"ε is {epsilon}, expected between 0 and 1")


def _check_dimension(d: int) -> None:
    if d < 2:
        raise InvalidInput(f"{d} dimensions, expected at least 2")


def _check_many(m: int, d: int) -> None:
    _check_dimension(d)
    if m < 2:
        raise InvalidInput(f"{m} directions have no pairs, expected at least 2")
