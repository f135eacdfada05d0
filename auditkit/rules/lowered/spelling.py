"""Parts of a plan as text, in the words of the language that they were lowered from."""

from __future__ import annotations

from auditkit.core.fixed_point import lift
from auditkit.core.prompts import Role
from auditkit.rules.lowered.plan import (
    SHARE_SCALE,
    Cut,
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

_ONE = 1 << 20
_WITH_ARGUMENT = (Statistic.TOPK_MEAN, Statistic.ROLLING)


def spell_frame(node: FrameNode, plan: Plan) -> str:
    """A part of a condition; `all`, `any` and `then` are spelled as they were written."""
    match node:
        case FrameCut(aggregate=number, cut=cut, paired=True):
            return f"{spell_difference(plan.aggregates[number], plan)} {_cut(cut)}"
        case FrameCut(aggregate=number, cut=cut):
            return _comparison(plan.aggregates[number], cut, plan)
        case FrameNot(operand=operand):
            return f"not ({spell_frame(operand, plan)})"
        case FrameAtLeast(k=k, operands=operands):
            return _joined(k, [spell_frame(o, plan) for o in operands])
        case FrameKnown(truth=truth):
            return f"defined: {'yes' if truth else 'no'}"
        case FrameWindow(size=size, operand=operand):
            return f"window {size} ({spell_frame(operand, plan)})"


def spell_token(node: TokenNode, plan: Plan, roles: tuple[Role, ...] = ()) -> str:
    """A part of a token test that looks at tokens of `roles`."""
    match node:
        case TokenCut(signal=number, cut=cut):
            return f"{_signal(number, roles, plan)} {_cut(cut)}"
        case TokenNot(operand=operand):
            return f"not ({spell_token(operand, plan, roles)})"
        case TokenAtLeast(k=k, operands=operands):
            return _joined(k, [spell_token(o, plan, roles) for o in operands])


def spell_aggregate(aggregate: PlanAggregate, plan: Plan) -> str:
    """A statistic: `mean(refuse @user)`, `count(a >= 0.3)`."""
    if aggregate.second is not None:
        return f"number of pairs {_pair(aggregate, plan)}"
    if aggregate.test is not None:
        inside = spell_token(aggregate.test, plan, aggregate.roles)
        return f"{aggregate.statistic.value}({inside})"
    assert aggregate.signal is not None
    inside = _signal(aggregate.signal, aggregate.roles, plan)
    if aggregate.statistic is Statistic.QUANTILE:
        inside += f", {aggregate.argument / SHARE_SCALE:g}"
    elif aggregate.statistic in _WITH_ARGUMENT:
        inside += f", {aggregate.argument}"
    return f"{aggregate.statistic.value}({inside})"


def spell_difference(aggregate: PlanAggregate, plan: Plan) -> str:
    """A statistic less the twin's: `diff(mean(refuse @user))`."""
    return f"diff({spell_aggregate(aggregate, plan)})"


def spell_number(value: float) -> str:
    """A number to six digits, as a reader compares it."""
    return f"{value:.6g}"


def _comparison(aggregate: PlanAggregate, cut: Cut, plan: Plan) -> str:
    at_least_one = (cut.op.value, cut.threshold, cut.calibrated) == (">=", _ONE, False)
    if at_least_one and aggregate.second is not None:
        return _pair(aggregate, plan)
    if at_least_one and aggregate.test is not None:
        word = {Statistic.FRAC: "all", Statistic.COUNT: "any"}.get(aggregate.statistic)
        if word is not None:
            return f"{word}({spell_token(aggregate.test, plan, aggregate.roles)})"
    return f"{spell_aggregate(aggregate, plan)} {_cut(cut)}"


def _pair(aggregate: PlanAggregate, plan: Plan) -> str:
    assert aggregate.test is not None
    assert aggregate.second is not None
    first = spell_token(aggregate.test, plan, aggregate.roles)
    second = spell_token(aggregate.second, plan, aggregate.second_roles)
    return f"({first}) then ({second}) within {aggregate.argument} tokens"


def _joined(k: int, parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    if k in (1, len(parts)):
        word = " and " if k == len(parts) else " or "
        return word.join(f"({p})" if " and " in p or " or " in p else p for p in parts)
    return f"{k} of ({', '.join(parts)})"


def _signal(number: int, roles: tuple[Role, ...], plan: Plan) -> str:
    return plan.signals[number].name + "".join(f" @{r.value}" for r in roles)


def _cut(cut: Cut) -> str:
    if cut.threshold is None:
        return f"{cut.op.value} {'calibrated' if cut.calibrated else 'a percentile'}"
    number = spell_number(lift(cut.threshold))
    return f"{cut.op.value} {number}" + (" (calibrated)" if cut.calibrated else "")
