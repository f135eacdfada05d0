"""An SAE's score as one HTML page: facts, plots, the table. No script, no request."""

from __future__ import annotations

from markupsafe import Markup

from auditkit.report.html import page_environment
from auditkit.report.score_document import ScoreDocument
from auditkit.report.score_plots import score_figures
from auditkit.report.score_table import lay_out_score, task_rows


def score_html(doc: ScoreDocument) -> str:
    """Render `doc` as one self-contained page; the same document gives the same text.

    Everything is escaped, and a content security policy forbids any script and any request.
    """
    probing = doc.part("probing")
    tasks = task_rows(probing) if probing is not None and probing.probes else None
    return (
        page_environment()
        .get_template("score.html.j2")
        .render(
            doc=doc,
            view=lay_out_score(doc),
            figures=[(f.title, Markup(f.svg), f.caption) for f in score_figures(doc)],
            tasks=tasks,
        )
    )
