"""A query's rows as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditkit.report.visible import one_line
from auditkit.store.querying import QueryResult

_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL", "NUMBER")


def show_result(result: QueryResult) -> None:
    """Print the rows; hidden and control characters are written out, NULL is a dash."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, type_ in zip(result.columns, result.types, strict=True):
        right = any(n in type_.upper() for n in _NUMBERS)
        table.add_column(Text(one_line(name)), justify="right" if right else "left")
    for row in result.rows:
        table.add_row(*(_cell(value) for value in row))
    Console(highlight=False).print(table)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, str) and ("┌" in value or "\n│" in value):
        return Text("\n".join(one_line(line) for line in value.splitlines()))
    return Text(one_line(f"{value:.6g}" if isinstance(value, float) else str(value)))
