"""Diagnostics as text, JSON, SARIF 2.1.0, or commands for GitHub's checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from auditkit.core.diagnostics import Diagnostic, Level
from auditkit.rules.checking.codes import CODES

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render_text(found: Sequence[Diagnostic]) -> str:
    """Each diagnostic with its line and caret; nothing where nothing is wrong."""
    return "\n".join(_with_level(d) for d in found)


def _with_level(d: Diagnostic) -> str:
    text = d.render()
    if d.level is Level.ERROR:
        return text
    return text.replace(f": {d.code} ", f": {d.code} warning: ", 1)


def render_json(found: Sequence[Diagnostic]) -> str:
    """A list of objects: code, level, message, path, line, column, length, help."""
    rows = [
        {
            "code": d.code,
            "level": d.level.value,
            "message": d.message,
            "path": d.span.path,
            "line": d.span.line,
            "column": d.span.column,
            "length": d.span.length,
            "help": d.help,
        }
        for d in found
    ]
    return json.dumps({"diagnostics": rows}, indent=2, ensure_ascii=False)


def render_sarif(found: Sequence[Diagnostic], *, version: str = "0") -> str:
    """One SARIF 2.1.0 run; every code found stands among the tool's rules."""
    codes = sorted({d.code for d in found})
    driver = {
        "name": "auditkit",
        "version": version,
        "rules": [
            {"id": c, "shortDescription": {"text": CODES[c].title if c in CODES else c}}
            for c in codes
        ],
    }
    results = [_sarif_result(d, codes.index(d.code)) for d in found]
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    document = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _sarif_result(d: Diagnostic, index: int) -> dict[str, Any]:
    s = d.span
    region = {
        "startLine": s.line,
        "startColumn": s.column,
        "endLine": s.line,
        "endColumn": s.column + max(1, s.length),
    }
    message = d.message if d.help is None else f"{d.message} ({d.help})"
    return {
        "ruleId": d.code,
        "ruleIndex": index,
        "level": d.level.value,
        "message": {"text": message},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": s.path.replace("\\", "/")},
                    "region": region,
                }
            }
        ],
    }


def render_github(found: Sequence[Diagnostic]) -> str:
    """Workflow commands, one a line, which GitHub shows at the place in the diff."""
    return "\n".join(_github_line(d) for d in found)


def _github_line(d: Diagnostic) -> str:
    s = d.span
    place = (
        f"file={_property(s.path)},line={s.line},col={s.column},"
        f"endColumn={s.column + max(1, s.length)},title={d.code}"
    )
    message = d.message if d.help is None else f"{d.message} ({d.help})"
    return f"::{d.level.value} {place}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: dict[str, Callable[[Sequence[Diagnostic]], str]] = {
    "text": render_text,
    "json": render_json,
    "sarif": render_sarif,
    "github": render_github,
}
"""The formats of `rules lint --format`."""
