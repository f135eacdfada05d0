"""The smallest change of a frame's statistics that turns a condition's verdict over.

A comparison `statistic OP t` turns over when its statistic reaches the nearest value on the other
side of t. What that costs is its relative distance |value − nearest| / |t| (/ one unit where t is
0); values move in steps of 2⁻²⁰, counts and places by whole tokens, shares by one token of those
seen. Of a difference the message's own statistic moves, never the twin's. A change is a set of
statistics with new values, the others staying where they are; it costs the sum of its moves. `not`
costs what its operand costs; of "at least k" as many operands as it takes are turned over, the
cheapest first: the least over `or`, the sum over `and`, for false → true (the other way round for
true → false). Where one statistic stands in several comparisons it has one value in all of them,
and sets of moves are tried cheapest first.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from auditkit.core.fixed_point import SCALE, lift
from auditkit.core.measured import NotMeasured
from auditkit.rules.lowered.difference import PLACES, subtract
from auditkit.rules.lowered.kleene import KNOWN, Held, Judged, decide, judge_frame
from auditkit.rules.lowered.plan import (
    FAR,
    Cut,
    FrameAtLeast,
    FrameCut,
    FrameNode,
    FrameNot,
    Plan,
    Statistic,
)

MOST_TRIED = 20_000
_WHOLE_TOKENS = (
    Statistic.COUNT,
    Statistic.FRAC,
    Statistic.RUN,
    Statistic.THEN,
    Statistic.FIRST,
    Statistic.LAST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A statistic brought from one value to another, both times its share, in units of 2⁻²⁰."""

    aggregate: int
    value: int
    to: int
    share: int
    cost: float

    @property
    def before(self) -> float:
        """The statistic as it is (±infinity: the place of no token)."""
        return _lifted(self.value, self.share)

    @property
    def after(self) -> float:
        """The statistic as it would have to be."""
        return _lifted(self.to, self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """The cheapest moves that turn the verdict into `truth`, and what they cost together."""

    truth: bool
    cost: float
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameState:
    """A finished frame: how every part outside windows was judged, and what is known of every
    statistic; `seen` is how many tokens each statistic was taken over, `twin` what is known of the
    twin's statistics (nothing where there is no twin)."""

    plan: Plan
    judged: Mapping[FrameNode, Judged]
    held: Mapping[int, Held]
    seen: Mapping[int, int]
    twin: Mapping[int, Held] = field(default_factory=dict[int, Held])

    def compared(self, cut: FrameCut, own: Held) -> Held:
        """What a comparison looks at: a statistic, or what it is more than the twin's."""
        if not cut.paired:
            return own
        place = self.plan.aggregates[cut.aggregate].statistic in PLACES
        return subtract(own, self.twin.get(cut.aggregate), place=place)

    def judge(self, values: Mapping[int, int] | None = None) -> Judged:
        """The root's verdict if some statistics (times their shares) had these values."""
        given = values or {}

        def leaf(node: FrameNode) -> Judged:
            if isinstance(node, FrameCut) and node.aggregate in given:
                value, share = given[node.aggregate], self.held[node.aggregate].share
                return decide(node.cut, self.compared(node, Held(value, value, share, KNOWN)))
            return self.judged[node]

        return judge_frame(self.plan.root, leaf)


def find_flip(state: FrameState) -> Flip | NotMeasured:
    """The smallest change that turns a decided verdict over; NotMeasured says why there is none."""
    truth = state.judge().truth
    if truth is None:
        return NotMeasured("the verdict is unknown")
    cuts = [n for n in _outside_windows(state.plan.root) if isinstance(n, FrameCut)]
    shared = len({c.aggregate for c in cuts}) < len(set(cuts))
    if shared or len(cuts) != len(set(cuts)):
        return _search(state, cuts, truth)
    moves = _cheapest(state.plan.root, state)
    if moves is None:
        return NotMeasured("no change of these statistics turns it over")
    return Flip(truth=not truth, cost=_total(moves), moves=tuple(moves))


def nearest_move(cut: FrameCut, state: FrameState) -> Move | None:
    """The smallest change of its statistic that turns one comparison over; None: there is none."""
    held = state.held.get(cut.aggregate)
    if held is None or held.low is None or held.low != held.high or cut.cut.threshold is None:
        return None
    now = decide(cut.cut, state.compared(cut, held)).truth
    found = [
        m
        for m in _moves(cut, held, state)
        if decide(cut.cut, state.compared(cut, Held(m.to, m.to, m.share, KNOWN))).truth is not now
    ]
    return min(found, key=lambda m: m.cost, default=None)


def _outside_windows(node: FrameNode) -> list[FrameNode]:
    if isinstance(node, FrameNot):
        return _outside_windows(node.operand)
    if isinstance(node, FrameAtLeast):
        return [n for o in node.operands for n in _outside_windows(o)]
    return [node]


def _cheapest(node: FrameNode, state: FrameState) -> list[Move] | None:
    """The cheapest moves that turn a part over; exact where every statistic stands in one place."""
    match node:
        case FrameCut():
            move = nearest_move(node, state)
            return None if move is None else [move]
        case FrameNot(operand=operand):
            return _cheapest(operand, state)
        case FrameAtLeast(k=k, operands=operands):
            judged = [_judged(o, state) for o in operands]
            true, known_false = judged.count(True), judged.count(False)
            now = true >= k
            if not now and len(operands) - known_false >= k:
                return None  # unknown: nothing to turn over
            needed = len(operands) - known_false - k + 1 if now else k - true
            options = [
                moves
                for operand, truth in zip(operands, judged, strict=True)
                if truth is now and (moves := _cheapest(operand, state)) is not None
            ]
            if len(options) < needed:
                return None
            chosen = sorted(options, key=_total)[:needed]
            return [move for moves in chosen for move in moves]
        case _:
            return None


def _judged(node: FrameNode, state: FrameState) -> bool | None:
    return judge_frame(node, lambda n: state.judged[n]).truth


def _total(moves: Sequence[Move]) -> float:
    return sum(m.cost for m in moves)


def _search(state: FrameState, cuts: Sequence[FrameCut], truth: bool) -> Flip | NotMeasured:
    """Sets of moves, at most one a statistic, cheapest first."""
    options: dict[int, dict[int, Move]] = {}
    for cut in dict.fromkeys(cuts):
        held = state.held[cut.aggregate]
        if held.low is None or held.low != held.high or cut.cut.threshold is None:
            continue
        to = options.setdefault(cut.aggregate, {})
        for move in _moves(cut, held, state):
            if move.to not in to or move.cost < to[move.to].cost:
                to[move.to] = move
    columns = [list(moves.values()) for _, moves in sorted(options.items())]
    queue: list[tuple[float, int, int, tuple[Move, ...]]] = [(0.0, 0, 0, ())]
    order = 0
    for _ in range(MOST_TRIED):
        if not queue:
            return NotMeasured("no change of these statistics turns it over")
        cost, _, start, moves = heapq.heappop(queue)
        if state.judge({m.aggregate: m.to for m in moves}).truth is (not truth):
            return Flip(truth=not truth, cost=cost, moves=moves)
        for column in range(start, len(columns)):
            for move in columns[column]:
                order += 1
                entry = (cost + move.cost, order, column + 1, (*moves, move))
                heapq.heappush(queue, entry)
    return NotMeasured(f"not among the {MOST_TRIED:,} cheapest changes")


def _moves(cut: FrameCut, held: Held, state: FrameState) -> list[Move]:
    """To the values around the threshold that the statistic can take: below, at and above it."""
    statistic = state.plan.aggregates[cut.aggregate].statistic
    assert held.low is not None
    assert cut.cut.threshold is not None
    step = SCALE if statistic in _WHOLE_TOKENS else 1
    border = _border(cut, held, state)
    if border is None:
        return []
    below, above = -(-border // step) * step - step, border // step * step + step
    at = [int(border)] if border % step == 0 else []
    low, high = _range(cut.aggregate, held, state)
    found: list[Move] = []
    for target in (below, *at, above):
        to, distance = _reach(statistic, held.low, target, low, high)
        if to is not None and to != held.low:
            cost = distance / _unit(cut.cut, held.share)
            found.append(
                Move(aggregate=cut.aggregate, value=held.low, to=to, share=held.share, cost=cost)
            )
    return found


def _border(cut: FrameCut, held: Held, state: FrameState) -> Fraction | None:
    """Where the statistic, times its share, reaches the threshold; None: nobody knows."""
    assert cut.cut.threshold is not None
    if not cut.paired:
        return Fraction(cut.cut.threshold * held.share)
    twin = state.twin.get(cut.aggregate)
    if twin is None or twin.low is None or twin.low != twin.high or abs(twin.low) == FAR:
        return None
    return (cut.cut.threshold + Fraction(twin.low, twin.share)) * held.share


def _unit(cut: Cut, share: int) -> int:
    assert cut.threshold is not None
    return (abs(cut.threshold) or SCALE) * share


def _reach(
    statistic: Statistic, value: int, target: int, low: int | None, high: int | None
) -> tuple[int | None, int]:
    """Where a statistic comes to on the way to `target`, and how far that is.

    The place of no token lies one beyond the last place (`first`) or before the first (`last`).
    """
    if statistic in PLACES:
        assert low is not None
        assert high is not None
        nowhere = high + SCALE if statistic is Statistic.FIRST else low - SCALE
        start = nowhere if abs(value) == FAR else value
        beyond = target > high if statistic is Statistic.FIRST else target < low
        if beyond:
            return (FAR if statistic is Statistic.FIRST else -FAR), abs(nowhere - start)
        value = start
    if (low is not None and target < low) or (high is not None and target > high):
        return None, 0
    return target, abs(target - value)


def _range(aggregate: int, held: Held, state: FrameState) -> tuple[int | None, int | None]:
    """The least and the greatest that a statistic times its share can be."""
    part, seen = state.plan.aggregates[aggregate], state.seen[aggregate]
    if part.signal is None:
        last = seen - 1 if part.statistic in PLACES else seen
        return 0, last * SCALE
    floor = state.plan.signals[part.signal].floor
    times = seen if part.statistic is Statistic.SUM else held.share
    return None if floor is None else floor * times, None


def _lifted(value: int, share: int) -> float:
    if abs(value) == FAR:
        return float("inf") if value > 0 else float("-inf")
    return lift(value) / share
