"""Correlations and excused matches are in every rendering of a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from jsonschema import Draft4Validator

from auditkit.core.audits import AuditRecord
from auditkit.core.correlations import (
    CorrelationFinding,
    CorrelationMatch,
    CorrelationMember,
    CorrelationType,
    GroupBy,
    LockedCorrelation,
    MatchedFrame,
    SpanUnit,
    Within,
)
from auditkit.core.findings import FindingState
from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import NotMeasured
from auditkit.core.standing import Severity, Status
from auditkit.core.statistics import binomial_rate
from auditkit.core.verdicts import Reason, Truth
from auditkit.report import (
    build_report,
    to_html,
    to_json,
    to_markdown,
    to_sarif,
    to_terminal,
)
from auditkit.report.document import ReportDocument
from auditkit.report.provenance import queries
from auditkit.report.sql import cell
from auditkit.store import open_store
from tests.report_sample import HARM, HOSTILE, RECORDING, sample_audit

SCHEMA = Path(__file__).parents[2] / "data" / "sarif-schema-2.1.0.json"
CORRELATION = LockedCorrelation(
    id="harm.twice", rev=2, digest="ab" * 32, title=f"Harm twice {HOSTILE}", description="",
    severity=Severity.CRITICAL, status=Status.TEST, tags=("topic:harm",),
    false_positives=("Unknown",), type=CorrelationType.COUNT,
    members=(CorrelationMember(rule=HARM.id),), group_by=GroupBy.CONVERSATION, at_least=2,
    within=Within(count=1, unit=SpanUnit.MESSAGES),
)  # fmt: skip


def verdict(number: int, truth: Truth) -> CorrelationMatch:
    frames = [
        MatchedFrame(
            rule_id=HARM.id, recording=RECORDING.id, prompt_id=f"p{number}", frame=n, token=None
        )
        for n in range(5)
    ]
    return CorrelationMatch(
        correlation_id=CORRELATION.id,
        correlation_digest=CORRELATION.digest,
        suite=RECORDING.suite,
        group=f"{RECORDING.id}/p{number}",
        truth=truth,
        reason=Reason.NOT_COVERED if truth is Truth.UNKNOWN else None,
        frames=tuple(frames) if truth is Truth.TRUE else (),
    )


def finding(*truths: Truth) -> CorrelationFinding:
    matches = tuple(verdict(n, truth) for n, truth in enumerate(truths))
    fired, unknown = truths.count(Truth.TRUE), truths.count(Truth.UNKNOWN)
    decided = len(truths) - unknown
    silent = FindingState.SILENT if decided else FindingState.UNKNOWN
    return CorrelationFinding(
        fp="fp1:0123456789abcdef",
        correlation_id=CORRELATION.id,
        correlation_digest=CORRELATION.digest,
        suite=RECORDING.suite,
        state=FindingState.FIRED if fired else silent,
        severity=CORRELATION.severity,
        groups=len(truths),
        fired=fired,
        unknown=unknown,
        unknown_reasons=((Reason.NOT_COVERED.value, unknown),) if unknown else (),
        rate=binomial_rate(fired, decided) if decided else NotMeasured("no group was decided"),
        matches=matches,
    )


def audit(*truths: Truth) -> AuditRecord:
    sample = sample_audit()
    lock = replace(sample.lock, correlations=(CORRELATION,))
    return replace(sample, lock=lock, correlations=(finding(*truths),))


HELD = audit(Truth.TRUE, Truth.FALSE, Truth.UNKNOWN)


def test_every_rendering_shows_a_correlation_that_held() -> None:
    doc = build_report(HELD)
    assert ReportDocument.model_validate_json(to_json(doc)) == doc
    said = "Held in 1 of 2 groups on smollm2/prompts"
    assert said in to_terminal(doc, width=300)
    assert said in to_markdown(doc)
    assert "harm.request, counted (at least 2, within 1 message), per conversation" in to_markdown(
        doc
    )
    page = to_html(doc)
    assert "Rules combined" in page
    assert "harm.request in frame 2 of p0; and 2 more" in page
    assert "<script>alert(1)" not in page


def test_a_report_without_correlations_has_no_such_section() -> None:
    doc = build_report(sample_audit())
    assert "Rules combined" not in to_html(doc) + to_markdown(doc)


def test_a_correlation_is_a_sarif_result_of_its_own_rule() -> None:
    log = json.loads(to_sarif(build_report(HELD)))
    Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(log)
    (run,) = log["runs"]
    (result,) = [r for r in run["results"] if r["ruleId"] == "harm.twice"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "harm.twice"
    assert (result["kind"], result["level"]) == ("fail", "error")
    assert result["properties"]["fired"] == 1
    (place,) = result["locations"][0]["logicalLocations"]
    assert place["name"].endswith("/p0")


def test_a_silent_correlation_is_no_result_and_an_unknown_one_is_open() -> None:
    def results(record: AuditRecord) -> list[str]:
        log = json.loads(to_sarif(build_report(record)))
        return [r["kind"] for r in log["runs"][0]["results"] if r["ruleId"] == "harm.twice"]

    assert results(audit(Truth.FALSE)) == []
    assert results(audit(Truth.UNKNOWN)) == ["open"]
    assert "It says neither yes nor no" in to_markdown(build_report(audit(Truth.UNKNOWN)))
    assert "Did not hold in any of 1 group" in to_markdown(build_report(audit(Truth.FALSE)))
    assert "no prompt is in any of its groups" in to_markdown(build_report(audit()))


def test_excused_matches_are_counted_in_words_and_by_a_statement() -> None:
    fired = next(f for f in HELD.findings if f.state is FindingState.FIRED)
    true = next(m for m in fired.matches if m.truth is Truth.TRUE)
    matches = tuple(replace(m, filtered_by="a.filter") if m is true else m for m in fired.matches)
    tuned = replace(fired, matches=matches, filtered=(("a.filter", 1),), fired=fired.fired - 1)
    findings = tuple(tuned if f is fired else f for f in HELD.findings)
    doc = build_report(replace(HELD, findings=findings))
    assert "1 matched and is excused by filter (a.filter 1)" in to_terminal(doc, width=400)
    named = {q.about: q for q in queries(doc)}
    with open_store(":memory:") as store:
        digest = store.write_lock(doc.audit.lock)
        assert digest == fingerprint(doc.audit.lock)
        for f in findings:
            store.write_matches(f.matches, lock=digest)
        store.write_correlation(doc.audit.correlations[0], lock=digest)
        for title in ("Matches that filters excuse", "Groups in which rules combined held"):
            rows = store.query(named[title].sql.rstrip(";")).to_pylist()
            given = [tuple(cell(value) for value in row.values()) for row in rows]
            assert given == list(named[title].rows), title
    log = json.loads(to_sarif(doc))
    own = [r for r in log["runs"][0]["results"] if r["ruleId"] == fired.rule_id]
    assert all(r["properties"].get("filtered") == {"a.filter": 1} for r in own[:1])
