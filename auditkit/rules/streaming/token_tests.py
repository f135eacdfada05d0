"""A token test at one token, and what can be said of it before any token is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.kleene import KNOWN, Held, Judged, at_least, decide, negate
from auditkit.rules.lowered.plan import (
    PlanSignal,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
    token_cuts,
)

Values = Sequence[int | None]
"""Every signal's value at a token, in the order of the plan (None: not covered)."""


def judge_token(node: TokenNode, values: Values, signals: Sequence[PlanSignal]) -> Judged:
    """Judge a token test at one token."""
    match node:
        case TokenCut(signal=number, cut=cut):
            signal, value = signals[number], values[number]
            if not signal.resolved:
                return decide(cut, Held(None, None, 1, Reason.UNRESOLVED.rank))
            if value is None:
                return decide(cut, Held(signal.floor, None, 1, Reason.NOT_COVERED.rank))
            return decide(cut, Held(value, value, 1, KNOWN))
        case TokenNot(operand=operand):
            return negate(judge_token(operand, values, signals))
        case TokenAtLeast(k=k, operands=operands):
            return at_least(k, [judge_token(o, values, signals) for o in operands])


def static_rank(tests: Iterable[TokenNode], signals: Sequence[PlanSignal]) -> int:
    """The first reason for which token tests are unknown whatever the tokens are, else KNOWN."""
    return min((r for test in tests for r in _static_ranks(test, signals)), default=KNOWN)


def _static_ranks(test: TokenNode, signals: Sequence[PlanSignal]) -> Iterator[int]:
    for leaf in token_cuts(test):
        if not signals[leaf.signal].resolved:
            yield Reason.UNRESOLVED.rank
        if leaf.cut.threshold is None:
            yield leaf.cut.missing.rank
