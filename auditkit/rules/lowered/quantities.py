"""The numbers of a condition, lowered: thresholds in units of 2⁻²⁰, arguments of statistics."""

from __future__ import annotations

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import lower
from auditkit.core.locks import Calibration, LockedRule
from auditkit.core.verdicts import Reason
from auditkit.rules.language import ast
from auditkit.rules.lowered.plan import SHARE_SCALE, Cut, Statistic

LARGEST = 2.0**31
"""Thresholds stay below this, so that sums of integers of 2⁻²⁰ fit into 64 bits."""

NEIGHBOURS = 4096
"""Windows, `within`, the k of topk_mean and the w of rolling_mean_max reach at most so far."""


class Quantities:
    """Lowers the numbers of one locked rule; raises InvalidInput where one does not fit."""

    def __init__(self, rule: LockedRule) -> None:
        self.rule = rule
        self.signals = {signal.name: signal for signal in rule.signals}

    def invalid(self, message: str) -> InvalidInput:
        """An error that names the rule."""
        return InvalidInput(f"rule {self.rule.id}: {message}")

    def cut(self, op: ast.Op, quantity: ast.Quantity, units: set[str | None]) -> Cut:
        """A comparison with a quantity in one of `units`."""
        match quantity:
            case ast.Calibrated():
                found = self.rule.calibration
                threshold = lower(found.threshold) if isinstance(found, Calibration) else None
                return Cut(op=op, threshold=threshold, calibrated=True)
            case ast.Percentile():
                return self._percentile(op, quantity, units)
            case ast.Number(value=value, unit=unit):
                if unit not in units:
                    raise self.invalid(f"a threshold in {unit} where none is compared with it")
                return Cut(op=op, threshold=self._lowered(value))

    def _percentile(self, op: ast.Op, node: ast.Percentile, units: set[str | None]) -> Cut:
        signal = self.signals.get(node.signal)
        if signal is None:
            raise self.invalid(f"unknown signal {node.signal!r} in the condition")
        if signal.unit.value not in units:
            raise self.invalid(f"a percentile of {node.signal!r} where nothing is in its unit")
        if signal.unresolved is not None:
            return Cut(op=op, threshold=None, missing=Reason.UNRESOLVED)
        found = dict(signal.percentiles).get(node.percent)
        return Cut(op=op, threshold=None if found is None else self._lowered(found))

    def _lowered(self, value: float) -> int:
        if abs(value) > LARGEST:
            raise self.invalid(f"the threshold {value} is beyond ±2^31")
        return lower(value)

    def argument(self, function: Statistic, given: float | None) -> int:
        """The second argument of a statistic as the plan keeps it; 0 where it takes none."""
        if function is Statistic.QUANTILE:
            if not is_share(given):
                raise self.invalid("quantile(signal, q) takes a q above 0 and at most 1")
            return round((given or 0) * SHARE_SCALE)
        if function in (Statistic.TOPK_MEAN, Statistic.ROLLING):
            return self.near(function.value, given)
        if given is not None:
            raise self.invalid(f"'{function.value}' takes a signal only")
        return 0

    def near(self, what: str, tokens: float | None) -> int:
        """A number of neighbouring tokens."""
        if not is_near(tokens):
            raise self.invalid(f"'{what}' takes a number of tokens from 1 to {NEIGHBOURS}")
        return int(tokens or 0)


def is_share(q: float | None) -> bool:
    """May this stand as the q of a quantile?"""
    return q is not None and q <= 1 and round(q * SHARE_SCALE) >= 1


def is_near(tokens: float | None) -> bool:
    """May this stand as a number of neighbouring tokens?"""
    return tokens is not None and 1 <= tokens <= NEIGHBOURS and float(tokens).is_integer()


_TAKES = {
    Statistic.QUANTILE: "a share of the tokens",
    Statistic.TOPK_MEAN: "a number of tokens",
    Statistic.ROLLING: "a number of tokens",
}


def argument_problem(function: str, given: float | None) -> tuple[str, str] | None:
    """What is wrong with the second argument of a statistic of a signal: code and message."""
    takes = _TAKES.get(Statistic(function))
    if takes is None:
        return None if given is None else ("AK028", f"'{function}' takes a signal only")
    if given is None:
        return "AK028", f"'{function}' takes a signal and {takes}"
    if function == Statistic.QUANTILE:
        return None if is_share(given) else ("AK043", "a quantile lies above 0 and at most at 1")
    if is_near(given):
        return None
    return "AK042", f"'{function}' takes a number of tokens from 1 to {NEIGHBOURS}"
