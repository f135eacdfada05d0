"""The report as a document: the audit's records, and what was concluded from them in words."""

from __future__ import annotations

from typing import Literal

from auditkit.core.audits import AuditRecord, MatchView
from auditkit.core.confirmations import CausalVerdict, Confirmation
from auditkit.core.correlations import LockedCorrelation
from auditkit.core.documents import Document
from auditkit.core.findings import Finding, FindingState
from auditkit.core.locks import LockedRule, Severity


class Headline(Document):
    """The audit in numbers.

    `worst` is the gravest severity among rules that fired, None where none did. `verdicts` counts
    causal tests by verdict; `untested` are the ids of rules without any. `beaten` counts rules
    below a plain baseline, of the `scored` that were scored on held-out examples.
    """

    rules: int
    fired: int
    silent: int
    unknown: int
    frames: int
    unknown_frames: int
    prompts: int
    tokens: int
    worst: Severity | None
    verdicts: tuple[tuple[CausalVerdict, int], ...]
    untested: tuple[str, ...]
    scored: int
    beaten: int


class RuleResult(Document):
    """What one rule came to over all audited suites.

    `state` is fired where any suite's finding fired, silent where none did and one was decided,
    else unknown. `beaten_by` are the baselines whose held-out AUROC is above the rule's.
    """

    rule_id: str
    state: FindingState
    severity: Severity
    sentence: str
    causal: str
    detection: str
    beaten_by: tuple[str, ...]


class ReportDocument(Document):
    """`report.json`: everything that the other renderings show.

    `says` is the claim of the whole report in one paragraph, `does_not_say` what bounds it.
    Format 2 added `says`, `headline.scored` and `headline.beaten`.
    """

    format: Literal["auditkit-report/2"] = "auditkit-report/2"
    says: str
    headline: Headline
    results: tuple[RuleResult, ...]
    does_not_say: tuple[str, ...]
    audit: AuditRecord

    def rule(self, rule_id: str) -> LockedRule:
        """The locked rule called `rule_id`; KeyError where there is none."""
        for rule in self.audit.lock.rules:
            if rule.id == rule_id:
                return rule
        raise KeyError(rule_id)

    def correlation(self, correlation_id: str) -> LockedCorrelation:
        """The locked correlation called `correlation_id`; KeyError where there is none."""
        return {c.id: c for c in self.audit.lock.correlations}[correlation_id]

    def findings(self, rule_id: str) -> list[Finding]:
        """The rule's findings, one per audited suite."""
        return [f for f in self.audit.findings if f.rule_id == rule_id]

    def confirmations(self, rule_id: str) -> list[Confirmation]:
        """The rule's causal tests."""
        return [c for c in self.audit.confirmations if c.rule_id == rule_id]

    def views(self, rule_id: str) -> list[MatchView]:
        """The rule's strongest matches, laid out token by token."""
        return [v for v in self.audit.views if v.rule_id == rule_id]
