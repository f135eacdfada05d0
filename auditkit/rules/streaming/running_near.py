"""Running statistics of neighbouring tokens: the rolling mean, and one token after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from auditkit.core.fixed_point import SCALE
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.kleene import KNOWN, Held, Judged
from auditkit.rules.lowered.plan import PlanAggregate, PlanSignal, TokenNode
from auditkit.rules.streaming.running import OverSignal, Snapshot
from auditkit.rules.streaming.token_tests import Values, judge_token, static_rank

NEVER = -(2**60)
"""The place of what has not been: further back than any `within` reaches."""


class Rolling(OverSignal):
    """The largest mean over w neighbouring tokens, among those seen; of all, if fewer."""

    __slots__ = ("best", "gaps", "recent", "total")

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        super().__init__(aggregate, signals)
        self.recent: deque[int | None] = deque()
        self.total, self.gaps = 0, 0
        self.best: int | None = None

    @property
    def share(self) -> int:
        return min(self.seen, self.argument)

    def take(self, value: int | None, n: int) -> None:
        for _ in range(min(n, self.argument)):  # then the window holds nothing else
            self.recent.append(value)
            self.total += value or 0
            self.gaps += value is None
            if len(self.recent) > self.argument:
                oldest = self.recent.popleft()
                self.total -= oldest or 0
                self.gaps -= oldest is None
            if len(self.recent) == self.argument:
                least = self._least()
                if least is not None and (self.best is None or least > self.best):
                    self.best = least

    def _least(self) -> int | None:
        """The sum of the last tokens, those not covered taken at their floor."""
        if not self.gaps:
            return self.total
        floor = self.signal.floor
        return None if floor is None else self.total + floor * self.gaps

    def bounds(self) -> tuple[int | None, int | None]:
        low = self._least() if self.seen < self.argument else self.best
        return low, None if self.unknown else low

    def held_early(self) -> Held:
        if self.seen < self.argument:
            return Held(None, None, self.share, Reason.EMPTY_FRAME.rank)
        return self.held()

    def save(self) -> Snapshot:
        return (self.seen, self.unknown, tuple(self.recent), self.best)

    def load(self, saved: Snapshot) -> None:
        self.seen, self.unknown, recent, self.best = saved
        self.recent = deque(recent)
        self.total = sum(v or 0 for v in self.recent)
        self.gaps = sum(v is None for v in self.recent)


class Pairs:
    """How many tokens satisfy `second` with one before, at most `within` away, satisfying `test`.

    The distance counts all tokens. Per reason it is kept where a token was last unknown for it.
    """

    __slots__ = (
        "aggregate",
        "first_seen",
        "ranks",
        "second_seen",
        "signals",
        "static",
        "tokens",
        "true",
        "true_at",
        "unknown",
        "unknown_at",
    )

    def __init__(self, aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> None:
        self.aggregate, self.signals = aggregate, signals
        self.static = static_rank(aggregate.tests, signals)
        self.tokens, self.true, self.unknown, self.ranks = 0, 0, 0, KNOWN
        self.first_seen, self.second_seen = False, False
        self.true_at, self.unknown_at = NEVER, [NEVER] * len(Reason)

    def add(self, role: Role, values: Values, n: int = 1) -> None:
        a = self.aggregate
        first = self._judge(a.test, a.roles, role, values)
        second = self._judge(a.second, a.second_roles, role, values)
        self.first_seen = self.first_seen or first is not None
        self.second_seen = self.second_seen or second is not None
        first, second = first or Judged(False), second or Judged(False)
        if first.truth is False and second.truth is False:
            self.tokens += n
            return
        for _ in range(n):
            self._take(first, second)
            self.tokens += 1

    def _judge(
        self, test: TokenNode | None, roles: tuple[Role, ...], role: Role, values: Values
    ) -> Judged | None:
        assert test is not None
        return judge_token(test, values, self.signals) if not roles or role in roles else None

    def _take(self, first: Judged, second: Judged) -> None:
        since = self.tokens - self.aggregate.argument
        if second.truth and self.true_at >= since:
            self.true += 1
        elif second.truth is not False:
            unknown = [rank for rank, at in enumerate(self.unknown_at) if at >= since]
            if unknown or self.true_at >= since:
                self.unknown += 1
                self.ranks = min([self.ranks, second.rank, *unknown])
        if first.truth is None:
            self.unknown_at[first.rank] = self.tokens
        elif first.truth:
            self.true_at = self.tokens

    @property
    def empty(self) -> bool:
        return not (self.first_seen and self.second_seen)

    def held(self) -> Held:
        if self.empty:
            return Held(None, None, 1, min(self.static, Reason.EMPTY_FRAME.rank))
        return Held(self.true * SCALE, (self.true + self.unknown) * SCALE, 1, self.ranks)

    def held_early(self) -> Held:
        return self.held()

    def save(self) -> Snapshot:
        seen = (self.tokens, self.first_seen, self.second_seen)
        return (*seen, self.true, self.unknown, self.ranks, self.true_at, tuple(self.unknown_at))

    def load(self, saved: Snapshot) -> None:
        self.tokens, self.first_seen, self.second_seen, *rest = saved
        self.true, self.unknown, self.ranks, self.true_at, unknown_at = rest
        self.unknown_at = list(unknown_at)
