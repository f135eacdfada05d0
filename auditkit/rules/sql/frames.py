"""The frame half of the compiled SQL: the condition's truth, its reason, its firing place, score.

Column `f{i}` is the truth of node i (NULL: unknown), `g{i}` the rank of its first reason and, in a
latching rule, `h{i}` the earliest place at which it is known to be true; those of the whole
condition are called verdict, rank and fires.
"""

from __future__ import annotations

from auditkit.core.fixed_point import SCALE
from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.difference import PLACES
from auditkit.rules.lowered.plan import (
    FAR,
    FrameAtLeast,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    Statistic,
    frame_cuts,
    frame_windows,
)
from auditkit.rules.sql.gathered import shared
from auditkit.rules.sql.parts import Parameters, at_least, compare, least


def frame_levels(plan: Plan, given: Parameters) -> list[tuple[str, list[str]]]:
    """The steps that judge a frame: comparisons first, then what is above; the last has
    verdict, rank, fires and score."""
    writer = FrameColumns(plan, given, placed=plan.latching)
    writer.write(plan.root, ("verdict", "rank", "fires"))
    if not plan.latching:
        writer.levels[-1].append("eligible - 1 AS fires")
    writer.levels[-1].append(f"{_score(plan)} AS score")
    return [(f"judged_{i}", made) for i, made in enumerate(writer.levels)]


def windows_of(plan: Plan) -> list[FrameWindow]:
    """The different windows of a plan; a window's place in this list is its number."""
    return list(dict.fromkeys(frame_windows(plan.root)))


def blind_ranks(plan: Plan, window: FrameWindow) -> list[tuple[int, int]]:
    """Of every comparison in a window: its aggregate, and why it is unknown if that sees none."""
    return [
        (c.aggregate, min(Reason.EMPTY_FRAME.rank, _static(plan, c.aggregate), missing_rank(c)))
        for c in frame_cuts(window.operand)
    ]


def missing_rank(node: FrameCut) -> int:
    """The rank of the reason why there is no threshold; that of no reason where there is one."""
    return node.cut.missing.rank if node.cut.threshold is None else len(Reason)


def _static(plan: Plan, j: int) -> int:
    """The first reason for which an aggregate is unknown whatever the tokens are."""
    a = plan.aggregates[j]
    ranks = [len(Reason)]
    if a.signal is not None and not plan.signals[a.signal].resolved:
        ranks.append(Reason.UNRESOLVED.rank)
    for leaf in a.cuts():
        if not plan.signals[leaf.signal].resolved:
            ranks.append(Reason.UNRESOLVED.rank)
        if leaf.cut.threshold is None:
            ranks.append(leaf.cut.missing.rank)
    return min(ranks)


Names = tuple[str, str, str]


class FrameColumns:
    """Writes a condition level by level (see sql_tokens); with places, where they are needed."""

    def __init__(self, plan: Plan, given: Parameters, *, placed: bool) -> None:
        self.plan, self.given, self.placed = plan, given, placed
        self.levels: list[list[str]] = []
        self.windows = windows_of(plan)
        self.nodes = 0
        self.cuts = 0

    def write(self, node: FrameNode, names: Names) -> int:
        """Add a node's columns under the given names; return its level."""
        level = 0
        match node:
            case FrameCut():
                truth, rank, place = self.cut(node, names[0])
            case FrameWindow():
                truth, rank, place = self.window(node)
            case FrameKnown(truth=known):
                truth = f"CASE WHEN eligible > 0 THEN {'TRUE' if known else 'FALSE'} END"
                rank, place = str(Reason.EMPTY_FRAME.rank), "0" if known else "NULL"
            case FrameNot(operand=operand):
                level, parts = self.parts((operand,))
                truth, rank, place = f"NOT {parts[0][0]}", parts[0][1], "NULL"
            case FrameAtLeast(k=k, operands=operands):
                level, parts = self.parts(operands)
                truth = at_least(k, [p[0] for p in parts])
                rank = least([p[1] for p in parts])
                place = _kth(k, [p[2] for p in parts])
        while level >= len(self.levels):
            self.levels.append([])
        made = self.levels[level]
        made.append(f"{truth} AS {names[0]}")
        made.append(f"CASE WHEN {names[0]} IS NULL THEN {rank} END AS {names[1]}")
        if self.placed:
            made.append(f"{place} AS {names[2]}")
        return level

    def parts(self, operands: tuple[FrameNode, ...]) -> tuple[int, list[Names]]:
        """Write the operands; return the level above them and their columns' names."""
        names: list[Names] = []
        level = 0
        for operand in operands:
            names.append((f"f{self.nodes}", f"g{self.nodes}", f"h{self.nodes}"))
            self.nodes += 1
            level = max(level, self.write(operand, names[-1]) + 1)
        return level, names

    def cut(self, node: FrameCut, truth: str) -> Names:
        """A comparison's truth, the rank of the reason it would be unknown for, and its place."""
        j, cut = node.aggregate, node.cut
        place = f"a{self.cuts}"
        rank = f"dr{j}" if node.paired else rank_of(self.plan, j)
        self.cuts += 1
        if cut.threshold is None:
            return "CAST(NULL AS BOOLEAN)", least([str(cut.missing.rank), rank]), place
        if node.paired:
            threshold = f"{self.given.huge(cut.threshold)} * ds{j}"
            return compare(cut.op, f"dlo{j}", f"dhi{j}", threshold), f"dr{j}", place
        aggregate = self.plan.aggregates[j]
        share = shared(aggregate, f"n{j}")
        threshold = self.given.huge(cut.threshold) + ("" if share is None else f" * {share}")
        if aggregate.statistic is Statistic.ROLLING:  # short of a window: known at the end
            place = f"coalesce({place}, CASE WHEN {truth} THEN eligible - 1 END)"
        return compare(cut.op, f"lo{j}", f"hi{j}", threshold), rank, place

    def window(self, node: FrameWindow) -> Names:
        """The truth, rank and place that were found of a window."""
        number = self.windows.index(node)
        blind = min(rank for _, rank in blind_ranks(self.plan, node))
        return f"wt{number}", f"coalesce(wr{number}, {blind})", f"wp{number}"


def rank_of(plan: Plan, j: int, side: str = "") -> str:
    """The rank of the reason for which aggregate j is not known; `side`: before column names."""
    a, static, empty = plan.aggregates[j], _static(plan, j), Reason.EMPTY_FRAME.rank
    if a.signal is None:
        return f"CASE WHEN {side}n{j} = 0 THEN {min(static, empty)} ELSE {side}r{j} END"
    if static == Reason.UNRESOLVED.rank:
        return str(static)
    return f"CASE WHEN {side}n{j} = 0 THEN {empty} ELSE {Reason.NOT_COVERED.rank} END"


def open_rank(plan: Plan, j: int, side: str) -> str:
    """The same where the aggregate is not known, NULL where it is."""
    known = f"{side}lo{j} = {side}hi{j}"
    return f"CASE WHEN {known} THEN NULL ELSE {rank_of(plan, j, side)} END"


def _kth(k: int, places: list[str]) -> str:
    """When at least k are true: the k-th of their earliest places, NULL if fewer ever are."""
    if len(places) == 1:
        return places[0]
    if k == 1:
        return f"least({', '.join(places)})"
    return f"list_sort([{', '.join(places)}], 'ASC', 'NULLS LAST')[{k}]"


def _score(plan: Plan) -> str:
    j = plan.score
    if j is None:
        return "CAST(NULL AS DOUBLE)"
    if plan.score_paired:
        quotient = f"CAST(dlo{j} AS DOUBLE) / CAST(ds{j} * {SCALE} AS DOUBLE)"
        near = f" AND abs(dlo{j}) < {FAR // 2}" if plan.aggregates[j].statistic in PLACES else ""
        return f"CASE WHEN dlo{j} = dhi{j}{near} THEN {quotient} END"
    share = shared(plan.aggregates[j], f"n{j}")
    scale = str(SCALE) if share is None else f"{share} * {SCALE}"
    quotient = f"CAST(lo{j} AS DOUBLE) / CAST({scale} AS DOUBLE)"
    near = f" AND abs(lo{j}) < {FAR}" if plan.aggregates[j].statistic in PLACES else ""
    return f"CASE WHEN lo{j} = hi{j}{near} THEN {quotient} END"
