"""Which rules are plain: everything they name is there, and their statistics need no window."""

from __future__ import annotations

from auditkit.core.locks import Frame
from auditkit.rules.lowered.plan import (
    FrameCut,
    FrameWindow,
    Plan,
    PlanAggregate,
    Statistic,
    frame_nodes,
)

OF_SIGNALS = (Statistic.MAX, Statistic.SUM, Statistic.MEAN, Statistic.ROLLING)
OF_TESTS = (Statistic.COUNT, Statistic.FRAC)
EARLY = (Statistic.MAX, Statistic.COUNT, Statistic.ROLLING)
"""The statistics of a latching rule whose earliest place is known how to find."""

_FRAMES = (Frame.CONVERSATION, Frame.MESSAGE, Frame.EXCHANGE)


def is_plain(plan: Plan) -> bool:
    """Can `evaluate_columns` judge the rule where all tokens are covered?"""
    if plan.frame not in _FRAMES:
        return False
    if any(not s.resolved or s.falling for s in plan.signals):
        return False
    if not all(_is_plain(a, latching=plan.latching) for a in plan.aggregates):
        return False
    return not any(
        isinstance(n, FrameWindow)
        or (isinstance(n, FrameCut) and (n.paired or n.cut.threshold is None))
        for n in frame_nodes(plan.root)
    )


def _is_plain(aggregate: PlanAggregate, *, latching: bool) -> bool:
    if aggregate.window or aggregate.second is not None:
        return False
    if aggregate.statistic not in (OF_TESTS if aggregate.signal is None else OF_SIGNALS):
        return False
    if latching and aggregate.statistic not in EARLY:
        return False
    return all(c.cut.threshold is not None for c in aggregate.cuts())
