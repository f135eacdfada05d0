"""Running statistics of one aggregate over the tokens of a frame: small, exact, restorable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from auditkit.core.fixed_point import SCALE
from auditkit.core.verdicts import Reason
from auditkit.rules.kleene import KNOWN, Held, Judged, at_least, decide, negate
from auditkit.rules.plan import (
    PlanAggregate,
    PlanSignal,
    Statistic,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
    token_cuts,
)

Snapshot = tuple[int | None, ...]
Values = Sequence[int | None]


class AggregateState(Protocol):
    """What an aggregate keeps between tokens."""

    def add(self, values: Values, n: int = 1) -> None:
        """Take `n` tokens in a row that the aggregate sees, each with these values."""

    def held(self) -> Held:
        """What is known of the statistic so far."""
        ...

    def save(self) -> Snapshot:
        """The state as plain integers."""
        ...

    def load(self, saved: Snapshot) -> None:
        """Go back to a saved state."""


def new_state(aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> AggregateState:
    """The state of an aggregate that has seen no token."""
    if aggregate.test is not None:
        kind = _Run if aggregate.statistic is Statistic.RUN else _Count
        return kind(aggregate, aggregate.test, signals)
    assert aggregate.signal is not None
    kind = _Largest if aggregate.statistic is Statistic.MAX else _Sum
    return kind(aggregate, aggregate.signal, signals[aggregate.signal])


class _Largest:
    """max of a signal."""

    __slots__ = ("best", "number", "seen", "signal", "unknown")

    def __init__(self, aggregate: PlanAggregate, number: int, signal: PlanSignal) -> None:
        self.number, self.signal = number, signal
        self.seen, self.unknown = 0, 0
        self.best: int | None = None

    def add(self, values: Values, n: int = 1) -> None:
        value = values[self.number]
        self.seen += n
        if value is None:
            self.unknown += n
        elif self.best is None or value > self.best:
            self.best = value

    def held(self) -> Held:
        if not self.signal.resolved:
            return Held(None, None, 1, Reason.UNRESOLVED.rank)
        if self.seen == 0:
            return Held(None, None, 1, Reason.EMPTY_FRAME.rank)
        if not self.unknown:
            return Held(self.best, self.best, 1, KNOWN)
        known = [v for v in (self.best, self.signal.floor) if v is not None]
        return Held(max(known, default=None), None, 1, Reason.NOT_COVERED.rank)

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, self.best)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, self.best = saved[0] or 0, saved[1] or 0, saved[2]


class _Sum:
    """sum or mean of a signal."""

    __slots__ = ("is_mean", "number", "seen", "signal", "total", "unknown")

    def __init__(self, aggregate: PlanAggregate, number: int, signal: PlanSignal) -> None:
        self.number, self.signal = number, signal
        self.is_mean = aggregate.statistic is Statistic.MEAN
        self.seen, self.unknown, self.total = 0, 0, 0

    def add(self, values: Values, n: int = 1) -> None:
        value = values[self.number]
        self.seen += n
        if value is None:
            self.unknown += n
        else:
            self.total += value * n

    def held(self) -> Held:
        share = self.seen if self.is_mean else 1
        if not self.signal.resolved:
            return Held(None, None, share, Reason.UNRESOLVED.rank)
        if self.seen == 0:
            return Held(None, None, share, Reason.EMPTY_FRAME.rank)
        if not self.unknown:
            return Held(self.total, self.total, share, KNOWN)
        floor = self.signal.floor
        low = None if floor is None else self.total + floor * self.unknown
        return Held(low, None, share, Reason.NOT_COVERED.rank)

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, self.total)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, self.total = (x or 0 for x in saved)


class _Count:
    """count or frac of the tokens that satisfy a test."""

    __slots__ = ("is_frac", "rank", "seen", "signals", "static", "test", "true", "unknown")

    def __init__(
        self, aggregate: PlanAggregate, test: TokenNode, signals: Sequence[PlanSignal]
    ) -> None:
        self.test, self.signals = test, signals
        self.is_frac = aggregate.statistic is Statistic.FRAC
        self.static = min(static_ranks(test, signals), default=KNOWN)
        self.seen, self.true, self.unknown, self.rank = 0, 0, 0, KNOWN

    def add(self, values: Values, n: int = 1) -> None:
        judged = judge_token(self.test, values, self.signals)
        self.seen += n
        if judged.truth is None:
            self.unknown += n
            self.rank = min(self.rank, judged.rank)
        elif judged.truth:
            self.true += n

    def held(self) -> Held:
        share = self.seen if self.is_frac else 1
        if self.seen == 0:
            return Held(None, None, share, min(self.static, Reason.EMPTY_FRAME.rank))
        return Held(self.true * SCALE, (self.true + self.unknown) * SCALE, share, self.rank)

    def save(self) -> Snapshot:
        return (self.seen, self.true, self.unknown, self.rank)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.true, self.unknown, self.rank = (x or 0 for x in saved)


class _Run:
    """The longest run of tokens, among those seen, that satisfy a test."""

    __slots__ = (
        "best",
        "current",
        "possible",
        "possible_best",
        "rank",
        "seen",
        "signals",
        "static",
        "test",
    )

    def __init__(
        self, aggregate: PlanAggregate, test: TokenNode, signals: Sequence[PlanSignal]
    ) -> None:
        self.test, self.signals = test, signals
        self.static = min(static_ranks(test, signals), default=KNOWN)
        self.seen, self.rank = 0, KNOWN
        self.current, self.best, self.possible, self.possible_best = 0, 0, 0, 0

    def add(self, values: Values, n: int = 1) -> None:
        judged = judge_token(self.test, values, self.signals)
        self.seen += n
        self.current = self.current + n if judged.truth else 0
        self.possible = 0 if judged.truth is False else self.possible + n
        self.best = max(self.best, self.current)
        self.possible_best = max(self.possible_best, self.possible)
        self.rank = min(self.rank, judged.rank)

    def held(self) -> Held:
        if self.seen == 0:
            return Held(None, None, 1, min(self.static, Reason.EMPTY_FRAME.rank))
        return Held(self.best * SCALE, self.possible_best * SCALE, 1, self.rank)

    def save(self) -> Snapshot:
        run = (self.current, self.best, self.possible, self.possible_best)
        return (self.seen, self.rank, *run)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.rank, self.current, self.best, self.possible, self.possible_best = (
            x or 0 for x in saved
        )


def judge_token(node: TokenNode, values: Values, signals: Sequence[PlanSignal]) -> Judged:
    """Judge a token test at one token."""
    match node:
        case TokenCut(signal=number, cut=cut):
            signal, value = signals[number], values[number]
            if not signal.resolved:
                return decide(cut, Held(None, None, 1, Reason.UNRESOLVED.rank))
            if value is None:
                return decide(cut, Held(signal.floor, None, 1, Reason.NOT_COVERED.rank))
            return decide(cut, Held(value, value, 1, KNOWN))
        case TokenNot(operand=operand):
            return negate(judge_token(operand, values, signals))
        case TokenAtLeast(k=k, operands=operands):
            return at_least(k, [judge_token(o, values, signals) for o in operands])


def static_ranks(test: TokenNode, signals: Sequence[PlanSignal]) -> Iterator[int]:
    """Reasons that hold whatever the tokens are."""
    for leaf in token_cuts(test):
        if not signals[leaf.signal].resolved:
            yield Reason.UNRESOLVED.rank
        if leaf.cut.threshold is None:
            yield Reason.NOT_CALIBRATED.rank
