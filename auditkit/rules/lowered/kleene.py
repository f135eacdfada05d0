"""Three-valued logic over intervals, with the reason that comes first carried along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from auditkit.core.verdicts import Reason
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.plan import Cut, FrameAtLeast, FrameNode, FrameNot

KNOWN = len(Reason)
"""The rank of what has no reason to be unknown: after all reasons."""


class Judged(NamedTuple):
    """True, false, or None with the rank of its reason."""

    truth: bool | None
    rank: int = KNOWN


class Held(NamedTuple):
    """What is known of a value: low ≤ value · share ≤ high, in units of 2⁻²⁰ (None: unbounded).

    `share` is the number of tokens that a mean or fraction is taken over, else 1. `rank` is the
    first reason for what is not known.
    """

    low: int | None
    high: int | None
    share: int
    rank: int


def decide(cut: Cut, held: Held) -> Judged:
    """Compare: true or false if every possible value agrees, else unknown."""
    if cut.threshold is None:
        return Judged(None, min(cut.missing.rank, held.rank))
    truth = compare(cut.op, held.low, held.high, cut.threshold * held.share)
    return Judged(None, held.rank) if truth is None else Judged(truth)


def compare(op: Op, low: int | None, high: int | None, threshold: float) -> bool | None:
    """Compare an interval (None: unbounded) with a number."""
    above = low is not None and low > threshold
    below = high is not None and high < threshold
    at_least = low is not None and low >= threshold
    at_most = high is not None and high <= threshold
    equal = at_least and at_most
    match op:
        case Op.GE:
            return True if at_least else False if below else None
        case Op.GT:
            return True if above else False if at_most else None
        case Op.LE:
            return True if at_most else False if above else None
        case Op.LT:
            return True if below else False if at_least else None
        case Op.EQ:
            return True if equal else False if above or below else None
        case Op.NE:
            return False if equal else True if above or below else None


def negate(judged: Judged) -> Judged:
    """Kleene's not."""
    return judged if judged.truth is None else Judged(not judged.truth)


def at_least(k: int, operands: Sequence[Judged]) -> Judged:
    """True if k are true, false if fewer than k can be, else unknown for the first reason."""
    true = sum(1 for o in operands if o.truth)
    unknown = [o.rank for o in operands if o.truth is None]
    if true >= k:
        return Judged(True)
    if true + len(unknown) < k:
        return Judged(False)
    return Judged(None, min(unknown))


def judge_frame(node: FrameNode, leaf: Callable[[FrameNode], Judged]) -> Judged:
    """Judge a condition, given how all but its "not" and "at least k of" is judged."""
    match node:
        case FrameNot(operand=operand):
            return negate(judge_frame(operand, leaf))
        case FrameAtLeast(k=k, operands=operands):
            return at_least(k, [judge_frame(o, leaf) for o in operands])
        case _:
            return leaf(node)
