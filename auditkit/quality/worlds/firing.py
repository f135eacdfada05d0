"""When planted features fire: alone, together, or as the children of others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from auditkit.core.errors import InvalidInput

Fires = NDArray[np.bool_]
Probabilities = NDArray[np.float64]


@runtime_checkable
class Firing(Protocol):
    """Draws which features fire on each of some tokens."""

    @property
    def rates(self) -> Probabilities:
        """P(feature fires), [feature]."""
        ...

    def draw(self, tokens: int, rng: np.random.Generator) -> Fires:
        """Which features fire, [token, feature]; tokens are independent of one another."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Independent:
    """Every feature fires by itself."""

    rates: Probabilities

    def draw(self, tokens: int, rng: np.random.Generator) -> Fires:
        uniform = rng.random((tokens, len(self.rates)), dtype=np.float32)
        return uniform < self.rates.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steady:
    """Features fire each by itself but for their number, which is the same on every token.

    Systematic sampling (Madow 1949) with the features in a new random order for each token: the
    rates hold exactly, and Σ rates fire on each token (rounded up or down). Two features are not
    quite independent: with k on every token they fire together about (k − 1)/k as often as if they
    were. A fixed k then misses nothing for want of latents.
    """

    rates: Probabilities

    def __post_init__(self) -> None:
        if float(self.rates.max()) > 1:
            raise InvalidInput(f"a feature cannot fire with probability {self.rates.max():.3g}")

    def draw(self, tokens: int, rng: np.random.Generator) -> Fires:
        order = rng.random((tokens, len(self.rates)), dtype=np.float32).argsort(axis=1)
        reached = np.cumsum(self.rates[order], axis=1) + rng.random((tokens, 1))
        # A feature fires where its own stretch of the line holds a whole number.
        passed = np.diff(np.floor(reached), axis=1, prepend=0.0) > 0
        fires = np.zeros((tokens, len(self.rates)), dtype=np.bool_)
        np.put_along_axis(fires, order, passed, axis=1)
        return fires


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correlated:
    """Features of one group fire together (a Gaussian copula, one factor to a group).

    Feature g fires where √r·u_group(g) + √(1−r)·e_g > Φ⁻¹(1 − rate): u and e are standard normal,
    so that the rates hold exactly and r is the correlation of the two normals behind a pair of one
    group. Features of different groups are independent.
    """

    rates: Probabilities
    groups: NDArray[np.int64]
    correlation: float

    def __post_init__(self) -> None:
        if not 0 <= self.correlation < 1:
            raise InvalidInput(f"correlation is {self.correlation}, expected 0 or more, below 1")

    def draw(self, tokens: int, rng: np.random.Generator) -> Fires:
        n_groups = int(self.groups.max()) + 1
        shared = rng.standard_normal((tokens, n_groups), dtype=np.float32)[:, self.groups]
        own = rng.standard_normal((tokens, len(self.rates)), dtype=np.float32)
        mixed = math.sqrt(self.correlation) * shared + math.sqrt(1 - self.correlation) * own
        return mixed > ndtri(1 - self.rates).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hierarchical:
    """Parents fire by themselves; a firing parent has at most one of its children fire with it.

    `parents[g]` is the feature whose child g is, or g itself where it is a parent. A parent fires
    with `parent_rates`; then with probability `child_share` one of its children does, each as
    likely as the other.
    """

    parents: NDArray[np.int64]
    parent_rates: Probabilities
    child_share: float

    def __post_init__(self) -> None:
        if not 0 < self.child_share < 1:
            raise InvalidInput(f"child_share is {self.child_share}, expected between 0 and 1")
        if not np.array_equal(self.parents[self.parents], self.parents):
            raise InvalidInput("a child's parent must be no child itself")

    @property
    def rates(self) -> Probabilities:
        is_parent = self.parents == np.arange(len(self.parents))
        children = np.bincount(self.parents[~is_parent], minlength=len(self.parents))
        rates = np.zeros(len(self.parents))
        rates[is_parent] = self.parent_rates
        child = ~is_parent
        above = self.parents[child]
        rates[child] = rates[above] * self.child_share / children[above]
        return rates

    def draw(self, tokens: int, rng: np.random.Generator) -> Fires:
        fires = np.zeros((tokens, len(self.parents)), dtype=np.bool_)
        roots = np.flatnonzero(self.parents == np.arange(len(self.parents)))
        fires[:, roots] = rng.random((tokens, len(roots))) < self.parent_rates
        for root in roots:
            children = np.flatnonzero(self.parents == root)
            children = children[children != root]
            if not len(children):
                continue
            with_child = fires[:, root] & (rng.random(tokens) < self.child_share)
            rows = np.flatnonzero(with_child)
            fires[rows, children[rng.integers(0, len(children), size=len(rows))]] = True
        return fires
