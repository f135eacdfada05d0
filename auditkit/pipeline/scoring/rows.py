"""How measures become rows: rounded, with the contenders' values beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from auditkit.core.measured import Interval, Measure, NotMeasured
from auditkit.report.score_document import Beside

OWN = "SAE"
DIGITS = 6
T = TypeVar("T")


def digits(value: float) -> float:
    """Six significant digits: what differs between two runs on one machine is beyond them."""
    return float(f"{value:.{DIGITS}g}")


def rounded(value: Measure) -> Measure:
    """A measure with its ends in six significant digits."""
    if isinstance(value, NotMeasured):
        return value
    ends = value.interval
    if ends is not None:
        ends = Interval(low=digits(ends.low), high=digits(ends.high), level=ends.level)
    return replace(value, value=digits(value.value), interval=ends)


def beside_of(
    found: Mapping[str, T | NotMeasured], of: Callable[[T], Measure]
) -> tuple[Beside, ...]:
    """The same measure of every contender, the scored SAE itself aside."""
    return tuple(
        Beside(column=column, value=v if isinstance(v, NotMeasured) else rounded(of(v)))
        for column, v in found.items()
        if column != OWN
    )
