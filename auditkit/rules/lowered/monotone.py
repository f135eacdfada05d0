"""What a condition can only become: true for good as tokens come, false as a threshold rises."""

from __future__ import annotations

from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.plan import (
    FrameAtLeast,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    PlanAggregate,
    Statistic,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
)

_RISING = (Statistic.MAX, Statistic.COUNT, Statistic.RUN, Statistic.ROLLING, Statistic.THEN)
_UP, _DOWN = (Op.GE, Op.GT), (Op.LE, Op.LT)


def is_latching(node: FrameNode, aggregates: tuple[PlanAggregate, ...]) -> bool:
    """Once true of the tokens so far, is the node true of any that follow?

    A window holds by itself, whatever is asked of it; so does a rolling mean that is full.
    """
    match node:
        case FrameCut(paired=True):
            return False
        case FrameCut(aggregate=number, cut=cut):
            statistic = aggregates[number].statistic
            if statistic is Statistic.FIRST:
                return cut.op in _DOWN
            return cut.op in _UP and statistic in _RISING
        case FrameNot():
            return False
        case FrameAtLeast(operands=operands):
            return all(is_latching(o, aggregates) for o in operands)
        case FrameKnown() | FrameWindow():
            return True


def falls_with_threshold(plan: Plan) -> bool:
    """Does raising `calibrated` only ever make the rule fire less? True where none is used."""
    return _falls_frame(plan.root, plan, positive=True)


def _falls_frame(node: FrameNode, plan: Plan, *, positive: bool) -> bool:
    match node:
        case FrameNot(operand=operand):
            return _falls_frame(operand, plan, positive=not positive)
        case FrameAtLeast(operands=operands):
            return all(_falls_frame(o, plan, positive=positive) for o in operands)
        case FrameWindow(operand=operand):
            return _falls_frame(operand, plan, positive=positive)
        case FrameKnown():
            return True
        case FrameCut(aggregate=number, cut=cut):
            if cut.calibrated:
                return positive and cut.op in _UP
            aggregate = plan.aggregates[number]
            if not any(c.cut.calibrated for c in aggregate.cuts()):
                return True
            if node.paired or cut.op not in (*_UP, *_DOWN):  # the twin's falls as well
                return False
            # the more tokens satisfy its test, the earlier is `first`; all others rise
            rises = (cut.op in _UP) == (aggregate.statistic is not Statistic.FIRST)
            return all(_falls_token(t, positive=positive == rises) for t in aggregate.tests)


def _falls_token(node: TokenNode, *, positive: bool) -> bool:
    match node:
        case TokenNot(operand=operand):
            return _falls_token(operand, positive=not positive)
        case TokenAtLeast(operands=operands):
            return all(_falls_token(o, positive=positive) for o in operands)
        case TokenCut(cut=cut):
            return not cut.calibrated or (positive and cut.op in (Op.GE, Op.GT))
