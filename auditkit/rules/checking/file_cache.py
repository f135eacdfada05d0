"""Rule files that were read before: kept by content, so that only changed files are checked again.

An entry is JSON: what stands in the file, where, and what is wrong with it. Its name is the SHA-256
of the file's text and of all that decides how the text is read: the code of this package and of
`core`, and the libraries beneath. Entries that cannot be used (cut short, changed, of another
layout) count as not there; a folder that cannot be written to is passed over.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import get_ident
from typing import Any

import lark
import pydantic
import ruamel.yaml
from pydantic import ValidationError

import auditkit
from auditkit.core.diagnostics import Diagnostic, Level, Span
from auditkit.core.source_map import SourceMap
from auditkit.rules.checking.rule_files import ReadFile, RuleFile, make_rule_file, read_text
from auditkit.rules.documents.rule_documents import RulesDocument

LAYOUT = 1
MOST_BYTES = 64 * 2**20
LARGEST_TEXT = 2**20

Places = dict[tuple[str | int, ...], tuple[int, int, int]]


class RuleFileCache:
    """Reads rule files as `read_rules` does, those that were read before from `folder`.

    Holds at most about `most_bytes` there, the oldest entries going first (see `prune`).
    """

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.hits = 0
        self.written = 0

    def read(self, text: str, path: str) -> RuleFile:
        """The rule file of this text. Never raises."""
        entry = self.folder / f"{_key(text)}.json"
        known = _load(entry, text, path)
        if known is not None:
            self.hits += 1
            return known
        read = read_text(text, path)
        if len(text) <= LARGEST_TEXT:
            self._write(entry, _dump(read))
        return read.file

    def prune(self) -> None:
        """Bring the folder back to its size, where something was written."""
        if not self.written:
            return
        try:
            found = [(p.stat(), p) for p in self.folder.iterdir()]
        except OSError:
            return
        excess = sum(known.st_size for known, _ in found) - self.most_bytes
        for known, entry in sorted(found, key=lambda f: f[0].st_mtime_ns):
            if excess <= 0:
                return
            with suppress(OSError):
                entry.unlink()
            excess -= known.st_size

    def _write(self, entry: Path, body: bytes) -> None:
        part = entry.with_suffix(f".{os.getpid()}-{get_ident()}.part")
        try:
            if not self.written:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(sha256(body).hexdigest().encode() + b"\n" + body)
            part.replace(entry)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return
        self.written += 1


def _key(text: str) -> str:
    return sha256(_reader() + text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1)
def _reader() -> bytes:
    """What decides how a text is read: a checkout's code changes without its version."""
    root = Path(auditkit.__file__).parent
    code = [
        (str(p.relative_to(root)), s.st_size, s.st_mtime_ns)
        for room in ("core", "rules")
        for p in sorted((root / room).rglob("*.py"))
        for s in [p.stat()]
    ]
    libraries = (pydantic.VERSION, ruamel.yaml.__version__, lark.__version__)
    return sha256(repr((LAYOUT, auditkit.__version__, libraries, code)).encode()).digest()


def _dump(read: ReadFile) -> bytes:
    source = read.file.source
    told = [
        [d.code, d.level.value, d.message, d.span.line, d.span.column, d.span.length, d.help]
        for d in read.file.diagnostics
    ]
    entry = {
        "document": read.value if read.sound else None,
        "diagnostics": told,
        "keys": [[*at, *place] for at, place in source.keys.items()],
        "values": [[*at, *place] for at, place in source.values.items()],
    }
    return json.dumps(entry, separators=(",", ":")).encode()


def _load(entry: Path, text: str, path: str) -> RuleFile | None:
    try:
        digest, body = entry.read_bytes().split(b"\n", 1)
        if sha256(body).hexdigest().encode() != digest:
            return None
        known = json.loads(body)
        source = SourceMap(path=path, lines=text.splitlines())
        source.keys, source.values = _places(known["keys"]), _places(known["values"])
        diagnostics = tuple(_diagnostic(row, source) for row in known["diagnostics"])
        document = None
        if known["document"] is not None:
            document = RulesDocument.model_validate_json(json.dumps(known["document"]))
    except (OSError, ValueError, LookupError, TypeError, ValidationError):
        return None
    return make_rule_file(source, document, diagnostics)


def _places(rows: list[list[Any]]) -> Places:
    return {tuple(row[:-3]): (row[-3], row[-2], row[-1]) for row in rows}


def _diagnostic(row: list[Any], source: SourceMap) -> Diagnostic:
    code, level, message, line, column, length, help = row
    at = Span(
        path=source.path,
        line=line,
        column=column,
        length=length,
        source_line=source.lines[line - 1] if line <= len(source.lines) else "",
    )
    return Diagnostic(code=code, level=Level(level), message=message, span=at, help=help)
