"""A report's files: written whole, and rendered again from report.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.pipeline.whole_file import write_whole
from auditkit.report import (
    ReportDocument,
    to_html,
    to_json,
    to_markdown,
    to_sarif,
    to_terminal,
)


def write_report(document: ReportDocument, folder: Path) -> Path:
    """Write report.html, report.md, report.json and findings.sarif; the page's path."""
    files = {
        "report.html": to_html(document),
        "report.md": to_markdown(document),
        "report.json": to_json(document),
        "findings.sarif": to_sarif(document),
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return folder / "report.html"


def render_again(file: Path, folder: Path | None) -> tuple[ReportDocument, str]:
    """Read a report.json and write its other forms into `folder`, by default beside it.

    Returns the document and what the terminal shows. InvalidInput where the file is no report of
    this version, RunFailed where nothing can be written.
    """
    document = read_report(file)
    folder = file.parent if folder is None else folder
    make_folder(folder)
    page = write_report(document, folder)
    return document, to_terminal(document) + f"\nreport: {page}"


def read_report(file: Path) -> ReportDocument:
    """Read a report.json; InvalidInput where the file is no report of this version."""
    try:
        return ReportDocument.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidInput(
            f"{file}: cannot be read: {error.strerror}",
            help="name the report.json that `auditkit audit` wrote",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidInput(
            f"{file}: not a report that this version reads: {place}: {first['msg']}",
            help="run `auditkit audit` again with this version; nothing is recorded twice",
        ) from None


def make_folder(folder: Path) -> None:
    """Make a folder for results; RunFailed where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(
            f"{folder}: cannot be made: {error}", help="name a folder that can be written"
        ) from None
