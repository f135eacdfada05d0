"""`auditkit report`: an audit's report.json, rendered again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json


def report(
    file: Annotated[Path, typer.Argument(help="A report.json.", metavar="REPORT.json")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; by default the file's own.")
    ] = None,
    json: Json = False,
) -> None:
    """Write report.html, report.md and findings.sarif again from report.json.

    Needs neither model nor store: for a report that was sent, or after an update.

    Examples:

      auditkit report reports/smollm2/report.json --out /tmp/smollm2

      auditkit report report.json --json
    """
    from auditkit.pipeline.report_files import render_again
    from auditkit.report import to_json

    document, terminal = render_again(file, out)
    print(to_json(document) if json else terminal)
