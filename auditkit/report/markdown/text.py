"""Markdown that no text of a prompt, a rule or a model can break out of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from auditkit.report.visible import one_line, visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!^])")


def plain(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would read."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def code(text: str) -> str:
    """`text` as inline code; a fence longer than any run of backticks in it."""
    line = one_line(text).replace("|", "\\|")
    ticks = max((len(run) for run in re.findall("`+", line)), default=0)
    fence, pad = "`" * (ticks + 1), " " if ticks else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table with a blank line after it; cells are already escaped."""
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def block(text: str, language: str = "text") -> list[str]:
    """A fenced block, the fence longer than any run of backticks in `text`."""
    shown = visible(text)
    ticks = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, ticks + 1)
    return [fence + language, *shown.split("\n"), fence, ""]
