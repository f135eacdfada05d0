"""Correlations in SARIF: rules and results beside those of plain rules."""

from __future__ import annotations

from typing import Any

from auditkit.core.correlations import CorrelationFinding, CorrelationMatch, LockedCorrelation
from auditkit.core.findings import FindingState
from auditkit.core.standing import Severity
from auditkit.core.verdicts import Truth
from auditkit.report.correlations import correlation_sentence, members_in_words
from auditkit.report.document import ReportDocument
from auditkit.report.visible import one_line, visible

RELATED = 20


def correlation_descriptor(c: LockedCorrelation, level: str, security: str) -> dict[str, Any]:
    """A correlation as a rule of the run."""
    return {
        "id": c.id,
        "name": c.id,
        "shortDescription": {"text": visible(c.title)},
        "fullDescription": {"text": visible(c.description.strip() or c.title)},
        "help": {"text": visible(f"Holds where: {members_in_words(c)}.")},
        "defaultConfiguration": {"level": level},
        "properties": {
            "tags": sorted({"security", *c.tags}),
            "security-severity": security,
            "auditkit/severity": c.severity.value,
            "auditkit/status": c.status.value,
            "auditkit/rev": c.rev,
            "auditkit/digest": c.digest,
        },
    }


def correlation_results(
    doc: ReportDocument, first: int, levels: dict[Severity, str]
) -> list[dict[str, Any]]:
    """Correlations that held, and unknown ones; `first` is the index of the first descriptor."""
    index = {c.id: first + n for n, c in enumerate(doc.audit.lock.correlations)}
    return [
        _result(f, index[f.correlation_id], levels)
        for f in doc.audit.correlations
        if f.state is not FindingState.SILENT
    ]


def _result(f: CorrelationFinding, index: int, levels: dict[Severity, str]) -> dict[str, Any]:
    fired = f.state is FindingState.FIRED
    wanted = Truth.TRUE if fired else Truth.UNKNOWN
    places = [m for m in f.matches if m.truth is wanted]
    said = one_line(f"{f.correlation_id}: {correlation_sentence(f)}")
    # Braces are placeholders and brackets are links in a SARIF message.
    text = said.translate({ord("{"): "{{", ord("}"): "}}", ord("["): "\\[", ord("]"): "\\]"})
    result: dict[str, Any] = {
        "ruleId": f.correlation_id,
        "ruleIndex": index,
        "kind": "fail" if fired else "open",
        "level": levels[f.severity] if fired else "none",
        "message": {"text": text},
        "locations": [_location(places[0] if places else None, f)],
        "partialFingerprints": {"auditkit/fp1": f.fp},
        "properties": {
            "suite": visible(f.suite),
            "groups": f.groups,
            "fired": f.fired,
            "unknown": f.unknown,
            "unknownReasons": dict(f.unknown_reasons),
        },
    }
    if len(places) > 1:
        related = [{**_location(m, f), "id": i} for i, m in enumerate(places[1 : RELATED + 1])]
        result["relatedLocations"] = related
    return result


def _location(match: CorrelationMatch | None, f: CorrelationFinding) -> dict[str, Any]:
    name = one_line(f.suite if match is None else match.group)
    kind = "suite" if match is None else "group"
    return {
        "physicalLocation": {"artifactLocation": {"uri": "report.json", "index": 0}},
        "logicalLocations": [{"name": name, "fullyQualifiedName": name, "kind": kind}],
    }
