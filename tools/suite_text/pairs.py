"""Read pairs that were written one by one: a concerning prompt and its benign twin.

A file of `suite_text/paired/` is one family. Its head gives name, title and description; pairs are
parted by empty lines:

    name: sycophancy
    title: ...
    description: ...

    [work]                       kind of what follows, a tag
    u: What do you think of it?  the turn that both twins answer, where the family is about answers
    + a concerning turn          the user's, or the assistant's after a `u:` line
    - its benign twin

`\\n` in a turn is a line break; lines that start with `#` are remarks. Nothing is filled in. A
pair's number is its place in the file, so new pairs stand at the end, under a kind named again.
Both twins of an odd pair are for selection, both of an even one for the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditkit.core.prompts import Message, Prompt, Role, Split, Suite

SOURCE = "auditkit authors"
LICENCE = "Apache-2.0"
HEAD = ("name", "title", "description")
KIND = re.compile(r"\[([a-z]+(?:-[a-z]+)*)\]")
SIDES = {"+": "concerning", "-": "benign"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two twins: the turns in which they differ, and the user's turn before both, if any."""

    number: int
    kind: str
    asked: str | None
    concerning: str
    benign: str

    @property
    def split(self) -> Split:
        return Split.SELECT if self.number % 2 else Split.TEST

    def side(self, label: str) -> str:
        """The turn of one side."""
        return self.concerning if label == "concerning" else self.benign


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of pairs with what stands in its head."""

    name: str
    title: str
    description: str
    pairs: tuple[Pair, ...]


def read_families(folder: Path) -> list[Family]:
    """Every family of a folder, by name."""
    return [parse(p.read_text(encoding="utf-8"), p.name) for p in sorted(folder.glob("*.txt"))]


def parse(text: str, place: str) -> Family:
    """A family from its file; SystemExit where the file says something else."""
    kept = "\n".join(row for row in text.splitlines() if not row.startswith("#"))
    head, *blocks = re.split(r"\n\s*\n", kept.strip())
    said = dict(row.split(": ", 1) for row in head.splitlines() if ": " in row)
    if tuple(said) != HEAD:
        raise SystemExit(f"{place}: the head needs {', '.join(HEAD)}, in this order")
    pairs = tuple(pairs_of(blocks, place))
    if len({pair.asked is None for pair in pairs}) != 1:
        raise SystemExit(f"{place}: either all pairs have a u: line or none has")
    return Family(**said, pairs=pairs)


def pairs_of(blocks: list[str], place: str) -> Iterator[Pair]:
    """The pairs of a family's blocks, numbered from 1."""
    kind, number = "", 0
    for block in blocks:
        rows = [row.strip() for row in block.splitlines()]
        if found := KIND.fullmatch(rows[0]):
            kind = found[1]
            rows = rows[1:]
        if rows:
            number += 1
            yield pair(rows, kind, number, place)


def pair(rows: list[str], kind: str, number: int, place: str) -> Pair:
    """One pair from its two or three lines."""
    marks, turns = [row[:2] for row in rows], [row[2:].strip() for row in rows]
    asked = turns.pop(0) if marks[0] == "u:" else None
    if marks[-len(turns) :] != ["+ ", "- "] or not kind or not all(turns):
        raise SystemExit(f"{place}: pair {number} ([kind], u: or not, +, -): {rows[0][:60]}")
    lines = [turn.replace("\\n", "\n") for turn in (*turns, asked or "")]
    return Pair(
        number=number,
        kind=kind,
        asked=None if asked is None else lines[2],
        concerning=lines[0],
        benign=lines[1],
    )


def suite(family: Family, label: str) -> Suite:
    """One side of a family, `concerning` or `benign`, as a suite."""
    return Suite(
        name=f"{family.name}-{label}",
        title=f"{family.title} ({label} twins)",
        description=family.description,
        source=SOURCE,
        licence=LICENCE,
        prompts=tuple(prompt(family.name, each, label) for each in family.pairs),
    )


def prompt(family: str, pair: Pair, label: str) -> Prompt:
    """One twin as a prompt."""
    user = Message(role=Role.USER, content=pair.asked or pair.side(label))
    answer = (Message(role=Role.ASSISTANT, content=pair.side(label)),) if pair.asked else ()
    return Prompt(
        id=f"{family}-{pair.number:03d}-{label}",
        messages=(user, *answer),
        label=label,
        tags=(f"pair:{pair.number:03d}", f"kind:{pair.kind}"),
        split=pair.split,
        source=SOURCE,
        licence=LICENCE,
    )
