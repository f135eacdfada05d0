"""Numbers as a reader wants them: sensible digits, a reason where there is no number."""

from __future__ import annotations

import math

from auditkit.core.measured import Interval, Measure, Measured, NotMeasured

_MINUS = "\N{MINUS SIGN}"


def figure(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, in plain notation where that is readable."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 9:
        text = f"{value:,.{max(0, digits - 1 - size)}f}"
    else:
        shown, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{shown}e{int(power)}"
    return text.replace("-", _MINUS)


def area(value: float) -> str:
    """An AUROC with three decimals; four where three would make a perfect one of it."""
    text = f"{value:.3f}"
    return f"{min(value, 0.9999):.4f}" if value < 1 and text == "1.000" else text


def auroc(value: Measure) -> str:
    """An AUROC with its interval, or `not measured: reason`."""
    if isinstance(value, NotMeasured):
        return missing(value)
    if value.interval is None:
        return area(value.value)
    return f"{area(value.value)} [{area(value.interval.low)}, {area(value.interval.high)}]"


def percent(rate: float) -> str:
    """A rate in 0..1 as a percentage: 38%, 6.0%, 0.32%."""
    share = 100 * rate
    if share in (0, 100):
        return f"{share:.0f}%"
    if abs(share) >= 99.5:
        return f"{share:.2f}%"
    if abs(share) >= 10:
        return f"{share:.0f}%"
    return f"{figure(share, 2)}%"


def p_value(p: float) -> str:
    """A p- or q-value: three decimals, or that it is smaller."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(ends: Interval) -> str:
    """Both ends, with as many decimals as the finer one needs."""
    return f"[{figure(ends.low)}, {figure(ends.high)}]"


def measure(value: Measure, unit: str = "") -> str:
    """A measure with its interval and unit, or `not measured: reason`."""
    if isinstance(value, NotMeasured):
        return missing(value)
    parts = [figure(value.value)]
    if value.interval is not None:
        parts.append(interval(value.interval))
    if unit and unit != "1":
        parts.append(unit)
    return " ".join(parts)


def rate(value: Measure) -> str:
    """A rate with its interval, in percent, or `not measured: reason`."""
    if isinstance(value, NotMeasured):
        return missing(value)
    text = percent(value.value)
    if value.interval is None:
        return text
    ends = f"{percent(value.interval.low)}–{percent(value.interval.high)}"
    return f"{text} ({percent(value.interval.level)} interval {ends})"


def missing(value: NotMeasured) -> str:
    """The one way in which a missing number is written."""
    return f"not measured: {value.reason}"


def observations(value: Measure) -> str:
    """The number of observations, or a dash."""
    return f"{value.n:,}" if isinstance(value, Measured) else "–"


def counted(n: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def short(digest: str) -> str:
    """The start of a digest: enough to tell weights of the same name apart."""
    return digest[:12]
