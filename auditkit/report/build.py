"""From an audit's records to the report document."""

from __future__ import annotations

from collections import Counter

from auditkit.core.audits import AuditRecord, SuiteSummary
from auditkit.core.confirmations import CausalVerdict, Confirmation
from auditkit.core.findings import Finding, FindingState
from auditkit.core.locks import LockedRule
from auditkit.report.claims import claim_of_the_report, limits_of_the_claim
from auditkit.report.document import Headline, ReportDocument, RuleResult
from auditkit.report.wording import (
    RULE,
    baselines_above,
    causal_sentence,
    detection_sentence,
    measured_scores,
    result_sentence,
)

_ORDER = [FindingState.FIRED, FindingState.UNKNOWN, FindingState.SILENT]


def build_report(record: AuditRecord) -> ReportDocument:
    """Count, order and word what the audit concluded; every number is the record's own.

    Rules come fired first, then unknown, then silent; the gravest first among equals.
    """
    results = [_result(rule, record) for rule in record.lock.rules]
    results.sort(key=lambda r: (_ORDER.index(r.state), -r.severity.rank, r.rule_id))
    return ReportDocument(
        says=claim_of_the_report(record),
        headline=_headline(record, results),
        results=tuple(results),
        does_not_say=limits_of_the_claim(record),
        audit=record,
    )


def _result(rule: LockedRule, record: AuditRecord) -> RuleResult:
    findings = [f for f in record.findings if f.rule_id == rule.id]
    confirmations = [c for c in record.confirmations if c.rule_id == rule.id]
    return RuleResult(
        rule_id=rule.id,
        state=_state(findings),
        severity=rule.severity,
        sentence=" ".join(result_sentence(rule, f) for f in findings)
        or "Not evaluated on any suite: nothing is known.",
        causal=causal_sentence(rule, confirmations),
        detection=detection_sentence(rule.scores),
        beaten_by=tuple(s.detector for s in baselines_above(rule.scores)),
    )


def _state(findings: list[Finding]) -> FindingState:
    states = {f.state for f in findings}
    for state in (FindingState.FIRED, FindingState.SILENT):
        if state in states:
            return state
    return FindingState.UNKNOWN


def _headline(record: AuditRecord, results: list[RuleResult]) -> Headline:
    states = Counter(r.state for r in results)
    fired = [r.severity for r in results if r.state is FindingState.FIRED]
    verdicts = Counter(c.verdict for c in record.confirmations)
    return Headline(
        rules=len(results),
        fired=states[FindingState.FIRED],
        silent=states[FindingState.SILENT],
        unknown=states[FindingState.UNKNOWN],
        frames=sum(f.frames for f in record.findings),
        unknown_frames=sum(f.unknown for f in record.findings),
        prompts=sum(s.prompts for s in _subject_suites(record)),
        tokens=sum(s.tokens for s in _subject_suites(record)),
        worst=max(fired, key=lambda s: s.rank) if fired else None,
        verdicts=tuple((v, verdicts[v]) for v in CausalVerdict if verdicts[v]),
        untested=_untested(results, record.confirmations),
        scored=sum(_scored(rule) for rule in record.lock.rules),
        beaten=sum(bool(r.beaten_by) for r in results),
    )


def _scored(rule: LockedRule) -> bool:
    return any(score.detector == RULE for score, _ in measured_scores(rule.scores))


def _subject_suites(record: AuditRecord) -> list[SuiteSummary]:
    subject = {r.id for r in record.subject}
    return [s for s in record.suites if s.recording in subject]


def _untested(
    results: list[RuleResult], confirmations: tuple[Confirmation, ...]
) -> tuple[str, ...]:
    tested = {c.rule_id for c in confirmations}
    return tuple(r.rule_id for r in results if r.rule_id not in tested)
