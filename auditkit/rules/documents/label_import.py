"""Rows of labels from other files: Neuronpedia exports, and tables written by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from auditkit.core.documents import parse_yaml
from auditkit.core.errors import DocumentError, InvalidInput
from auditkit.core.labels import LatentLabel

MAX_BYTES = 256 << 20
_KINDS = (".jsonl", ".json", ".csv", ".yaml", ".yml")
_HELP = "a row names latent and label, or, in a Neuronpedia export, index and description"


def read_labels(*paths: Path) -> tuple[LatentLabel, ...]:
    """The labels in `paths`: .jsonl, .json, .csv, .yaml, any of them gzipped (.gz), or folders.

    Rows written by hand have `latent`, `label` and, if need be, `score` and `source`. Rows of a
    Neuronpedia export of explanations (`explanations/batch-N.jsonl.gz`, 1,024 rows each) have
    `modelId`, `layer`, `index` (text), `description` (its label), `typeName`,
    `explanationModelName`, and no score; embeddings and the rest are left out. A feature's own
    record, as the API gives it, has them under `explanations`, with `scores` (the lowest counts).
    Rows without a description are left out. Raises InvalidInput, naming the row, where one cannot
    be used, and where the files hold latents of several SAEs.
    """
    found: list[LatentLabel] = []
    origins: set[tuple[str, str]] = set()
    for path in [file for given in paths for file in _files(given)]:
        suffix = Path(path.name.removesuffix(".gz")).suffix
        for number, row in enumerate(_rows(_text(path), suffix, path), 1):
            if not isinstance(row, Mapping):
                raise _wrong(path, number, "not a table of names and values")
            if "modelId" in row or "layer" in row:
                origins.add((str(row.get("modelId", "")), str(row.get("layer", ""))))
            found += _labels_of(row, path, number)
    named = ", ".join(map(str, paths))
    if len(origins) > 1:
        names = ", ".join(sorted("/".join(o) for o in origins)[:4])
        raise InvalidInput(
            f"{named} holds latents of several SAEs: {names}",
            help="a table labels the latents of one SAE: split the export first",
        )
    if not found:
        raise InvalidInput(f"{named} holds no labels", help=_HELP)
    return tuple(found)


def _files(path: Path) -> list[Path]:
    """A file, or those of a folder that are of a kind that can be read."""
    if not path.is_dir():
        return [path]
    names = [f for f in path.iterdir() if Path(f.name.removesuffix(".gz")).suffix in _KINDS]
    if not names:
        raise InvalidInput(f"{path} holds no file of labels", help=f"kinds: {', '.join(_KINDS)}")
    return sorted(names)


def _labels_of(row: Mapping[str, Any], path: Path, number: int) -> list[LatentLabel]:
    own = row.get("latent", row.get("index", row.get("feature")))
    try:
        latent = int(str(own))
    except ValueError:
        raise _wrong(path, number, f"{own!r} is no number of a latent") from None
    if latent < 0 or isinstance(own, bool):
        raise _wrong(path, number, f"{own!r} is no number of a latent")
    told: list[Any] = row["explanations"] if isinstance(row.get("explanations"), list) else [row]
    found: list[LatentLabel] = []
    for each in told:
        if not isinstance(each, Mapping):
            raise _wrong(path, number, "an explanation is not a table of names and values")
        label = str(each.get("label") or each.get("description") or "").strip()
        if label:
            source = str(each.get("source") or _explainer(each))
            score = _score(each, path, number)
            found.append(LatentLabel(latent=latent, label=label, score=score, source=source))
    return found


def _explainer(row: Mapping[str, Any]) -> str:
    """By what model and by which method an explanation was made."""
    parts = [row.get("explanationModelName"), row.get("typeName")]
    return ", ".join(str(part) for part in parts if part)


def _score(row: Mapping[str, Any], path: Path, number: int) -> float | None:
    given: list[Any] = [row["score"]] if row.get("score") not in (None, "") else []
    for entry in row.get("scores") or () if not given else ():
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        given += [] if value is None else [value]
    try:
        values = [float(v) for v in given]
    except (TypeError, ValueError):
        raise _wrong(path, number, f"{given!r} is no score") from None
    if not all(map(math.isfinite, values)):
        raise _wrong(path, number, "a score is not finite")
    return min(values, default=None)


def _rows(text: str, suffix: str, path: Path) -> Iterable[Any]:
    if suffix == ".csv":
        return csv.DictReader(io.StringIO(text))
    if suffix == ".jsonl":
        return [_json(line, path, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if suffix in (".yaml", ".yml"):
        parsed = parse_yaml(text, str(path))
        if parsed.diagnostics:
            raise DocumentError(parsed.diagnostics)
        return _listed(parsed.value, path)
    if suffix == ".json":
        return _listed(_json(text, path, 1), path)
    raise InvalidInput(
        f"{path} has the ending {suffix!r}", help="labels come as .jsonl, .json, .csv or .yaml"
    )


def _listed(value: Any, path: Path) -> list[Any]:
    if isinstance(value, Mapping):
        value = value.get("labels", value.get("explanations", [value]))
    if not isinstance(value, list):
        raise InvalidInput(f"{path} holds no list of labels", help=_HELP)
    return value


def _json(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}:{line}: not valid JSON: {error}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            data = plain.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"{path} cannot be read: {reason}") from None


def _wrong(path: Path, number: int, what: str) -> InvalidInput:
    return InvalidInput(f"{path}: row {number}: {what}", help=_HELP)
