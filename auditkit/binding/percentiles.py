"""Percentiles of a signal over benign tokens: the thresholds that a rule names as `NAME.pN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from auditkit.binding.context import BindContext
from auditkit.binding.recorded import RecordedSuite, read_frames, signal_frames
from auditkit.core.fixed_point import lift
from auditkit.core.locks import LockedSignal
from auditkit.core.prompts import Split
from auditkit.rules import ContrastSelect, RuleDocument, parse_condition, rule_scope
from auditkit.rules.language import ast
from auditkit.store import Store


def with_percentiles(
    rule: RuleDocument, signals: Sequence[LockedSignal], context: BindContext
) -> tuple[LockedSignal, ...]:
    """The signals with the percentiles that the rule's conditions name.

    Measured over the covered eligible tokens of the benign frames that select: those of the
    calibration suite, else of the signal's negative examples. A signal that has neither, or is
    unresolved, gets none, and the comparison is unknown.
    """
    named = named_percentiles(rule)
    return tuple(
        replace(signal, percentiles=_measured(signal, named[signal.name], rule, context))
        if signal.name in named and signal.unresolved is None
        else signal
        for signal in signals
    )


def named_percentiles(rule: RuleDocument) -> dict[str, list[float]]:
    """For every signal of which a condition names percentiles: which, in rising order."""
    named: dict[str, set[float]] = {}
    for text in (rule.condition, *rule.let.values()):
        for node in ast.walk(parse_condition(text)):
            if isinstance(node, ast.Percentile):
                named.setdefault(node.signal, set()).add(node.percent)
    return {name: sorted(percents) for name, percents in named.items()}


def measure_percentiles(
    signal: LockedSignal, benign: RecordedSuite, percents: Sequence[float], store: Store
) -> tuple[tuple[float, float], ...]:
    """(percent, the ⌈percent·n/100⌉-th smallest of the n covered tokens' values); none if n = 0."""
    values = sorted(
        value
        for frame in signal_frames(store, benign, [signal])
        for token in frame
        if (value := token.values[signal.name]) is not None
    )
    if not values:
        return ()
    return tuple((p, lift(values[_rank(p, len(values)) - 1])) for p in percents)


def _rank(percent: float, n: int) -> int:
    """Nearest rank; exact for percents as they are written."""
    return max(1, -(-(Fraction(str(percent)) * n) // 100))


def _measured(
    signal: LockedSignal, percents: Sequence[float], rule: RuleDocument, context: BindContext
) -> tuple[tuple[float, float], ...]:
    select = rule.signals[signal.name].select
    if rule.calibrate is not None:
        recording = context.recording(rule.calibrate.suite)
    elif isinstance(select, ContrastSelect):
        recording = context.recording_of(select.negative)
    else:
        return ()
    benign = read_frames(
        context.store,
        recording.id,
        recording.suite,
        frame=rule.frame,
        scope=rule_scope(rule),
        masked=context.masked,
    )
    selecting = benign.part(Split.SELECT)
    return measure_percentiles(
        signal, selecting if selecting.frames else benign, percents, context.store
    )
