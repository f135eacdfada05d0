"""Coverage and limits in Markdown: what the audit looked at, and what it could not see."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.audits import AuditRecord, SuiteSummary
from auditkit.report.document import ReportDocument
from auditkit.report.facts import left_out, mask_names
from auditkit.report.figures import measure, observations, percent
from auditkit.report.markdown.text import code, plain, table


def coverage_section(doc: ReportDocument) -> Iterator[str]:
    """How well the autoencoder sees, which tokens were looked at, what stayed unknown, limits."""
    audit = doc.audit
    yield from ("## Coverage and limits", "")
    yield from _quality(audit)
    yield from (f"Masked: {', '.join(mask_names(audit.lock.masked)) or 'nothing'}.", "")
    head = "Suite|Used for|Prompts|Tokens|Eligible|Covered|Masked|Source|Licence"
    yield from table(head.split("|"), map(_suite, audit.suites))
    yield from _unknown(audit)
    yield from (f"- {plain(limit)}" for limit in audit.limits)
    yield ""


def _quality(audit: AuditRecord) -> list[str]:
    measures = [
        *(("the audited prompts", m) for m in audit.fidelity),
        *(("held-out text", m) for m in audit.sae_quality),
    ]
    rows = [
        [
            plain(m.name),
            where,
            plain(measure(m.value, m.unit)),
            observations(m.value),
            plain(m.note),
        ]
        for where, m in measures
    ]
    return table(["Measure of the autoencoder", "Measured on", "Value", "n", "Note"], rows)


def _suite(s: SuiteSummary) -> list[str]:
    share = f" ({percent(s.covered_tokens / s.tokens)})" if s.tokens else ""
    return [
        plain(s.name),
        plain(s.use),
        f"{s.prompts:,}",
        f"{s.tokens:,}",
        f"{s.eligible_tokens:,}",
        f"{s.covered_tokens:,}{share}",
        plain(left_out(s.masked)) or "none",
        plain(s.source),
        plain(s.licence),
    ]


def _unknown(audit: AuditRecord) -> list[str]:
    rows = [
        [
            code(f.rule_id),
            plain(f.suite),
            f"{f.unknown:,}",
            f"{f.frames:,}",
            plain(", ".join(f"{reason} {n:,}" for reason, n in f.unknown_reasons)) or "none",
        ]
        for f in audit.findings
    ]
    return table(["Rule", "Suite", "Unknown", "Frames", "Reasons"], rows)
