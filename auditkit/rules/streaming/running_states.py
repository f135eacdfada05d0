"""Which state keeps which statistic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from auditkit.rules.lowered.plan import PlanAggregate, PlanSignal, Statistic
from auditkit.rules.streaming.running import AggregateState, Count, Largest, Run, Sum
from auditkit.rules.streaming.running_near import Pairs, Rolling
from auditkit.rules.streaming.running_order import Place, Quantile, TopMean

_STATES: dict[Statistic, Callable[[PlanAggregate, Sequence[PlanSignal]], AggregateState]] = {
    Statistic.MAX: Largest,
    Statistic.SUM: Sum,
    Statistic.MEAN: Sum,
    Statistic.QUANTILE: Quantile,
    Statistic.TOPK_MEAN: TopMean,
    Statistic.ROLLING: Rolling,
    Statistic.COUNT: Count,
    Statistic.FRAC: Count,
    Statistic.RUN: Run,
    Statistic.FIRST: Place,
    Statistic.LAST: Place,
    Statistic.THEN: Pairs,
}


def new_state(aggregate: PlanAggregate, signals: Sequence[PlanSignal]) -> AggregateState:
    """The state of an aggregate that has seen no token."""
    return _STATES[aggregate.statistic](aggregate, signals)
