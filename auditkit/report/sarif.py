"""Findings as SARIF 2.1.0, for tools that gate and track results."""

from __future__ import annotations

from typing import Any

from auditkit.core.findings import Finding, FindingState
from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import LockedRule, Severity, Status
from auditkit.core.measured import NotMeasured
from auditkit.core.verdicts import Match, Reason, Truth
from auditkit.report.document import ReportDocument
from auditkit.report.json import dump
from auditkit.report.sarif_correlations import correlation_descriptor, correlation_results
from auditkit.report.visible import one_line, visible
from auditkit.report.wording import calibration_sentence, detection_sentence, result_sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RELATED = 20

LEVELS = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
# The scale of CVSS, as GitHub reads `security-severity`.
SECURITY_SEVERITY = {
    Severity.INFO: "0.0",
    Severity.LOW: "3.0",
    Severity.MEDIUM: "5.5",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
PRECISION = {
    Status.EXPERIMENTAL: "low",
    Status.TEST: "medium",
    Status.STABLE: "high",
    Status.DEPRECATED: "low",
}
# Unknown for want of a usable rule: a person has to look. Otherwise it is merely open.
_FOR_REVIEW = {Reason.UNRESOLVED.value, Reason.MISMATCH.value, Reason.NOT_CALIBRATED.value}


def to_sarif(doc: ReportDocument) -> str:
    """Render fired and unknown findings as a SARIF 2.1.0 log.

    A fired finding fails at its severity's level; an unknown one is `open`, or `review` where the
    rule itself could not be used. A silent rule is no result (`pass` would claim an absence): its
    bound is in the run's properties.
    """
    rules = [doc.rule(r.rule_id) for r in doc.results]
    index = {rule.id: i for i, rule in enumerate(rules)}
    found = [f for r in doc.results for f in doc.findings(r.rule_id)]
    run = {
        "tool": {
            "driver": {
                "name": "auditkit",
                "semanticVersion": doc.audit.lock.provenance.auditkit,
                "shortDescription": {"text": "Audits a language model from the inside."},
                "rules": [_descriptor(rule) for rule in rules]
                + [
                    correlation_descriptor(c, LEVELS[c.severity], SECURITY_SEVERITY[c.severity])
                    for c in doc.audit.lock.correlations
                ],
            }
        },
        "automationDetails": {"id": f"auditkit/{doc.audit.name}/"},
        "artifacts": [
            {
                "location": {"uri": "report.json"},
                "description": {"text": "The audit report, in which every finding is laid out."},
            }
        ],
        "results": [
            _result(f, doc, index[f.rule_id]) for f in found if f.state is not FindingState.SILENT
        ]
        + correlation_results(doc, len(rules), LEVELS),
        "properties": _run_properties(doc, found),
    }
    return dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _descriptor(rule: LockedRule) -> dict[str, Any]:
    described = rule.description.strip() or rule.title
    return {
        "id": rule.id,
        "name": rule.id,
        "shortDescription": {"text": visible(rule.title)},
        "fullDescription": {"text": visible(described)},
        "help": {"text": visible(_help(rule))},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {
            "tags": sorted({"security", *rule.tags}),
            "security-severity": SECURITY_SEVERITY[rule.severity],
            "precision": PRECISION[rule.status],
            "auditkit/severity": rule.severity.value,
            "auditkit/status": rule.status.value,
            "auditkit/rev": rule.rev,
            "auditkit/digest": rule.digest,
        },
    }


def _help(rule: LockedRule) -> str:
    wrong = "; ".join(rule.false_positives) or "nothing named"
    return "\n".join(
        [
            f"Fires where: {rule.condition}",
            *(f"with {name} = {text}" for name, text in rule.let),
            f"Known to be wrong on: {wrong}.",
            f"False positives: {calibration_sentence(rule.calibration)}.",
            detection_sentence(rule.scores),
            "A rule that does not fire is not absence.",
        ]
    )


def _result(finding: Finding, doc: ReportDocument, index: int) -> dict[str, Any]:
    fired = finding.state is FindingState.FIRED
    wanted = Truth.TRUE if fired else Truth.UNKNOWN
    places = [m for m in finding.matches if m.truth is wanted and m.filtered_by is None]
    result: dict[str, Any] = {
        "ruleId": finding.rule_id,
        "ruleIndex": index,
        "kind": "fail" if fired else _unknown_kind(finding),
        "level": LEVELS[finding.severity] if fired else "none",
        "message": {"text": _message(finding, doc)},
        "locations": [_location(places[0] if places else None, finding)],
        "partialFingerprints": {"auditkit/fp1": finding.fp},
        "properties": _result_properties(finding, doc),
    }
    if len(places) > 1:
        result["relatedLocations"] = [
            {**_location(m, finding), "id": i} for i, m in enumerate(places[1 : RELATED + 1])
        ]
    return result


def _unknown_kind(finding: Finding) -> str:
    reasons = {reason for reason, _ in finding.unknown_reasons}
    return "review" if reasons & _FOR_REVIEW else "open"


def _message(finding: Finding, doc: ReportDocument) -> str:
    result = next(r for r in doc.results if r.rule_id == finding.rule_id)
    said = result_sentence(doc.rule(finding.rule_id), finding)
    text = one_line(f"{finding.rule_id}: {said} {result.causal}")
    # Braces are placeholders and brackets are links in a SARIF message.
    return text.translate({ord("{"): "{{", ord("}"): "}}", ord("["): "\\[", ord("]"): "\\]"})


def _location(match: Match | None, finding: Finding) -> dict[str, Any]:
    physical = {"artifactLocation": {"uri": "report.json", "index": 0}}
    if match is None:
        name = one_line(finding.suite)
        logical = {"name": name, "fullyQualifiedName": name, "kind": "suite"}
    else:
        prompt = one_line(match.prompt_id)
        logical = {
            "name": f"{prompt}, frame {match.frame}",
            "fullyQualifiedName": f"{match.recording}/{prompt}/{match.frame}",
            "kind": "frame",
        }
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def _result_properties(finding: Finding, doc: ReportDocument) -> dict[str, Any]:
    rule = doc.rule(finding.rule_id)
    return {
        "tags": sorted(rule.tags),
        "suite": visible(finding.suite),
        "frames": finding.frames,
        "fired": finding.fired,
        "unknown": finding.unknown,
        "unknownReasons": dict(finding.unknown_reasons),
        **({"filtered": dict(finding.filtered)} if finding.filtered else {}),
        "rate": _measure(finding),
        "causalVerdicts": [c.verdict.value for c in doc.confirmations(finding.rule_id)],
        "status": rule.status.value,
    }


def _measure(finding: Finding) -> dict[str, Any]:
    value = finding.rate
    if isinstance(value, NotMeasured):
        return {"notMeasured": value.reason}
    ends = value.interval
    interval = {"low": ends.low, "high": ends.high, "level": ends.level} if ends else None
    return {"value": value.value, "n": value.n, **({"interval": interval} if interval else {})}


def _run_properties(doc: ReportDocument, found: list[Finding]) -> dict[str, Any]:
    lock = doc.audit.lock
    return {
        "model": visible(lock.model.name),
        "modelDigest": lock.model.digest,
        "sae": visible(lock.sae.name),
        "saeDigest": lock.sae.digest,
        "lock": fingerprint(lock),
        "gitCommit": lock.provenance.git_commit,
        "silent": [
            {"rule": f.rule_id, "suite": visible(f.suite), "fp": f.fp, "rate": _measure(f)}
            for f in found
            if f.state is FindingState.SILENT
        ],
        "doesNotSay": list(doc.does_not_say),
    }
