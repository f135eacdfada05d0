"""Statements over the store that give numbers of a report again, with the rows they must give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from auditkit.report.figures import figure
from auditkit.report.visible import visible

Cell = str | int | float
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement, what it gives, and its rows: the report's numbers, written by `cell`."""

    about: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def query(
    about: str, sql: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]
) -> list[Query]:
    """The query in a list, its rows in order; an empty list where the report has no such number."""
    found = sorted({tuple(row) for row in rows})
    if not found:
        return []
    written = tuple(tuple(cell(value) for value in row) for row in found)
    return [Query(about=about, sql=sql, columns=tuple(columns), rows=written)]


def cell(value: Cell) -> str:
    """A value as the report prints it below a statement: whole, or to six significant digits."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else figure(value, DIGITS)


def literal(value: Cell) -> str:
    """A value as SQL."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def among(rows: Iterable[Sequence[Cell]]) -> str:
    """The right-hand side of IN: one row a line, each once."""
    tuples = sorted({tuple(row) for row in rows})
    if tuples and len(tuples[0]) == 1:
        return "(" + ", ".join(literal(row[0]) for row in tuples) + ")"
    lines = ["(" + ", ".join(map(literal, row)) + ")" for row in tuples]
    return "(\n  " + ",\n  ".join(lines) + "\n)"


def writable(text: str) -> bool:
    """Whether a name can stand in a statement as it is, with nothing hidden in it."""
    return visible(text) == text and "\n" not in text
