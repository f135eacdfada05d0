"""Read conversations that were written one by one, the same suite from them on every machine.

A file of `suite_text/benign_chat/` holds conversations, parted by empty lines:

    [cooking]                  topic of what follows; `hard` and a source's name may come after it
    s: You help in a kitchen.  a turn a line: `s` system, `u` user, `a` assistant
    u: can you freeze hummus
    a: You can, for about three months.

`\\n` in a turn is a line break; lines that start with `#` are remarks. Nothing is filled in: each
conversation is a draw of its own. Half of them are for calibration and half for checking it. A hash
of the first user turn decides, so that both halves are drawn alike, and stay as they are when
conversations are added.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ROLES = {"s": "system", "u": "user", "a": "assistant"}
HEADER = re.compile(r"\[([a-z-]+)((?: [a-z-]+)*)\]")
TURN = re.compile(r"([sua]): (\S.*)")
HARD = "hard"


def read_folder(folder: Path, suite: str, label: str) -> Iterator[tuple[Json, str | None]]:
    """Each conversation of a folder as a prompt, with the name of its source, if it has one."""
    for path in sorted(folder.glob("*.txt")):
        yield from parse(path.read_text(encoding="utf-8"), path.name, suite, label)


def parse(text: str, place: str, suite: str, label: str) -> Iterator[tuple[Json, str | None]]:
    """The conversations of one file; SystemExit where the file says something else."""
    kept = "\n".join(row for row in text.splitlines() if not row.startswith("#"))
    header: re.Match[str] | None = None
    for block in re.split(r"\n\s*\n", kept.strip()):
        heads = HEADER.fullmatch(block.strip())
        if heads:
            header = heads
        elif header is None:
            raise SystemExit(f"{place}: a conversation before the first [topic]: {block[:60]}")
        else:
            marks = header[2].split()
            sources = [mark for mark in marks if mark != HARD]
            messages = [message(row, place) for row in block.splitlines()]
            yield (
                prompt(messages, suite, label, header[1], hard=HARD in marks, place=place),
                sources[0] if sources else None,
            )


def message(row: str, place: str) -> Json:
    """One turn from its line."""
    found = TURN.fullmatch(row.strip())
    if found is None:
        raise SystemExit(f"{place}: not a turn (`u: ...`), an empty line or a [topic]: {row[:60]}")
    return {"role": ROLES[found[1]], "content": found[2].replace("\\n", "\n")}


def prompt(
    messages: list[Json], suite: str, label: str, topic: str, *, hard: bool, place: str
) -> Json:
    """A prompt in suite form: user and assistant by turns, perhaps after a system message."""
    spoken = messages[1:] if messages[0]["role"] == "system" else messages
    wanted = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or [turn["role"] for turn in spoken] != wanted:
        raise SystemExit(f"{place}: turns must go u, a, u, a: {messages[0]['content'][:60]}")
    digest = hashlib.sha256(f"{suite}/{spoken[0]['content']}".encode()).hexdigest()
    return {
        "id": f"{suite}-{topic}-{digest[:8]}",
        "messages": messages,
        "label": label,
        "tags": [f"topic:{topic}", *([HARD] if hard else [])],
        "split": "select" if int(digest[-1], 16) % 2 else "test",
    }
