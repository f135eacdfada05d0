"""What the order of the tokens says, in SQL: running lengths, rolling sums, one after another.

Aggregate number j numbers the tokens that it sees from 1 (`i{j}`), and has at each token the
length of the run that ends there (`c{j}`, at most `p{j}`), the sum of the w tokens that end there
(`c{j}`), or how many have satisfied its test (`c{j}`). For a `then`, `d{j}` and `e{j}` are its
tests on tokens of their roles, `dt{j}`, `dn{j}` and `dq{j}` what of the first stands near before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditkit.core.prompts import Role
from auditkit.rules.lowered.plan import FrameCut, Plan, PlanAggregate, Statistic, frame_cuts
from auditkit.rules.sql.parts import Extent, Parameters, role_in
from auditkit.rules.sql.tokens import low_of

NUMBERED = (Statistic.RUN, Statistic.ROLLING, Statistic.FIRST, Statistic.LAST)


def seen_by(aggregate: PlanAggregate) -> list[str]:
    """The condition that the aggregate sees a token, if there is one."""
    return [] if aggregate.second is not None else role_in("role", aggregate.roles)


def early_cuts(plan: Plan) -> list[tuple[int, FrameCut]]:
    """The cuts of a latching rule over a whole frame, with their numbers; none of any other."""
    outside = [c for c in frame_cuts(plan.root) if not plan.aggregates[c.aggregate].window]
    return list(enumerate(outside)) if plan.latching else []


def order_steps(plan: Plan, extent: Extent, given: Parameters) -> list[tuple[str, list[str]]]:
    """The steps to the columns above, each with what it adds."""
    aggregates = list(extent.aggregates(plan))
    counts = {c.aggregate for _, c in early_cuts(plan)}
    ordered, counted, paired = list[str](), list[str](), list[str]()
    for j, a in aggregates:
        tokens = f"PARTITION BY {', '.join([extent.keys, *seen_by(a)])} ORDER BY epos"
        so_far = f"({tokens} ROWS UNBOUNDED PRECEDING)"
        if a.statistic in NUMBERED:
            ordered.append(f"row_number() OVER ({tokens}) AS i{j}")
        if a.statistic is Statistic.RUN:
            counted += _run(j, so_far)
        elif a.statistic is Statistic.ROLLING:
            counted.append(f"{_rolling(plan, a, tokens, given)} AS c{j}")
        elif a.statistic is Statistic.THEN:
            ordered += [
                f"{_on_roles(f'x{j}', a.roles)} AS d{j}",
                f"{_on_roles(f'y{j}', a.second_roles)} AS e{j}",
            ]
            near = f"{tokens} ROWS BETWEEN {a.argument} PRECEDING AND 1 PRECEDING"
            counted += _before(j, near)
            paired += _pair(j)
        elif a.statistic is Statistic.COUNT and j in counts:
            counted.append(f"count(*) FILTER (WHERE b{j}) OVER {so_far} AS c{j}")
    steps = [("ordered", ordered), ("counted", counted), ("paired", paired)]
    return [(name, made) for name, made in steps if made]


def _run(j: int, so_far: str) -> Iterator[str]:
    broken = f"max(CASE WHEN b{j} IS NOT TRUE THEN i{j} END) OVER {so_far}"
    ended = f"max(CASE WHEN b{j} IS FALSE THEN i{j} END) OVER {so_far}"
    yield f"i{j} - coalesce({broken}, 0) AS c{j}"
    yield f"i{j} - coalesce({ended}, 0) AS p{j}"


def _rolling(plan: Plan, a: PlanAggregate, tokens: str, given: Parameters) -> str:
    assert a.signal is not None
    near = f"({tokens} ROWS BETWEEN {a.argument - 1} PRECEDING AND CURRENT ROW)"
    signal = plan.signals[a.signal]
    total = f"sum({low_of(a.signal, signal, given)}) OVER {near}"
    if signal.floor is not None:
        return total
    return f"CASE WHEN count(v{a.signal}) OVER {near} = {a.argument} THEN {total} END"


def _on_roles(truth: str, roles: Sequence[Role]) -> str:
    return " ".join(
        f"CASE WHEN {r} THEN {truth} ELSE FALSE END" for r in role_in("role", roles)
    ) or (truth)


def _before(j: int, near: str) -> Iterator[str]:
    yield f"coalesce(bool_or(d{j}) OVER ({near}), FALSE) AS dt{j}"
    yield f"coalesce(bool_or(d{j} IS NULL) OVER ({near}), FALSE) AS dn{j}"
    yield f"min(k{j}x) FILTER (WHERE d{j} IS NULL) OVER ({near}) AS dq{j}"


def _pair(j: int) -> Iterator[str]:
    possible = f"e{j} IS NOT FALSE AND (dt{j} OR dn{j})"
    yield f"CASE WHEN e{j} AND dt{j} THEN TRUE WHEN {possible} THEN NULL ELSE FALSE END AS b{j}"
    rank = f"least(dq{j}, CASE WHEN e{j} IS NULL THEN k{j}y END)"
    yield f"CASE WHEN {possible} AND NOT (e{j} IS TRUE AND dt{j}) THEN {rank} END AS q{j}"
