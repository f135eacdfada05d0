"""Collects diagnostics of one rule file, with levels from the table of codes."""

from __future__ import annotations

from auditkit.core.diagnostics import Diagnostic, Level
from auditkit.core.source_map import Path, SourceMap
from auditkit.rules.checking.check import Problem
from auditkit.rules.checking.codes import CODES


class Reporter:
    """Diagnostics of one file, in the order found."""

    def __init__(self, source: SourceMap) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []

    def add(
        self, code: str, message: str, at: Path, *, key: bool = False, help: str | None = None
    ) -> None:
        """Report at the value (or key) that stands at a path of the document."""
        span = self.source.span(at, key=key)
        self.diagnostics.append(
            Diagnostic(code=code, level=CODES[code].level, message=message, span=span, help=help)
        )

    def add_inside(self, problem: Problem, at: Path, text: str) -> None:
        """Report at a place inside the condition `text` that stands at a path."""
        span = self.source.span_inside(at, text, problem.place.start, problem.place.end)
        self.diagnostics.append(
            Diagnostic(
                code=problem.code,
                level=CODES[problem.code].level,
                message=problem.message,
                span=span,
                help=problem.help,
            )
        )

    def has_errors_from(self, count: int) -> bool:
        """Was an error reported after the first `count` diagnostics?"""
        return any(d.level is Level.ERROR for d in self.diagnostics[count:])
