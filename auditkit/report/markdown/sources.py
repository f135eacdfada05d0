"""Provenance in Markdown: digests, sources of figures, statements that give them again."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.report.document import ReportDocument
from auditkit.report.markdown.text import block, code, plain, table
from auditkit.report.provenance import SOURCES, digests, queries


def provenance_section(doc: ReportDocument) -> Iterator[str]:
    """What determines the numbers, and how to compute them again."""
    p = doc.audit.lock.provenance
    commit = code(p.git_commit) if p.git_commit else "not under version control"
    dirty = ", with uncommitted changes" if p.git_dirty else ""
    libraries = ", ".join(f"{name} {version}" for name, version in p.libraries)
    yield from ("## Provenance", "")
    yield from (f"auditkit {p.auditkit}, {commit}{dirty}; {plain(libraries)}.", "")
    yield from table(["Of", "Digest"], [[plain(n), code(d)] for n, d in digests(doc)])
    yield from ("### Where every figure comes from", "")
    yield from table(["Figures", "Source"], [[plain(s.figures), plain(s.source)] for s in SOURCES])
    yield from ("### Compute the numbers again", "")
    for query in queries(doc):
        yield from (f"{plain(query.about)}:", "", *block(query.sql, "sql"), "It gives:", "")
        yield from table(query.columns, [[plain(c) for c in row] for row in query.rows])
