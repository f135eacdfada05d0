"""A finished frame's verdict, part by part: every node's truth, what it is compared with, and which
tokens carry it. The stream evaluator judges; this module lays out what it concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from auditkit.core.fixed_point import lift
from auditkit.core.locks import LockedRule
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.rules.explaining.carriers import carrying_tokens
from auditkit.rules.explaining.flip import Flip, FrameState, Move, find_flip, nearest_move
from auditkit.rules.explaining.threshold import Twin, evaluate_pair
from auditkit.rules.lowered.kleene import Held, Judged, judge_frame
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import (
    FAR,
    FrameAtLeast,
    FrameCut,
    FrameNode,
    FrameNot,
    Plan,
)
from auditkit.rules.lowered.spelling import spell_aggregate, spell_difference, spell_frame
from auditkit.rules.streaming.stream import REASONS, TokenSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A statistic and its threshold, in the statistic's unit.

    `low` and `high` bound the statistic (None: unbounded; ±infinity: the place of no token).
    `move` is the smallest change that turns the comparison over, `twin` what a difference was
    taken from (None: it is none, or the twin's value is not known).
    """

    statistic: str
    low: float | None
    high: float | None
    op: str
    threshold: float | None
    calibrated: bool
    move: Move | None
    twin: float | None = None

    @property
    def value(self) -> float | None:
        """The statistic, where it is known exactly."""
        return self.low if self.low == self.high else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictNode:
    """A part of a condition as it was judged on a frame.

    `kind`: comparison, not, all of, any of, at least, or the name of a part that is judged as a
    whole. `name` is the `let` that it spells out; `tokens` are the places in the frame of those
    that carry a comparison, the weightiest first.
    """

    kind: str
    text: str
    truth: Truth
    reason: Reason | None
    name: str | None = None
    k: int | None = None
    comparison: Comparison | None = None
    tokens: tuple[int, ...] = ()
    operands: tuple[VerdictNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPart:
    """A part that is unknown, and what the verdict would be if it were true, or false."""

    text: str
    reason: Reason
    if_true: Truth
    if_false: Truth

    @property
    def decides(self) -> bool:
        """Would knowing this part alone settle the verdict, one way at least?"""
        return (self.if_true, self.if_false) != (Truth.UNKNOWN, Truth.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameExplanation:
    """Why a rule came to its verdict on one frame."""

    verdict: Verdict
    score: Measure
    root: VerdictNode
    flip: Flip | NotMeasured
    missing: tuple[MissingPart, ...]
    statistics: tuple[str, ...]
    plan: Plan


def explain_frame(
    rule: LockedRule | Plan, tokens: Sequence[TokenSignals], twin: Twin = None
) -> FrameExplanation:
    """Lay out the verdict of a rule on the eligible tokens of one frame, beside its twin's."""
    plan = lower_rule(rule)
    evaluator = evaluate_pair(plan, tokens, twin)
    state = frame_state(plan, tokens, twin)
    names = {} if isinstance(rule, Plan) else _let_names(rule)
    verdict = evaluator.finish()
    return FrameExplanation(
        verdict=verdict,
        score=evaluator.score(),
        root=_node(plan.root, state, tokens, names),
        flip=find_flip(state),
        missing=_missing(state) if verdict.truth is Truth.UNKNOWN else (),
        statistics=tuple(spell_aggregate(a, plan) for a in plan.aggregates),
        plan=plan,
    )


def frame_state(plan: Plan, tokens: Sequence[TokenSignals], twin: Twin = None) -> FrameState:
    """What the stream evaluator comes to on a whole frame, part by part."""
    evaluator = evaluate_pair(plan, tokens, twin)
    beside = None if twin is None else evaluate_pair(plan, twin, None)
    outside = [n for n, a in enumerate(plan.aggregates) if not a.window]
    return FrameState(
        plan=plan,
        judged={node: _judge_alone(plan, node, tokens, twin) for node in _leaves(plan.root)},
        held={n: evaluator.held(n) for n in outside},
        seen={n: sum(plan.aggregates[n].sees(t.role) for t in tokens) for n in outside},
        twin={} if beside is None else {n: beside.held(n) for n in outside},
    )


def _leaves(node: FrameNode) -> list[FrameNode]:
    match node:
        case FrameNot(operand=operand):
            return _leaves(operand)
        case FrameAtLeast(operands=operands):
            return [leaf for o in operands for leaf in _leaves(o)]
        case _:
            return [node]


def _judge_alone(plan: Plan, node: FrameNode, tokens: Sequence[TokenSignals], twin: Twin) -> Judged:
    """A part's verdict as the evaluator gives it, whatever kind of part it is."""
    verdict = evaluate_pair(replace(plan, root=node, latching=False), tokens, twin).finish()
    if verdict.reason is not None:
        return Judged(None, verdict.reason.rank)
    return Judged(verdict.truth is Truth.TRUE)


def _let_names(rule: LockedRule) -> dict[str, str]:
    """Which `let` a part spells out, by its text."""
    names: dict[str, str] = {}
    for name, _ in rule.let:
        plan = lower_rule(replace(rule, condition=name))
        names.setdefault(spell_frame(plan.root, plan), name)
    return names


def _node(
    node: FrameNode,
    state: FrameState,
    tokens: Sequence[TokenSignals],
    names: Mapping[str, str],
) -> VerdictNode:
    text = spell_frame(node, state.plan)
    judged = judge_frame(node, lambda leaf: state.judged[leaf])
    made = VerdictNode(
        kind=_kind(node),
        text=text,
        truth=_truth(judged),
        reason=None if judged.truth is not None else REASONS[judged.rank],
        name=names.get(text),
    )
    match node:
        case FrameCut():
            return replace(
                made,
                comparison=_comparison(node, state),
                tokens=tuple(carrying_tokens(node, state.plan, tokens)),
            )
        case FrameNot(operand=operand):
            return replace(made, operands=(_node(operand, state, tokens, names),))
        case FrameAtLeast(k=k, operands=operands):
            parts = tuple(_node(o, state, tokens, names) for o in operands)
            return replace(made, k=k, operands=parts)
        case _:
            return made


def _kind(node: FrameNode) -> str:
    match node:
        case FrameCut():
            return "comparison"
        case FrameNot():
            return "not"
        case FrameAtLeast(k=k, operands=operands):
            return "all of" if k == len(operands) else "any of" if k == 1 else "at least"
        case _:
            return type(node).__name__.removeprefix("Frame").lower()


def _truth(judged: Judged) -> Truth:
    if judged.truth is None:
        return Truth.UNKNOWN
    return Truth.TRUE if judged.truth else Truth.FALSE


def _comparison(node: FrameCut, state: FrameState) -> Comparison:
    cut, aggregate = node.cut, state.plan.aggregates[node.aggregate]
    held = state.compared(node, state.held[node.aggregate])
    spell = spell_difference if node.paired else spell_aggregate
    twin = state.twin.get(node.aggregate) if node.paired else None
    return Comparison(
        statistic=spell(aggregate, state.plan),
        low=_value(held.low, held),
        high=_value(held.high, held),
        op=cut.op.value,
        threshold=None if cut.threshold is None else lift(cut.threshold),
        calibrated=cut.calibrated,
        move=nearest_move(node, state),
        twin=None if twin is None or twin.low != twin.high else _value(twin.low, twin),
    )


def _value(bound: int | None, held: Held) -> float | None:
    if bound is None or held.share == 0:
        return None
    if abs(bound) == FAR:
        return float("inf") if bound > 0 else float("-inf")
    return lift(bound) / held.share


def _missing(state: FrameState) -> tuple[MissingPart, ...]:
    """Each part that is unknown, with the verdict if it alone were known."""

    def if_known(part: FrameNode, truth: bool) -> Truth:
        given = {**state.judged, part: Judged(truth)}
        return _truth(judge_frame(state.plan.root, lambda leaf: given[leaf]))

    return tuple(
        MissingPart(
            text=spell_frame(part, state.plan),
            reason=REASONS[judged.rank],
            if_true=if_known(part, True),
            if_false=if_known(part, False),
        )
        for part, judged in state.judged.items()
        if judged.truth is None
    )
