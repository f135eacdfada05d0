"""What an earlier score says of the same weights and is not measured this time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from auditkit.core.measured import Measured, NotMeasured
from auditkit.pipeline.scoring.contenders import Compared
from auditkit.report.score_document import (
    EVERY_GROUP,
    Beside,
    Column,
    ProbeTask,
    ScoreDocument,
    ScorePart,
    ScoreRow,
)


def read_score(path: Path) -> ScoreDocument | None:
    """An earlier score; None where there is none, or none that this version reads."""
    try:
        return ScoreDocument.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def with_kept(
    document: ScoreDocument, before: ScoreDocument | None, compared: Compared
) -> ScoreDocument:
    """`document` with the groups that it lacks, and the values of comparisons that are absent,
    from an earlier score of the same weights on the same model; everything kept is marked."""
    if before is None or before.model != document.model:
        return document
    if before.sae.weights_sha256 != document.sae.weights_sha256:
        return document
    absent = {c.column for c in compared.shown if c.absent}
    stability = compared.second_seed.absent or compared.reference.absent
    parts: list[ScorePart] = []
    for group in EVERY_GROUP:
        new, old = document.part(group), before.part(group)
        if new is None or (group == "stability" and stability and old is not None):
            if old is not None:
                parts.append(old.model_copy(update={"kept": True}))
            if old is not None or new is None:
                continue
        parts.append(new if old is None else _filled(new, old, absent))
    kept = {b.column for part in parts for row in part.rows for b in row.beside if b.kept}
    earlier = before.kept_from or before.text
    other_text = (kept or any(p.kept for p in parts)) and earlier.digest != document.text.digest
    return document.model_copy(
        update={
            "parts": tuple(parts),
            "columns": _columns(document, before, kept),
            "kept_from": earlier if other_text else None,
        }
    )


def _columns(document: ScoreDocument, before: ScoreDocument, kept: set[str]) -> tuple[Column, ...]:
    """The columns, with the earlier notes of those whose values were kept."""
    notes = {c.name: c for c in before.columns}
    own = [notes.get(c.name, c) if c.name in kept else c for c in document.columns]
    names = {c.name for c in own}
    return (*own, *(c for c in before.columns if c.name in kept - names))


def _filled(new: ScorePart, old: ScorePart, absent: set[str]) -> ScorePart:
    rows = {row.name: row for row in old.rows}
    gone = {c for c in absent if _has(old, c)}
    return new.model_copy(
        update={
            "rows": tuple(_row(row, rows.get(row.name), absent) for row in new.rows),
            "densities": (*new.densities, *(d for d in old.densities if d.column in gone)),
            "distributions": (
                *new.distributions,
                *(d for d in old.distributions if d.column in gone),
            ),
            "frontier": (*new.frontier, *(p for p in old.frontier if p.curve in gone)),
            "effects": (*new.effects, *(e for e in old.effects if e.column in gone)),
            "probes": tuple(_tasks(new.probes, old.probes, gone)),
        }
    )


def _has(part: ScorePart, column: str) -> bool:
    return any(
        b.column == column and isinstance(b.value, Measured) for r in part.rows for b in r.beside
    )


def _row(new: ScoreRow, old: ScoreRow | None, absent: set[str]) -> ScoreRow:
    if old is None:
        return new
    earlier = {b.column: b for b in old.beside if isinstance(b.value, Measured)}

    def kept(b: Beside) -> Beside:
        if isinstance(b.value, NotMeasured) and b.column in absent and b.column in earlier:
            return earlier[b.column].model_copy(update={"kept": True})
        return b

    named = {b.column for b in new.beside}
    lost = (
        earlier[c].model_copy(update={"kept": True})
        for c in sorted(absent & earlier.keys() - named)
    )
    return new.model_copy(update={"beside": (*map(kept, new.beside), *lost)})


def _tasks(
    new: Iterable[ProbeTask], old: Iterable[ProbeTask], gone: set[str]
) -> Iterable[ProbeTask]:
    earlier = {t.name: t for t in old}
    for task in new:
        scores = earlier[task.name].scores if task.name in earlier else ()
        yield task.model_copy(
            update={"scores": (*task.scores, *(s for s in scores if s.column in gone))}
        )
