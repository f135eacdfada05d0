"""Windows in SQL: every token is laid into the windows that it is part of, and each is judged.

A window is named by the place of its last token, `wend`. A frame shorter than the window is one.
Window number w of the plan comes out as its truth `wt{w}`, the rank of its first reason `wr{w}`
and the place `wp{w}` at which it is first true.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.rules.lowered.plan import FrameWindow, Plan
from auditkit.rules.sql.frames import FrameColumns, blind_ranks, windows_of
from auditkit.rules.sql.gathered import gathered_columns, sees_none
from auditkit.rules.sql.order import order_steps
from auditkit.rules.sql.parts import Extent, Parameters, columns, least

Steps = list[tuple[str, str]]


def window_steps(plan: Plan, given: Parameters, source: str) -> tuple[Steps, list[str]]:
    """The steps from placed and tested tokens to what was found; and the last of each size."""
    windows = windows_of(plan)
    steps, last = Steps(), list[str]()
    for size in sorted({w.size for w in windows}):
        numbered = [(n, w) for n, w in enumerate(windows) if w.size == size]
        steps += _of_size(plan, given, source, size, numbered)
        last.append(steps[-1][0])
    return steps, last


def _of_size(
    plan: Plan, given: Parameters, source: str, size: int, windows: list[tuple[int, FrameWindow]]
) -> Iterator[tuple[str, str]]:
    extent = Extent(size)
    yield (
        f"measured_{size}",
        f"SELECT *, count(*) OVER (PARTITION BY prompt, frame) AS total\n  FROM {source}",
    )
    first = f"greatest(epos, least({size}, total) - 1)"
    last = f"least(epos + {size}, total)"
    yield (
        f"spread_{size}",
        f"SELECT *, unnest(range({first}, {last})) AS wend\n  FROM measured_{size}",
    )
    before = f"spread_{size}"
    for name, made in order_steps(plan, extent, given):
        yield f"{name}_{size}", f"SELECT {columns(['*', *made])}\n  FROM {before}"
        before = f"{name}_{size}"
    made = [extent.keys, "count(*) AS eligible", *gathered_columns(plan, extent, given)]
    yield (
        f"gathered_{size}",
        f"SELECT {columns(made)}\n  FROM {before}\n  GROUP BY {extent.keys}",
    )
    before = f"gathered_{size}"
    writer = FrameColumns(plan, given, placed=False)
    for number, window in windows:
        writer.write(window.operand, (f"x{number}", f"y{number}", ""))
    for level, made in enumerate(writer.levels):
        yield f"judged_{size}_{level}", f"SELECT {columns(['*', *made])}\n  FROM {before}"
        before = f"judged_{size}_{level}"
    found = [c for number, window in windows for c in _found(plan, number, window)]
    yield (
        f"found_{size}",
        f"SELECT {columns(['prompt', 'frame', *found])}\n  FROM {before}\n  GROUP BY prompt, frame",
    )


def _found(plan: Plan, w: int, window: FrameWindow) -> Iterator[str]:
    ranks = blind_ranks(plan, window)
    seen = " AND ".join(f"n{j} > 0" for j in dict.fromkeys(j for j, _ in ranks))
    blind = least(
        [f"CASE WHEN {sees_none(plan.aggregates[j], j)} THEN {rank} END" for j, rank in ranks]
    )
    holds, open_ = f"bool_or({seen} AND x{w})", f"bool_or({seen} AND x{w} IS NULL)"
    truth = f"WHEN {holds} THEN TRUE WHEN {open_} THEN NULL ELSE FALSE"
    yield f"CASE WHEN {blind} IS NOT NULL THEN NULL {truth} END AS wt{w}"
    yield f"coalesce({blind}, min(y{w}) FILTER (WHERE {seen})) AS wr{w}"
    yield f"min(wend) FILTER (WHERE {seen} AND x{w}) AS wp{w}"
