"""The report as Markdown: the same sections as the page, without plots and token colours."""

from __future__ import annotations

from auditkit.report.document import ReportDocument
from auditkit.report.markdown.combined import correlations_section
from auditkit.report.markdown.coverage import coverage_section
from auditkit.report.markdown.headline import headline, rules_table
from auditkit.report.markdown.rule import rule_section
from auditkit.report.markdown.sources import provenance_section


def to_markdown(doc: ReportDocument) -> str:
    """Render `doc`; text of prompts, rules and models is escaped, hidden characters written out."""
    lines = [
        *headline(doc),
        *rules_table(doc),
        "## Each rule",
        "",
        *(line for result in doc.results for line in rule_section(doc, result)),
        *correlations_section(doc),
        *coverage_section(doc),
        *provenance_section(doc),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"
