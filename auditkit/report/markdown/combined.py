"""Correlations in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.report.correlations import (
    correlation_sentence,
    members_in_words,
    shown_groups,
    standing_on,
)
from auditkit.report.document import ReportDocument
from auditkit.report.markdown.text import code, plain


def correlations_section(doc: ReportDocument) -> Iterator[str]:
    """What every correlation came to; nothing where there is none."""
    if not doc.audit.correlations:
        return
    yield from ("## Rules combined", "")
    for finding in doc.audit.correlations:
        c = doc.correlation(finding.correlation_id)
        yield (
            f"- {code(c.id)} ({c.severity.value}, {c.status.value}), {plain(c.title)}: "
            f"{plain(members_in_words(c))}. {plain(correlation_sentence(finding))}"
        )
        for match in shown_groups(finding):
            yield f"  - {plain(match.group)}: {plain(standing_on(match))}"
    yield ""
