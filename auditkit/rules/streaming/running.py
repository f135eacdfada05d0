"""Running statistics of one aggregate over the tokens of a frame: small, exact, restorable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from auditkit.core.fixed_point import SCALE
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.kleene import KNOWN, Held, Judged
from auditkit.rules.lowered.plan import PlanAggregate, PlanSignal, Statistic
from auditkit.rules.streaming.token_tests import Values, judge_token, static_rank

Snapshot = tuple[Any, ...]
"""A state in plain integers and tuples of them; equal for equal states."""


class AggregateState(Protocol):
    """What an aggregate keeps between tokens."""

    def add(self, role: Role, values: Values, n: int = 1) -> None:
        """Take `n` tokens in a row that the aggregate sees, alike in role and values."""

    @property
    def empty(self) -> bool:
        """Has the aggregate seen no token that it looks at?"""
        ...

    def held(self) -> Held:
        """What is known of the statistic, if the frame ends here."""
        ...

    def held_early(self) -> Held:
        """The same, if more may come: what is short of a whole window says nothing."""
        ...

    def save(self) -> Snapshot:
        """The state, to come back to."""
        ...

    def load(self, saved: Snapshot) -> None:
        """Go back to a saved state."""


class OverSignal:
    """A statistic of a signal: how many tokens were seen, how many of them are not covered."""

    __slots__ = ("argument", "number", "seen", "signal", "unknown")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        assert aggregate.signal is not None
        self.number, self.signal = aggregate.signal, signals[aggregate.signal]
        self.argument = aggregate.argument
        self.seen, self.unknown = 0, 0

    def add(self, role: Role, values: Values, n: int = 1) -> None:
        value = values[self.number]
        self.seen += n
        if value is None:
            self.unknown += n
        self.take(value, n)

    def take(self, value: int | None, n: int) -> None:
        """Take the signal's value at `n` tokens, None where it is not covered."""
        raise AssertionError

    @property
    def share(self) -> int:
        """The number of tokens that a mean is taken over, else 1."""
        return 1

    @property
    def empty(self) -> bool:
        return self.seen == 0

    def held(self) -> Held:
        if not self.signal.resolved:
            return Held(None, None, self.share, Reason.UNRESOLVED.rank)
        if self.seen == 0:
            return Held(None, None, self.share, Reason.EMPTY_FRAME.rank)
        low, high = self.bounds()
        rank = Reason.NOT_COVERED.rank if self.unknown else KNOWN
        return Held(low, high, self.share, rank)

    def bounds(self) -> tuple[int | None, int | None]:
        """The least and the greatest that value · share can be (None: unbounded)."""
        raise AssertionError

    def held_early(self) -> Held:
        return self.held()


class Largest(OverSignal):
    """max of a signal."""

    __slots__ = ("best",)

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.best: int | None = None

    def take(self, value: int | None, n: int) -> None:
        if value is not None and (self.best is None or value > self.best):
            self.best = value

    def bounds(self) -> tuple[int | None, int | None]:
        if not self.unknown:
            return self.best, self.best
        known = [v for v in (self.best, self.signal.floor) if v is not None]
        return max(known, default=None), None

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, self.best)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, self.best = saved


class Sum(OverSignal):
    """sum or mean of a signal."""

    __slots__ = ("is_mean", "total")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.is_mean = aggregate.statistic is Statistic.MEAN
        self.total = 0

    @property
    def share(self) -> int:
        return self.seen if self.is_mean else 1

    def take(self, value: int | None, n: int) -> None:
        self.total += (value or 0) * n

    def bounds(self) -> tuple[int | None, int | None]:
        if not self.unknown:
            return self.total, self.total
        floor = self.signal.floor
        return (None if floor is None else self.total + floor * self.unknown), None

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, self.total)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, self.total = saved


class OverTest:
    """A statistic of the tokens that satisfy a test."""

    __slots__ = ("rank", "seen", "signals", "static", "test")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        assert aggregate.test is not None
        self.test, self.signals = aggregate.test, signals
        self.static = static_rank(aggregate.tests, signals)
        self.seen, self.rank = 0, KNOWN

    def add(self, role: Role, values: Values, n: int = 1) -> None:
        judged = judge_token(self.test, values, self.signals)
        self.take(judged, n)
        self.seen += n
        self.rank = min(self.rank, judged.rank)

    def take(self, judged: Judged, n: int) -> None:
        """Take the test's truth at `n` tokens; `seen` is still the number of those before."""
        raise AssertionError

    @property
    def share(self) -> int:
        """The number of tokens that a share is taken of, else 1."""
        return 1

    @property
    def empty(self) -> bool:
        return self.seen == 0

    def held(self) -> Held:
        if self.empty:
            return Held(None, None, self.share, min(self.static, Reason.EMPTY_FRAME.rank))
        return Held(*self.bounds(), self.share, self.rank)

    def bounds(self) -> tuple[int, int]:
        """The least and the greatest that value · share can be."""
        raise AssertionError

    def held_early(self) -> Held:
        return self.held()


class Count(OverTest):
    """count or frac of the tokens that satisfy a test."""

    __slots__ = ("is_frac", "true", "unknown")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.is_frac = aggregate.statistic is Statistic.FRAC
        self.true, self.unknown = 0, 0

    @property
    def share(self) -> int:
        return self.seen if self.is_frac else 1

    def take(self, judged: Judged, n: int) -> None:
        if judged.truth is None:
            self.unknown += n
        elif judged.truth:
            self.true += n

    def bounds(self) -> tuple[int, int]:
        return self.true * SCALE, (self.true + self.unknown) * SCALE

    def save(self) -> Snapshot:
        return (self.seen, self.rank, self.true, self.unknown)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.rank, self.true, self.unknown = saved


class Run(OverTest):
    """The longest run of tokens, among those seen, that satisfy a test."""

    __slots__ = ("best", "current", "possible", "possible_best")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.current, self.best, self.possible, self.possible_best = 0, 0, 0, 0

    def take(self, judged: Judged, n: int) -> None:
        self.current = self.current + n if judged.truth else 0
        self.possible = 0 if judged.truth is False else self.possible + n
        self.best = max(self.best, self.current)
        self.possible_best = max(self.possible_best, self.possible)

    def bounds(self) -> tuple[int, int]:
        return self.best * SCALE, self.possible_best * SCALE

    def save(self) -> Snapshot:
        run = (self.current, self.best, self.possible, self.possible_best)
        return (self.seen, self.rank, *run)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.rank, *run = saved
        self.current, self.best, self.possible, self.possible_best = run
