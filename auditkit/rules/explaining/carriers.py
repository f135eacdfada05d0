"""Which tokens carry a comparison: those that a reader should look at first."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.core.prompts import Role
from auditkit.rules.lowered.kleene import compare
from auditkit.rules.lowered.plan import FrameCut, Plan, PlanAggregate, Statistic, TokenNode
from auditkit.rules.streaming.stream import TokenSignals
from auditkit.rules.streaming.token_tests import judge_token

MOST = 5


def carrying_tokens(
    node: FrameCut, plan: Plan, tokens: Sequence[TokenSignals], most: int = MOST
) -> list[int]:
    """Places in the frame of at most `most` tokens.

    Of a test: tokens that satisfy it (of a `then`, either part). Of a maximum: those beyond the
    threshold, else (and where it is compared with the twin's) the largest; of a rolling mean: its
    best window; of a mean or sum: those that pull hardest, either way; of any other statistic: the
    tokens of largest value. Where tokens are not covered and nothing else speaks: those.
    """
    aggregate = plan.aggregates[node.aggregate]
    values = [_values(token, plan) for token in tokens]
    if aggregate.signal is None:
        found = [i for i, t in enumerate(tokens) if _satisfies(aggregate, plan, t.role, values[i])]
        return found[:most] or _uncovered(aggregate, plan, tokens, values, most)
    known = {
        i: value
        for i, t in enumerate(tokens)
        if aggregate.sees(t.role) and (value := values[i][aggregate.signal]) is not None
    }
    if not known:
        return _uncovered(aggregate, plan, tokens, values, most)
    if aggregate.statistic is Statistic.ROLLING:
        return _best_window(list(known.items()), aggregate.argument)[:most]
    largest = sorted(known, key=lambda i: (-known[i], i))
    if aggregate.statistic is Statistic.MAX:
        threshold = node.cut.threshold
        beyond = [
            i
            for i in largest
            if threshold is not None and not node.paired
            if compare(node.cut.op, known[i], known[i], threshold)
        ]
        return (beyond or largest[:1])[:most]
    if aggregate.statistic in (Statistic.MEAN, Statistic.SUM):
        pulling = sorted((i for i in known if known[i]), key=lambda i: (-abs(known[i]), i))
        return pulling[:most]
    if aggregate.statistic is Statistic.TOPK_MEAN:
        return largest[: min(most, aggregate.argument)]
    return largest[:most]


def _values(token: TokenSignals, plan: Plan) -> list[int | None]:
    return [token.values[s.name] if s.resolved else None for s in plan.signals]


def _satisfies(
    aggregate: PlanAggregate, plan: Plan, role: Role, values: Sequence[int | None]
) -> bool:
    def holds(test: TokenNode | None, roles: tuple[Role, ...]) -> bool:
        if test is None or (roles and role not in roles):
            return False
        return judge_token(test, values, plan.signals).truth is True

    return holds(aggregate.test, aggregate.roles) or holds(aggregate.second, aggregate.second_roles)


def _uncovered(
    aggregate: PlanAggregate,
    plan: Plan,
    tokens: Sequence[TokenSignals],
    values: Sequence[Sequence[int | None]],
    most: int,
) -> list[int]:
    signals = {c.signal for c in aggregate.cuts()}
    if aggregate.signal is not None:
        signals = {aggregate.signal}
    resolved = [n for n in sorted(signals) if plan.signals[n].resolved]
    blind = [
        i
        for i, token in enumerate(tokens)
        if aggregate.sees(token.role) and any(values[i][n] is None for n in resolved)
    ]
    return blind[:most]


def _best_window(known: Sequence[tuple[int, int]], width: int) -> list[int]:
    width = min(width, len(known))
    sums = [sum(v for _, v in known[i : i + width]) for i in range(len(known) - width + 1)]
    start = sums.index(max(sums))
    return [place for place, _ in known[start : start + width]]
