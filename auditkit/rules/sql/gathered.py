"""What a frame, or a window, gathers from its tokens in SQL.

Aggregate number j has its number of tokens `n{j}`, bounds `lo{j}` and `hi{j}` in units of 2⁻²⁰
times its share (NULL: unbounded), the first reason `r{j}` of a test, and where a latching rule
needs it the earliest place `a{i}` at which cut number i is true.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.fixed_point import SCALE
from auditkit.rules.lowered.plan import FAR, SHARE_SCALE, FrameCut, Plan, PlanAggregate, Statistic
from auditkit.rules.sql.order import early_cuts, seen_by
from auditkit.rules.sql.parts import Extent, Parameters, role_in, where
from auditkit.rules.sql.tokens import low_of


def gathered_columns(plan: Plan, extent: Extent, given: Parameters) -> list[str]:
    """Bounds and reasons of every aggregate over the extent, and first places of cuts."""
    made: list[str] = []
    for j, a in extent.aggregates(plan):
        made += _tokens(j, a)
        if a.signal is not None:
            made += _SIGNALS[a.statistic](_SignalColumns(plan, a, j, given))
        else:
            made += _over_test(j, a)
    if not extent.window:
        made += [_first_place(plan, given, i, cut) for i, cut in early_cuts(plan)]
    return made


def shared(aggregate: PlanAggregate, seen: str) -> str | None:
    """The number of tokens that an aggregate is a mean or a share of, of those `seen`; None: it is
    neither."""
    match aggregate.statistic:
        case Statistic.MEAN | Statistic.FRAC:
            return seen
        case Statistic.TOPK_MEAN | Statistic.ROLLING:
            return f"least({seen}, {aggregate.argument})"
        case _:
            return None


def _tokens(j: int, a: PlanAggregate) -> Iterator[str]:
    """How many tokens it sees; a `then` as many as the side that sees fewer."""
    if a.second is None:
        yield f"count(*){where(*seen_by(a))} AS n{j}"
        return
    for side, roles in (("x", a.roles), ("y", a.second_roles)):
        yield f"count(*){where(*role_in('role', roles))} AS n{j}{side}"
    yield f"least(n{j}x, n{j}y) AS n{j}"


def sees_none(aggregate: PlanAggregate, j: int) -> str:
    """Over all windows of a frame: does the aggregate see no token?"""
    sides = [f"n{j}"] if aggregate.second is None else [f"n{j}x", f"n{j}y"]
    return " OR ".join(f"max({side}) = 0" for side in sides)


class _SignalColumns:
    """The bounds of a statistic of a signal."""

    def __init__(self, plan: Plan, a: PlanAggregate, j: int, given: Parameters) -> None:
        assert a.signal is not None
        self.j, self.size, self.seen = j, a.argument, seen_by(a)
        self.value, self.signal = f"v{a.signal}", plan.signals[a.signal]
        self.floored = self.signal.floor is not None
        self.low = low_of(a.signal, self.signal, given)
        self.missing = f"count(*){where(*self.seen, f'{self.value} IS NULL')}"
        self.maximum = a.statistic is Statistic.MAX

    def total(self, function: str, value: str) -> str:
        return f"{function}({value}){where(*self.seen)}"

    def if_known(self, value: str) -> str:
        return f"CASE WHEN {self.missing} = 0 THEN {value} END"

    def bounds(self, low: str, high: str) -> Iterator[str]:
        yield f"{low} AS lo{self.j}"
        yield f"{high} AS hi{self.j}"

    def plain(self) -> Iterator[str]:
        """max, sum and mean."""
        function = "max" if self.maximum else "sum"
        total = self.total(function, self.value)
        known = self.if_known(total)
        if self.floored:
            return self.bounds(self.total(function, self.low), known)
        return self.bounds(total if self.maximum else known, known)

    def quantile(self) -> Iterator[str]:
        n, scale = f"n{self.j}", SHARE_SCALE
        place = f"(({n} * {self.size} + {scale - 1}) // {scale})"

        def sorted_(value: str) -> str:
            return f"list_sort(list({value}){where(*self.seen, f'{value} IS NOT NULL')})"

        high = f"{sorted_(self.value)}[{place}]"
        if self.floored:
            return self.bounds(f"{sorted_(self.low)}[{place}]", high)
        low = f"{sorted_(self.value)}[{place} - {self.missing}]"
        return self.bounds(f"CASE WHEN {place} > {self.missing} THEN {low} END", high)

    def topk_mean(self) -> Iterator[str]:
        def largest(value: str) -> str:
            return f"list_sum({self.total('max', f'{value}, {self.size}')})"

        total = largest(self.value)
        if self.floored:
            return self.bounds(largest(self.low), self.if_known(total))
        known = f"count({self.value}){where(*self.seen)}"
        enough = f"CASE WHEN {known} >= least(n{self.j}, {self.size}) THEN {total} END"
        return self.bounds(enough, self.if_known(total))

    def rolling(self) -> Iterator[str]:
        full = f"max(c{self.j}){where(*self.seen, f'i{self.j} >= {self.size}')}"
        short = self.total("sum", self.low)
        short = short if self.floored else self.if_known(short)
        low = f"CASE WHEN n{self.j} >= {self.size} THEN {full} ELSE {short} END"
        return self.bounds(low, self.if_known(f"lo{self.j}"))


_SIGNALS = {
    Statistic.MAX: _SignalColumns.plain,
    Statistic.SUM: _SignalColumns.plain,
    Statistic.MEAN: _SignalColumns.plain,
    Statistic.QUANTILE: _SignalColumns.quantile,
    Statistic.TOPK_MEAN: _SignalColumns.topk_mean,
    Statistic.ROLLING: _SignalColumns.rolling,
}


def _over_test(j: int, a: PlanAggregate) -> Iterator[str]:
    seen = seen_by(a)
    true, possible = where(*seen, f"b{j}"), where(*seen, f"b{j} IS NOT FALSE")
    yield f"min(q{j}){where(*seen)} AS r{j}"
    match a.statistic:
        case Statistic.RUN:
            low, high = f"max(c{j}){where(*seen)}", f"max(p{j}){where(*seen)}"
        case Statistic.FIRST:
            low, high = f"min(i{j} - 1){possible}", f"min(i{j} - 1){true}"
        case Statistic.LAST:
            low, high = f"max(i{j} - 1){true}", f"max(i{j} - 1){possible}"
        case _:
            low, high = f"count(*){true}", f"count(*){possible}"
    far = {Statistic.FIRST: FAR, Statistic.LAST: -FAR}.get(a.statistic)
    for name, value in (("lo", low), ("hi", high)):
        scaled = f"{value} * {SCALE}"
        scaled = scaled if far is None else f"coalesce({scaled}, {far})"
        yield f"CASE WHEN n{j} > 0 THEN {scaled} END AS {name}{j}"


def _first_place(plan: Plan, given: Parameters, i: int, node: FrameCut) -> str:
    """The earliest place at which the cut is known to be true of the tokens so far."""
    a, cut, j = plan.aggregates[node.aggregate], node.cut, node.aggregate
    if cut.threshold is None:
        return f"CAST(NULL AS BIGINT) AS a{i}"
    conditions = seen_by(a)
    if a.statistic is Statistic.THEN:
        return f"min(epos){where(f'b{j}')} AS a{i}"
    threshold = given.integer(cut.threshold)
    if a.statistic is Statistic.FIRST:
        conditions += [f"b{j}", f"(i{j} - 1) * {SCALE} {cut.op.value} {threshold}"]
    elif a.statistic is Statistic.ROLLING:
        conditions += [
            f"i{j} >= {a.argument}",
            f"c{j} {cut.op.value} {threshold} * {a.argument}",
        ]
    elif a.signal is not None:
        value = low_of(a.signal, plan.signals[a.signal], given)
        conditions.append(f"{value} {cut.op.value} {threshold}")
    else:
        conditions.append(f"c{j} * {SCALE} {cut.op.value} {threshold}")
    return f"min(epos){where(*conditions)} AS a{i}"
