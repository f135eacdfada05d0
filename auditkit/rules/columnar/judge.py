"""A plain rule on laid out tokens: verdict, reason, firing place, token and score of every frame.

All in integers of 2⁻²⁰, as in SQL. Where a sum could leave the range in which 64 bits, or a double
in between, are exact, nothing is said (None).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from auditkit.core.fixed_point import SCALE
from auditkit.core.verdicts import Reason
from auditkit.rules.columnar.layout import ColumnLayout, Flags, Integers, Seen
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.plan import (
    Cut,
    FrameAtLeast,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    PlanAggregate,
    PlanSignal,
    Statistic,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
)

_Kind = TypeVar("_Kind", bound=np.generic)

NEVER = np.iinfo(np.int64).max
_EXACT = 2.0**52
_MOST = 2.0**62

_COMPARE = {
    Op.GE: np.greater_equal,
    Op.GT: np.greater,
    Op.LE: np.less_equal,
    Op.LT: np.less,
    Op.EQ: np.equal,
    Op.NE: np.not_equal,
}


class ActiveRows(Protocol):
    """The activations of a recording."""

    def of_latents(
        self, latents: Sequence[int]
    ) -> tuple[Integers, NDArray[np.float32], NDArray[np.int64]]:
        """The numbers of tokens in the TokenColumns and values there, one latent after another,
        and how many there are of each."""
        ...


class _TooLarge(Exception):
    """A number is beyond what is exact here."""


def evaluate_columns(plan: Plan, layout: ColumnLayout, rows: ActiveRows) -> pa.Table | None:
    """The rows that `compile_sql` gives for a plain rule (see `is_plain`) where all tokens are
    covered, in the same order; None where a number is too large to be exact here."""
    try:
        return _Judge(plan, layout, rows).table()
    except _TooLarge:
        return None


class _Judge:
    def __init__(self, plan: Plan, layout: ColumnLayout, rows: ActiveRows) -> None:
        self.plan, self.layout = plan, layout
        self.values = [_values(signal, layout, rows) for signal in plan.signals]
        self.tests: dict[TokenNode, Flags] = {}
        self.totals = [self.total(a) for a in plan.aggregates]

    def table(self) -> pa.Table:
        true, known, place = self.frame(self.plan.root)
        if not self.plan.latching:
            place = self.layout.counts - 1
        fires = np.flatnonzero(true)
        token = np.zeros(len(true), dtype=np.int64)
        token[fires] = self.layout.token[self.layout.starts[fires] + place[fires]]
        verdicts = np.where(known, np.where(true, 0, 1), 2).astype(np.int8)
        return pa.table(
            {
                "prompt": self.layout.prompt,
                "frame": pa.array(self.layout.number),
                "verdict": _words(verdicts, ["true", "false", "unknown"]),
                "reason": _reasons(known),
                "at": pa.array(np.where(true, place, 0).astype(np.int32), mask=~true),
                "token": pa.array(token, mask=~true),
                "score": self.score(),
            }
        )

    def score(self) -> pa.Array:
        if self.plan.score is None:
            return pa.nulls(len(self.layout.counts), pa.float64())
        total, share, seen = self.totals[self.plan.score]
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = total.astype(np.float64) / (share * SCALE).astype(np.float64)
        return pa.array(quotient, mask=seen.counts == 0)

    def frame(self, node: FrameNode) -> tuple[Flags, Flags, Integers]:
        """Is it true, is it known, and from which place on is it true?"""
        match node:
            case FrameCut():
                return self.cut(node)
            case FrameKnown(truth=truth):
                known = self.layout.counts > 0
                place = np.full(len(known), 0 if truth else NEVER)
                return known & truth, known, place
            case FrameNot(operand=operand):
                true, known, place = self.frame(operand)
                return known & ~true, known, np.full_like(place, NEVER)
            case FrameAtLeast(k=k, operands=operands):
                parts = [self.frame(o) for o in operands]
                true = np.sum([t for t, _, _ in parts], axis=0) >= k
                possible = np.sum([t | ~known for t, known, _ in parts], axis=0) >= k
                places = np.sort([p for _, _, p in parts], axis=0)
                return true, true | ~possible, places[k - 1]
            case FrameWindow():
                raise AssertionError("a window is not plain")

    def cut(self, node: FrameCut) -> tuple[Flags, Flags, Integers]:
        total, share, seen = self.totals[node.aggregate]
        known = seen.counts > 0
        threshold = _threshold(node.cut)
        if abs(threshold) * float(share.max(initial=1)) >= _MOST:
            raise _TooLarge
        true = known & _COMPARE[node.cut.op](total, threshold * share)
        if not self.plan.latching:
            return true, known, np.full(len(true), NEVER)
        aggregate = self.plan.aggregates[node.aggregate]
        place = self.earliest(aggregate, seen, node.cut.op, threshold)
        if aggregate.statistic is Statistic.ROLLING:  # short of a window: known at the end
            place = np.where((place == NEVER) & true, self.layout.counts - 1, place)
        return true, known, place

    def earliest(self, a: PlanAggregate, seen: Seen, op: Op, threshold: int) -> Integers:
        """The earliest place at which the comparison is true of the tokens so far."""
        if a.signal is None:
            so_far = np.cumsum(_of(self.tests_of(a), seen), dtype=np.int64)
            so_far -= np.repeat(_before(so_far, seen), seen.counts)
            true = _COMPARE[op](so_far * SCALE, threshold)
        elif a.statistic is Statistic.ROLLING:
            sums, full = _rolling(_of(self.values[a.signal], seen), seen, a.argument)
            if abs(threshold) * float(a.argument) >= _MOST:
                raise _TooLarge
            true = full & _COMPARE[op](sums, threshold * a.argument)
        else:
            true = _COMPARE[op](_of(self.values[a.signal], seen), threshold)
        at = np.flatnonzero(true)
        at = at if seen.places is None else seen.places[at]
        frame = self.layout.frame[at]
        first = np.flatnonzero(np.diff(frame, prepend=-1))
        place = np.full(len(self.layout.counts), NEVER)
        place[frame[first]] = at[first] - self.layout.starts[frame[first]]
        return place

    def total(self, a: PlanAggregate) -> tuple[Integers, Integers, Seen]:
        """An aggregate's value times its share, its share, and the tokens that it sees."""
        seen = self.layout.seen(a.roles)
        one = np.ones_like(seen.counts)
        if a.signal is None:
            total = _reduced(np.add, _of(self.tests_of(a), seen).astype(np.int64), seen)
            return total * SCALE, seen.counts if a.statistic is Statistic.FRAC else one, seen
        values = _of(self.values[a.signal], seen)
        if a.statistic is Statistic.MAX:
            return _reduced(np.maximum, values, seen), one, seen
        total = _reduced(np.add, values, seen)
        if a.statistic is Statistic.ROLLING:
            sums, full = _rolling(values, seen, a.argument)
            largest = _reduced(np.maximum, np.where(full, sums, np.iinfo(np.int64).min), seen)
            enough = seen.counts >= a.argument
            return np.where(enough, largest, total), np.minimum(seen.counts, a.argument), seen
        return total, seen.counts if a.statistic is Statistic.MEAN else one, seen

    def tests_of(self, a: PlanAggregate) -> Flags:
        assert a.test is not None
        if a.test not in self.tests:
            self.tests[a.test] = self.token(a.test)
        return self.tests[a.test]

    def token(self, node: TokenNode) -> Flags:
        match node:
            case TokenCut(signal=signal, cut=cut):
                return _COMPARE[cut.op](self.values[signal], _threshold(cut))
            case TokenNot(operand=operand):
                return ~self.token(operand)
            case TokenAtLeast(k=k, operands=operands):
                return np.sum([self.token(o) for o in operands], axis=0) >= k


def _of(column: NDArray[_Kind], seen: Seen) -> NDArray[_Kind]:
    """Of one entry per token, those of the tokens that are seen."""
    return column if seen.places is None else column[seen.places]


def _threshold(cut: Cut) -> int:
    assert cut.threshold is not None
    if abs(cut.threshold) >= _MOST:
        raise _TooLarge
    return cut.threshold


def _values(signal: PlanSignal, layout: ColumnLayout, rows: ActiveRows) -> Integers:
    """The signal at every token that is in a frame."""
    latents = sorted(signal.latents, key=lambda x: x.latent)
    tokens, values, lengths = rows.of_latents([x.latent for x in latents])
    at = layout.places[tokens]
    kept = at >= 0

    def each(column: Sequence[float]) -> NDArray[np.float64]:
        return np.repeat(np.array(column, dtype=np.float64), lengths)[kept]

    weighted = each([x.weight for x in latents]) * (
        values[kept].astype(np.float64) - each([x.zero for x in latents])
    )
    lowered = np.floor(weighted / each([x.scale for x in latents]) * float(SCALE) + 0.5)
    taken_off = np.repeat(np.array([x.silence for x in latents], dtype=np.int64), lengths)[kept]
    most = float(np.abs(lowered).max(initial=0.0)) + max(abs(x.silence) for x in latents)
    most = most * len(latents) + abs(signal.constant)
    n = len(layout.token)
    if not (most * int(layout.counts.max(initial=1)) < _EXACT and most * max(n, 1) < _MOST):
        raise _TooLarge
    shares = lowered.astype(np.int64) - taken_off
    if not signal.largest:
        return np.bincount(at[kept], shares, n).astype(np.int64) + signal.constant
    active = np.bincount(at[kept], minlength=n)
    largest = np.full(n, np.iinfo(np.int64).min)
    np.maximum.at(largest, at[kept], shares)
    largest = np.where(active < len(latents), np.maximum(largest, 0), largest)
    return largest + signal.constant


def _reduced(function: np.ufunc, values: Integers, seen: Seen) -> Integers:
    """One value per frame; 0 where it sees no token."""
    found = np.zeros(len(seen.counts), dtype=np.int64)
    some = seen.counts > 0
    if some.any():
        found[some] = function.reduceat(values, seen.starts[some])
    return found


def _before(so_far: Integers, seen: Seen) -> Integers:
    """What a running sum over all tokens had reached before each frame."""
    return np.concatenate([[0], so_far])[seen.starts]


def _rolling(values: Integers, seen: Seen, width: int) -> tuple[Integers, Flags]:
    """The sum of the `width` tokens of the frame that end at each, and whether there are as many.
    Of no meaning where there are not."""
    so_far = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values)])
    n = len(values)
    begin = np.maximum(np.arange(1, n + 1) - width, 0)
    full = np.arange(n) - np.repeat(seen.starts, seen.counts) >= width - 1
    return so_far[1:] - so_far[begin], full


def _words(codes: NDArray[np.int8], words: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), words).dictionary_decode()


def _reasons(known: Flags) -> pa.Array:
    """A frame is unknown because it is empty, and for no other reason here."""
    if known.all():
        return pa.nulls(len(known), pa.string())
    empty = pa.array([None, Reason.EMPTY_FRAME.value], pa.string())
    return empty.take(pa.array((~known).astype(np.int8)))
