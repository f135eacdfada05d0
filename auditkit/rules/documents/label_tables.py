"""Label tables: what each latent of one SAE is said to stand for, pinned by the table's digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from auditkit.core.documents import Document, parse_document
from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.fingerprint import fingerprint
from auditkit.core.labels import LatentLabel
from auditkit.rules.documents.fields import Text
from auditkit.rules.documents.patterns import PatternError, compile_pattern
from auditkit.rules.documents.rule_documents import LabelSelect

FORMAT = "auditkit-labels/1"
MAX_BYTES = 256 << 20


class LabelRow(Document):
    """One label of one latent."""

    latent: Annotated[int, Field(ge=0, lt=2**31)]
    label: Text
    score: float | None = None
    source: str = ""


class LabelTableDocument(Document):
    """A label table as it stands in its file; `sae` is the fingerprint of the SAE it labels."""

    format: Literal["auditkit-labels/1"]
    sae: Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")]
    source: Text
    licence: Text
    labels: Annotated[tuple[LabelRow, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels of the latents of one SAE, in order of latent; a latent may have several."""

    sae: str
    source: str
    licence: str
    labels: tuple[LatentLabel, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever the file's layout and order: a rule's `snapshot`."""
        return "sha256:" + fingerprint(self)

    def best(self, select: LabelSelect) -> tuple[LatentLabel, ...]:
        """The labels that `select` means, one for each latent, at most `top_k`, best score first.

        A label without a score comes last, and never meets `min_score`. Equal scores go by the
        latents' numbers. Raises InvalidInput for a pattern that RE2 does not take.
        """
        says = _matcher(select)
        least = select.min_score
        found: dict[int, LatentLabel] = {}
        for row in sorted(self.labels, key=_best_first):
            scored = least is None or (row.score is not None and row.score >= least)
            if scored and row.latent not in found and says(row.label):
                found[row.latent] = row
        return tuple(found.values())[: select.top_k]


def make_table(rows: Sequence[LatentLabel], *, sae: str, source: str, licence: str) -> LabelTable:
    """A table of `rows` in its canonical order; InvalidInput where it holds none."""
    if not rows:
        raise InvalidInput("no labels, so no label table", help="a row names a latent and a label")
    order = sorted(set(rows), key=lambda r: (r.latent, r.label, *_best_first(r), r.source))
    return LabelTable(sae=sae, source=source, licence=licence, labels=tuple(order))


def load_label_table(ref: str, *, base: Path | None = None) -> LabelTable:
    """Read a table (`.json`, `.yaml`); relative paths start at `base`.

    Raises InvalidInput where it cannot be read, DocumentError with every mistake of the file.
    """
    path = (base or Path()) / Path(ref).expanduser()
    document = _document(_text(path), path)
    rows = [
        LatentLabel(latent=r.latent, label=r.label, score=r.score, source=r.source)
        for r in document.labels
    ]
    return make_table(rows, sae=document.sae, source=document.source, licence=document.licence)


def pinned_table(select: LabelSelect, *, base: Path | None = None) -> LabelTable:
    """The table that a rule names; MismatchError where it is not the one that the rule pins."""
    table = load_label_table(select.table, base=base)
    if select.snapshot is not None and table.digest != select.snapshot:
        raise MismatchError(
            f"the label table {select.table} has the digest {table.digest}, the rule pins "
            f"{select.snapshot}",
            help="use the table that the rule was written for, or look at what changed and pin "
            "the new digest under snapshot:",
        )
    return table


def render_label_table(table: LabelTable) -> str:
    """A table as JSON, a label a line: the same text for equal tables."""
    head = {"format": FORMAT, "sae": table.sae, "source": table.source, "licence": table.licence}
    rows = [
        {
            "latent": row.latent,
            "label": row.label,
            **({} if row.score is None else {"score": row.score}),
            **({"source": row.source} if row.source else {}),
        }
        for row in table.labels
    ]
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    top = json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    return f'{top},\n "labels": [\n{lines}\n ]\n}}\n'


def _document(text: str, path: Path) -> LabelTableDocument:
    if path.suffix != ".json":
        return parse_document(text, str(path), LabelTableDocument)[0]
    # A table of a whole SAE is too long to keep the place of every value.
    try:
        return LabelTableDocument.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = [
            f"{path}: {'.'.join(str(part) for part in d['loc'])}: {d['msg']}" for d in details[:20]
        ]
        raise InvalidInput("\n".join(lines), help="make it with: auditkit labels import") from None


def _best_first(row: LatentLabel) -> tuple[bool, float, int]:
    return (row.score is None, -(row.score or 0.0), row.latent)


def _matcher(select: LabelSelect) -> Callable[[str], bool]:
    text = select.label
    if select.match == "exact":
        return lambda label: label == text
    if select.match == "contains":
        folded = text.casefold()
        return lambda label: folded in label.casefold()
    try:
        return compile_pattern(text)
    except PatternError as error:
        raise InvalidInput(f"the pattern {text!r} of a label cannot be read: {error}") from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInput(
            f"{path}: the label table cannot be read: {reason}",
            help="make one with: auditkit labels import",
        ) from None
