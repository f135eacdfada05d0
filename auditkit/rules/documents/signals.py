"""What a rule document already says about its signals, before any is bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import (
    Calibration,
    LockedLatent,
    LockedRule,
    LockedSignal,
    NotCalibrated,
    Scope,
    Selector,
    Unit,
)
from auditkit.core.measured import NotMeasured
from auditkit.rules.documents.rule_documents import (
    ContrastSelect,
    DirectionSelect,
    IndexSelect,
    LabelledExamples,
    LabelSelect,
    RuleDocument,
    SignalDocument,
)
from auditkit.rules.language.condition import ConditionError, parse_condition
from auditkit.rules.language.render import render_condition

Contrast = ContrastSelect | DirectionSelect | LabelledExamples
"""What holds two sets of examples against one another: `positive`, `negative`, `holdout`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFacts:
    """A signal's unit, and whether its values can be negative."""

    unit: Unit
    non_negative: bool


def signal_unit(signal: SignalDocument) -> Unit:
    """The unit of a signal's values: a fitted score (`fit: l1`, a direction) is a bare number."""
    select = signal.select
    fitted = isinstance(select, ContrastSelect) and select.fit == "l1"
    if fitted or isinstance(select, DirectionSelect):
        return Unit.BARE
    return Unit(signal.unit)


def signal_examples(signal: SignalDocument) -> Contrast | None:
    """The two sets of examples that choose or score a signal, and the share that only scores."""
    select = signal.select
    if isinstance(select, ContrastSelect | DirectionSelect):
        return select
    return select.examples if isinstance(select, LabelSelect) else None


def signal_facts(signals: Mapping[str, SignalDocument]) -> dict[str, SignalFacts]:
    """Facts of every signal of a rule."""
    return {name: _facts(signal) for name, signal in signals.items()}


def _facts(signal: SignalDocument) -> SignalFacts:
    unit = signal_unit(signal)
    weights = signal.select.weights if isinstance(signal.select, IndexSelect) else None
    positive = unit in (Unit.RAW, Unit.FMAX) and all(w >= 0 for w in weights or ())
    return SignalFacts(unit=unit, non_negative=positive)


def rule_scope(rule: RuleDocument) -> Scope:
    """The scope of a rule as a record."""
    return Scope(roles=tuple(rule.scope.roles), skip_first=rule.scope.skip_first)


def rule_digest(rule: RuleDocument) -> str:
    """SHA-256 over what changes a rule's meaning: signals, frame, scope, conditions, calibration
    and confirmations; not its prose, references, status, severity or tests. Conditions count by
    their syntax tree, not their spelling."""
    plain = rule.model_dump(mode="json", include=set(_MEANING))
    plain["let"] = {name: _canonical(text) for name, text in rule.let.items()}
    plain["condition"] = _canonical(rule.condition)
    return fingerprint(plain)


_MEANING = ("id", "signals", "frame", "scope", "let", "condition", "calibrate", "confirm")


def _canonical(text: str) -> str:
    try:
        return render_condition(parse_condition(text))
    except ConditionError:
        return text


def draft_rule(
    rule: RuleDocument,
    *,
    calibrated: float | None = None,
    percentiles: Mapping[str, float] | None = None,
) -> LockedRule:
    """The rule with one planted latent per signal (latent i is signal i, its value the signal's).

    `percentiles` are those of the signals, by the names that conditions use (`refuse.p99`).

    What unit tests run and `explain` shows before a rule is bound.
    """
    return LockedRule(
        id=rule.id,
        rev=rule.rev,
        digest=rule_digest(rule),
        title=rule.title,
        description=rule.description,
        severity=rule.severity,
        status=rule.status,
        tags=tuple(rule.tags),
        false_positives=tuple(rule.false_positives),
        frame=rule.frame,
        scope=rule_scope(rule),
        signals=tuple(
            LockedSignal(
                name=name,
                selector=Selector(signal.select.by),
                pool=signal.pool,
                unit=signal_unit(signal),
                latents=(LockedLatent(latent=number),),
                percentiles=_of_signal(name, percentiles or {}),
            )
            for number, (name, signal) in enumerate(rule.signals.items())
        ),
        let=tuple(rule.let.items()),
        condition=rule.condition,
        calibration=_given(calibrated),
        scores=(),
        confirm=(),
    )


def _of_signal(name: str, percentiles: Mapping[str, float]) -> tuple[tuple[float, float], ...]:
    split = ((key.split(".p", 1), value) for key, value in percentiles.items())
    return tuple((float(percent), value) for (signal, percent), value in split if signal == name)


def _given(calibrated: float | None) -> Calibration | NotCalibrated:
    if calibrated is None:
        return NotCalibrated(reason="not bound", frames=0, needs_more=None)
    return Calibration(
        threshold=calibrated,
        target_fpr=0.5,
        confidence=0.5,
        frames=0,
        exceedances=0,
        bound=1.0,
        suite="given",
        verified=NotMeasured("given by a unit test"),
    )
