"""At which calibrated thresholds does a finished frame fire? What calibration counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import lift
from auditkit.core.locks import LockedRule
from auditkit.core.verdicts import Truth
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.kleene import Held
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.monotone import falls_with_threshold
from auditkit.rules.lowered.plan import (
    FAR,
    Cut,
    FrameAtLeast,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
    frame_cuts,
)
from auditkit.rules.streaming.stream import StreamEvaluator, TokenSignals

Twin = Sequence[TokenSignals] | None


def critical_threshold(
    rule: LockedRule | Plan, frame: Sequence[TokenSignals], twin: Twin = None
) -> float | None:
    """The largest `calibrated` at which the rule fires on a frame, beside that of its twin.

    None: it fires at no threshold; +inf: it fires whatever the threshold. Exact in units of 2⁻²⁰.
    Raises InvalidInput where the condition has no `calibrated`, or where raising it could make the
    rule fire more.
    """
    plan = lower_rule(rule)
    if not falls_with_threshold(plan):
        raise InvalidInput(
            "a rule whose condition may turn true as 'calibrated' rises has no certified threshold",
            help="compare with >= or >, and not beneath 'not' or 'none of'",
        )
    for node in frame_cuts(plan.root):
        if node.cut.calibrated:
            inside = plan.aggregates[node.aggregate].window
            if not inside:
                return _at_frame_level(plan, node, frame, twin)
            return _search(plan, _window_values(plan, node, frame), frame, twin)
    leaves = [c for a in plan.aggregates for c in a.cuts() if c.cut.calibrated]
    if not leaves:
        raise InvalidInput("the condition has no 'calibrated' threshold")
    return _search(plan, _token_values(plan, leaves[0], frame), frame, twin)


def evaluate_pair(plan: Plan, frame: Sequence[TokenSignals], twin: Twin) -> StreamEvaluator:
    """An evaluator that has seen a whole frame, beside that of its twin where there is one."""
    evaluator = StreamEvaluator(plan)
    if twin is not None:
        evaluator.compare_with(twin)
    evaluator.push(frame)
    return evaluator


def _at_frame_level(
    plan: Plan, node: FrameCut, frame: Sequence[TokenSignals], twin: Twin
) -> float | None:
    evaluator = evaluate_pair(plan, frame, twin)
    if evaluator.judge_with(False).truth is Truth.TRUE:
        return math.inf
    if evaluator.judge_with(True).truth is not Truth.TRUE:
        return None
    return _largest(node.cut.op, evaluator.held(node.aggregate, paired=node.paired))


def _largest(op: Op, held: Held) -> float | None:
    """The largest T with low ≥ T·share (or low > T·share)."""
    if held.low is None or held.low <= -FAR * held.share:
        return None
    return math.inf if held.low >= FAR * held.share else lift(_step(op, held.low, held.share))


def _step(op: Op, low: int, share: int) -> int:
    return low // share if op is Op.GE else -(-low // share) - 1


def _window_values(plan: Plan, node: FrameCut, frame: Sequence[TokenSignals]) -> list[int]:
    """The thresholds at which a comparison inside a window changes in one of the windows."""
    evaluator, steps = StreamEvaluator(plan), set[int]()
    for token in frame:
        evaluator.push([token])
        held = evaluator.in_last_window(node.aggregate)
        if held.low is not None and abs(held.low) < FAR:
            steps.add(_step(node.cut.op, held.low, held.share))
    return sorted(steps)


def _token_values(plan: Plan, leaf: TokenCut, frame: Sequence[TokenSignals]) -> list[int]:
    """The thresholds at which a comparison changes at one of the tokens."""
    signal = plan.signals[leaf.signal]
    seen = {t.values[signal.name] for t in frame} if signal.resolved else set[int | None]()
    known = {signal.floor if v is None else v for v in seen}
    return sorted(v if leaf.cut.op is Op.GE else v - 1 for v in known if v is not None)


def _search(
    plan: Plan, steps: Sequence[int], frame: Sequence[TokenSignals], twin: Twin
) -> float | None:
    """The largest of `steps` at which the rule fires; infinity if it does beyond them all."""
    beyond = (steps[-1] if steps else 0) + 1
    if _fires(plan, beyond, frame, twin):
        return math.inf
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        fires = _fires(plan, steps[middle], frame, twin)
        low, high = (middle + 1, high) if fires else (low, middle)
    return lift(steps[low - 1]) if low else None


def _fires(plan: Plan, threshold: int, frame: Sequence[TokenSignals], twin: Twin) -> bool:
    evaluator = evaluate_pair(with_threshold(plan, threshold), frame, twin)
    return evaluator.finish().truth is Truth.TRUE


def with_threshold(plan: Plan, threshold: int) -> Plan:
    """The plan with `calibrated` set to `threshold`, in units of 2⁻²⁰."""
    aggregates = tuple(
        replace(
            a,
            test=None if a.test is None else _token(a.test, threshold),
            second=None if a.second is None else _token(a.second, threshold),
        )
        for a in plan.aggregates
    )
    return replace(plan, aggregates=aggregates, root=_frame(plan.root, threshold))


def _cut(cut: Cut, threshold: int) -> Cut:
    return replace(cut, threshold=threshold) if cut.calibrated else cut


def _frame(node: FrameNode, threshold: int) -> FrameNode:
    match node:
        case FrameCut(cut=cut):
            return replace(node, cut=_cut(cut, threshold))
        case FrameNot(operand=operand):
            return FrameNot(operand=_frame(operand, threshold))
        case FrameWindow(operand=operand):
            return replace(node, operand=_frame(operand, threshold))
        case FrameKnown():
            return node
        case FrameAtLeast(k=k, operands=operands):
            return FrameAtLeast(k=k, operands=tuple(_frame(o, threshold) for o in operands))


def _token(node: TokenNode, threshold: int) -> TokenNode:
    match node:
        case TokenCut(cut=cut):
            return replace(node, cut=_cut(cut, threshold))
        case TokenNot(operand=operand):
            return TokenNot(operand=_token(operand, threshold))
        case TokenAtLeast(k=k, operands=operands):
            return TokenAtLeast(k=k, operands=tuple(_token(o, threshold) for o in operands))
