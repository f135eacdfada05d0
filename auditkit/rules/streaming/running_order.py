"""Running statistics of order: quantile, mean of the largest, first and last place."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import islice, repeat

from auditkit.core.fixed_point import SCALE
from auditkit.rules.lowered.kleene import Judged
from auditkit.rules.lowered.plan import (
    FAR,
    SHARE_SCALE,
    PlanAggregate,
    PlanSignal,
    Statistic,
)
from auditkit.rules.streaming.running import OverSignal, OverTest, Snapshot


class Quantile(OverSignal):
    """The ⌈q·n⌉-th smallest of n values (nearest rank), which is one of them."""

    __slots__ = ("counts",)

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.counts: dict[int, int] = {}

    def take(self, value: int | None, n: int) -> None:
        if value is not None:
            self.counts[value] = self.counts.get(value, 0) + n

    def bounds(self) -> tuple[int | None, int | None]:
        place = -(-self.argument * self.seen // SHARE_SCALE)
        floor, unknown = self.signal.floor, self.unknown
        high = self._smallest(place, self.counts)
        if not unknown:
            return high, high
        if floor is None:
            return self._smallest(place - unknown, self.counts), high
        lowest = {**self.counts, floor: self.counts.get(floor, 0) + unknown}
        return self._smallest(place, lowest), high

    def _smallest(self, place: int, counts: dict[int, int]) -> int | None:
        """The `place`-th smallest value, from 1; None before the first and after the last."""
        if place < 1:
            return None
        for value in sorted(counts):
            place -= counts[value]
            if place <= 0:
                return value
        return None

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, tuple(sorted(self.counts.items())))

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, counts = saved
        self.counts = dict(counts)


class TopMean(OverSignal):
    """The mean of the k largest values; of all, where there are fewer."""

    __slots__ = ("largest",)

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.largest: list[int] = []

    @property
    def share(self) -> int:
        return min(self.seen, self.argument)

    def take(self, value: int | None, n: int) -> None:
        if value is None:
            return
        for _ in range(min(n, self.argument)):
            if len(self.largest) == self.argument and value <= self.largest[0]:
                return
            insort(self.largest, value)
            del self.largest[: -self.argument]

    def bounds(self) -> tuple[int | None, int | None]:
        return self._least(), None if self.unknown else sum(self.largest)

    def _least(self) -> int | None:
        """The sum of the largest, unknown values taken at their floor."""
        floor, missing = self.signal.floor, self.share - len(self.largest)
        if not self.unknown:
            return sum(self.largest)
        if floor is None:
            return None if missing else sum(self.largest)
        return sum(islice(self._falling(floor), self.share))

    def _falling(self, floor: int) -> Iterator[int]:
        return iter(sorted([*self.largest, *repeat(floor, self.unknown)], reverse=True))

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, tuple(self.largest))

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, largest = saved
        self.largest = list(largest)


class Place(OverTest):
    """first or last: the place, from 0, of a token that satisfies a test, among those seen.

    Where none does the first is beyond, the last before every place.
    """

    __slots__ = ("definite", "is_first", "possible")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.is_first = aggregate.statistic is Statistic.FIRST
        nowhere = FAR if self.is_first else -FAR
        self.definite, self.possible = nowhere, nowhere

    def take(self, judged: Judged, n: int) -> None:
        if judged.truth is False:
            return
        if self.is_first:
            self.possible = min(self.possible, self.seen * SCALE)
        else:
            self.possible = (self.seen + n - 1) * SCALE
        if judged.truth:
            self.definite = (
                min(self.definite, self.seen * SCALE) if self.is_first else self.possible
            )

    def bounds(self) -> tuple[int, int]:
        low, high = sorted((self.definite, self.possible))
        return low, high

    def save(self) -> Snapshot:
        return (self.seen, self.rank, self.definite, self.possible)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.rank, self.definite, self.possible = saved
