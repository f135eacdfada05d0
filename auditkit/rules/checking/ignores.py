"""`# auditkit: ignore=AK031 reason`: diagnostics that an author silences, with a reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.diagnostics import Diagnostic, Span
from auditkit.core.source_map import SourceMap
from auditkit.rules.checking.codes import CODES, FIXED_FAMILIES

_COMMENT = re.compile(r"(?:^|\s)#\s*auditkit:\s*ignore=(?P<codes>[A-Za-z0-9,]*)(?P<reason>.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ignore:
    codes: tuple[str, ...]
    reason: str
    line: int
    covers: int
    span: Span


def apply_ignores(source: SourceMap, found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Leave out what a comment silences; report comments that are wrong or silence nothing.

    A comment covers its own line or, standing alone, the next one. YAML, schema and syntax errors
    (families 00x to 02x) cannot be silenced.
    """
    ignores = [i for n, line in enumerate(source.lines) for i in _parse(source, n, line)]
    kept: list[Diagnostic] = []
    used: set[int] = set()
    for d in found:
        hits = [i for i in ignores if d.code in i.codes and d.span.line in (i.line, i.covers)]
        fixed = d.code[:4] in FIXED_FAMILIES
        used |= {i.line for i in hits} if not fixed else set()
        if fixed or not hits:
            kept.append(d)
    for ignore in ignores:
        kept += _complaints(ignore, ignore.line in used)
    return kept


def apply_late(
    source: SourceMap, told: Sequence[Diagnostic], late: Sequence[Diagnostic]
) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """Silence what shows only when files are seen together: `told` is what was said of this file
    alone, where an ignore of a `late` diagnostic looked as if it silenced nothing."""
    ignores = [i for n, line in enumerate(source.lines) for i in _parse(source, n, line)]
    kept: list[Diagnostic] = []
    used: set[int] = set()
    for d in late:
        hits = {i.line for i in ignores if d.code in i.codes and d.span.line in (i.line, i.covers)}
        if d.code[:4] in FIXED_FAMILIES or not hits:
            kept.append(d)
        else:
            used |= hits
    return [d for d in told if d.code != "AK095" or d.span.line not in used], kept


def _parse(source: SourceMap, number: int, line: str) -> list[_Ignore]:
    match = _COMMENT.search(line)
    if match is None:
        return []
    start = line.index("#", match.start())
    alone = not line[:start].strip()
    return [
        _Ignore(
            codes=tuple(c for c in match["codes"].split(",") if c),
            reason=match["reason"].strip(),
            line=number + 1,
            covers=number + 2 if alone else number + 1,
            span=Span(
                path=source.path,
                line=number + 1,
                column=start + 1,
                length=len(line.rstrip()) - start,
                source_line=line,
            ),
        )
    ]


def _complaints(ignore: _Ignore, used: bool) -> list[Diagnostic]:
    def complain(code: str, message: str, help: str) -> Diagnostic:
        level = CODES[code].level
        return Diagnostic(code=code, level=level, message=message, span=ignore.span, help=help)

    unknown = [c for c in ignore.codes if c not in CODES]
    fixed = [c for c in ignore.codes if c[:4] in FIXED_FAMILIES]
    found: list[Diagnostic] = []
    if unknown or not ignore.codes:
        what = f"{unknown[0]!r} is no code" if unknown else "no code is named"
        found.append(complain("AK094", f"an ignore that names nothing: {what}", "ignore=AK031 why"))
    elif fixed:
        message = f"{fixed[0]} cannot be ignored"
        found.append(complain("AK094", message, "correct the file instead"))
    elif not ignore.reason:
        found.append(complain("AK094", "an ignore without a reason", "write why behind the code"))
    elif not used:
        found.append(complain("AK095", "an ignore that silences nothing", "take the comment out"))
    return found
