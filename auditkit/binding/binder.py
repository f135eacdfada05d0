"""Bind rules to one model and one SAE from recordings: `rules.lock.json` and nothing left open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from auditkit.binding.calibration import certify
from auditkit.binding.context import BindContext
from auditkit.binding.directions import check_completed
from auditkit.binding.percentiles import with_percentiles
from auditkit.binding.recorded import RecordedSuite, read_frames, signal_frames
from auditkit.binding.scoring import score_baselines, score_rule, verified_rate
from auditkit.binding.signals import LatentStats, bind_signal
from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.locks import (
    Calibration,
    ConfirmPlan,
    DetectorScore,
    Intervention,
    Lock,
    LockedRule,
    NotCalibrated,
    Status,
    Unit,
)
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Progress, Silent
from auditkit.core.prompts import Split
from auditkit.core.recordings import Recording
from auditkit.rules import (
    ConfirmDocument,
    RuleDocument,
    critical_threshold,
    draft_rule,
    signal_examples,
)

GOOD_AUROC = 0.85


def bind_rules(
    rules: Sequence[RuleDocument], context: BindContext, *, progress: Progress | None = None
) -> Lock:
    """Bind every rule; raises MismatchError where the recordings are of several models or SAEs."""
    report = progress or Silent()
    first = next(iter(context.recordings.values()), None)
    if first is None:
        raise InvalidInput("nothing is recorded, so nothing can be bound")
    for recording in context.recordings.values():
        if (recording.model, recording.sae) != (first.model, first.sae):
            raise MismatchError(
                f"the recordings of {recording.suite!r} and {first.suite!r} are of different "
                "models or SAEs",
                help="bind from recordings of one model and one SAE",
            )
    check_completed(rules, context)
    report.begin("bind rules", len(rules))
    stats = LatentStats.read(context.store, context.reference, first.sae.d_sae)
    bound: list[LockedRule] = []
    for rule in rules:
        bound.append(bind_rule(rule, context, stats, first.sae.digest))
        report.advance()
    return Lock(
        model=first.model,
        sae=first.sae,
        rules=tuple(bound),
        masked=context.masked,
        high_norm=context.high_norm,
        provenance=context.provenance,
    )


def bind_rule(
    rule: RuleDocument, context: BindContext, stats: LatentStats, sae_digest: str
) -> LockedRule:
    """Pick latents for every signal, certify the threshold, score the whole rule beside plain
    detectors on examples that chose nothing."""
    signals = tuple(
        bind_signal(name, signal, rule, context, stats, sae_digest)
        for name, signal in rule.signals.items()
    )
    locked = replace(
        draft_rule(rule),
        signals=with_percentiles(rule, signals, context),
        calibration=None,
        confirm=tuple(_plan(c) for c in rule.confirm),
    )
    locked = replace(locked, calibration=_calibrate(rule, locked, context))
    scores = _scores(rule, locked, context)
    return replace(locked, scores=scores, **_standing(locked, scores))


def _calibrate(
    rule: RuleDocument, locked: LockedRule, context: BindContext
) -> Calibration | NotCalibrated | None:
    if rule.calibrate is None:
        return None
    if any(s.unresolved is not None and _is_read(rule, s.name) for s in locked.signals):
        return NotCalibrated(reason="a signal is unresolved", frames=0, needs_more=None)
    benign = _frames(locked, context.recording(rule.calibrate.suite), context)
    select, test = benign.part(Split.SELECT), benign.part(Split.TEST)
    used = select if select.frames else benign
    frames = signal_frames(context.store, used, locked.signals)
    certificate = certify(
        [critical_threshold(locked, tokens) for tokens in frames],
        target_fpr=rule.calibrate.target_fpr,
        confidence=rule.calibrate.confidence,
        suite=benign.suite,
        verified=NotMeasured("the suite has no test split"),
    )
    if isinstance(certificate, NotCalibrated) or not (select.frames and test.frames):
        return certificate
    fresh = signal_frames(context.store, test, locked.signals)
    rate = verified_rate(replace(locked, calibration=certificate), fresh)
    return replace(certificate, verified=rate)


def _is_read(rule: RuleDocument, name: str) -> bool:
    """Whether the condition reads the signal; one for a causal test alone decides no frame."""
    texts = [rule.condition, *rule.let.values()]
    return any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts)


def _scores(
    rule: RuleDocument, locked: LockedRule, context: BindContext
) -> tuple[DetectorScore, ...]:
    contrasts = map(signal_examples, rule.signals.values())
    contrast = next((c for c in contrasts if c is not None), None)
    if contrast is None:
        return ()
    positive = _frames(locked, context.recording_of(contrast.positive), context)
    negative = _frames(locked, context.recording_of(contrast.negative), context)
    own = score_rule(locked, positive, negative, contrast.holdout, context.store)
    return (own, *score_baselines(locked, positive, negative, contrast.holdout, context.store))


def _frames(locked: LockedRule, recording: Recording, context: BindContext) -> RecordedSuite:
    return read_frames(
        context.store,
        recording.id,
        recording.suite,
        frame=locked.frame,
        scope=locked.scope,
        masked=context.masked,
    )


def _standing(locked: LockedRule, scores: Sequence[DetectorScore]) -> dict[str, object]:
    """Status and notes: a rule below the bar stays experimental, a better baseline is named."""
    notes: list[str] = []
    status = locked.status
    measured = {s.detector: s.auroc.value for s in scores if isinstance(s.auroc, Measured)}
    own = measured.pop("rule", None)
    if own is None:
        notes.append("The rule's held-out score could not be measured.")
    elif own < GOOD_AUROC:
        notes.append(f"Held-out AUROC {own:.3f} is below {GOOD_AUROC}: the rule is experimental.")
    if (own is None or own < GOOD_AUROC) and status is not Status.DEPRECATED:
        status = Status.EXPERIMENTAL
    better = [name for name, value in measured.items() if own is None or value > own]
    if better:
        best = max(better, key=lambda name: measured[name])
        notes.append(f"A plain baseline does better here: {best} ({measured[best]:.3f}).")
    for signal in locked.signals:
        if signal.labels is not None and signal.unresolved is None:
            notes.append(
                f"The latents of {signal.name!r} were chosen by their labels, which are no "
                "evidence of what they do."
            )
    if isinstance(locked.calibration, NotCalibrated):
        notes.append(f"Not calibrated: {locked.calibration.reason}.")
    return {"status": status, "notes": tuple(notes)}


def _plan(confirm: ConfirmDocument) -> ConfirmPlan:
    return ConfirmPlan(
        name=confirm.name,
        intervene=Intervention(
            op=confirm.intervene.op,
            signal=confirm.intervene.signal,
            doses=tuple(confirm.intervene.doses),
            unit=Unit(confirm.intervene.unit),
        ),
        metric=confirm.measure.metric,
        target=confirm.measure.target,
        contrast=confirm.measure.contrast,
        direction=confirm.expect.direction,
        monotonic=confirm.expect.monotonic,
        q=confirm.expect.q,
    )
