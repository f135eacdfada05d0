"""Activations on disk: raw row-major float16 shards with a `meta.json` that says what they are.

A folder holds `acts-00000.f16`, `acts-00001.f16`, … of [rows, d_in] and one `meta.json`, replaced
atomically whenever a shard or a document is finished. Rows beyond what `meta.json` counts are
left-overs of a killed writer; they are cut off when writing goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError, WeightsError

FORMAT = "auditkit-activations/1"
SHARD_ROWS = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of `rows` activations."""

    file: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTokens:
    """How many of the tokens come from one source of text."""

    name: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationMeta:
    """What a folder of activations holds and where it comes from.

    `key` is a digest of all that determines the rows, `rows_key` of what determines which token
    each row is of (equal for hook points harvested from the same text; empty in older folders).
    `documents` of the input are done; `reference_norm` is the median ‖x‖ of the finished folder.
    """

    hook_point: str
    d_in: int
    key: str
    model: Mapping[str, str | int | None]
    rows_key: str = ""
    shards: tuple[Shard, ...] = ()
    sources: tuple[SourceTokens, ...] = ()
    documents: int = 0
    reference_norm: float | None = None
    complete: bool = False

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)


def read_meta(folder: Path) -> ActivationMeta:
    """Read `meta.json`; raise InvalidInput where it is missing or not of this format."""
    path = folder / "meta.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder}: no meta.json, so this is not a folder of activations",
            help="harvest activations first: `auditkit sae train` does it for a train.yaml",
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{path}: not JSON ({error})", help="harvest into a new folder"
        ) from None
    if not isinstance(raw, dict):
        raise InvalidInput(f"{path}: not an object", help="harvest into a new folder")
    if raw.get("format") != FORMAT or raw.get("dtype") != "float16":
        raise InvalidInput(
            f"{path}: format {raw.get('format')!r} of {raw.get('dtype')!r}, "
            f"expected {FORMAT!r} of 'float16'",
            help="harvest again with this version",
        )
    try:
        return ActivationMeta(
            hook_point=raw["hook_point"],
            d_in=raw["d_in"],
            key=raw["key"],
            model=raw["model"],
            rows_key=raw.get("rows_key", ""),
            shards=tuple(Shard(**s) for s in raw["shards"]),
            sources=tuple(SourceTokens(**s) for s in raw["sources"]),
            documents=raw["documents"],
            reference_norm=raw["reference_norm"],
            complete=raw["complete"],
        )
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: incomplete ({error})", help="harvest again") from None


def write_meta(folder: Path, meta: ActivationMeta) -> None:
    """Replace `meta.json` atomically."""
    document = {
        "format": FORMAT,
        "dtype": "float16",
        "hook_point": meta.hook_point,
        "d_in": meta.d_in,
        "key": meta.key,
        "model": dict(meta.model),
        "rows_key": meta.rows_key,
        "shards": [{"file": s.file, "rows": s.rows} for s in meta.shards],
        "sources": [{"name": s.name, "tokens": s.tokens} for s in meta.sources],
        "documents": meta.documents,
        "reference_norm": meta.reference_norm,
        "complete": meta.complete,
    }
    partial = folder / "meta.json.partial"
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / "meta.json")


class ActivationStore:
    """Reads a folder of activations; `rows(indices)` gives float32 rows in the order asked."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        if not self.meta.rows:
            raise InvalidInput(f"{self.folder}: no activations in it", help="harvest first")
        self._shards = [self._open(shard) for shard in self.meta.shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in self.meta.shards)])

    def _open(self, shard: Shard) -> np.ndarray:
        path = self.folder / shard.file
        expected = shard.rows * self.meta.d_in * 2
        found = path.stat().st_size if path.exists() else 0
        if found < expected:
            raise WeightsError(
                f"{path}: truncated, {found:,} bytes of {expected:,} "
                f"({shard.rows:,} rows × {self.meta.d_in} × 2 bytes)",
                help="harvest again, or restore the file",
            )
        return np.memmap(path, dtype=np.float16, mode="r", shape=(shard.rows, self.meta.d_in))

    def __len__(self) -> int:
        return self.meta.rows

    @property
    def d_in(self) -> int:
        return self.meta.d_in

    @property
    def nbytes(self) -> int:
        return len(self) * self.d_in * 2

    def rows(self, indices: Int[Tensor, " token"]) -> Float[Tensor, "token d_in"]:
        """Rows in the order of `indices`, read from disk in rising order."""
        return torch.from_numpy(self.rows_float16(indices.numpy()).astype(np.float32))

    def rows_float16(self, indices: np.ndarray) -> np.ndarray:
        """Rows [token, d_in] as stored, in the order of `indices`."""
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows are 0 to {len(self) - 1}, not {indices.min()}…{indices.max()}")
        order = np.argsort(indices, kind="stable")
        rising = indices[order]
        out = np.empty((len(indices), self.d_in), dtype=np.float16)
        cuts = np.searchsorted(rising, self._starts)
        for shard, start, lo, hi in zip(self._shards, self._starts, cuts, cuts[1:], strict=False):
            if hi > lo:
                out[order[lo:hi]] = shard[rising[lo:hi] - start]
        return out

    def check_width(self, d_in: int) -> None:
        """Raise MismatchError unless rows are `d_in` wide."""
        if self.d_in != d_in:
            raise MismatchError(
                f"{self.folder}: activations are {self.d_in} wide, the plan's d_in is {d_in}",
                help=f"set d_in to {self.d_in}, or harvest at another hook point",
            )


def check_aligned(inputs: ActivationStore, targets: ActivationStore) -> None:
    """Raise MismatchError unless row i of both stores is the same token of the same text."""
    pair = f"{inputs.folder} ({inputs.meta.hook_point}) and {targets.folder}"
    for store in (inputs, targets):
        if not store.meta.complete:
            raise MismatchError(
                f"{store.folder}: this harvest is not finished ({len(store):,} rows so far)",
                help="run it again: it goes on where it stopped",
            )
    known = inputs.meta.rows_key and targets.meta.rows_key
    if not known or inputs.meta.rows_key != targets.meta.rows_key or len(inputs) != len(targets):
        raise MismatchError(
            f"{pair} ({targets.meta.hook_point}) are not of the same tokens: "
            f"{len(inputs):,} and {len(targets):,} rows",
            help="harvest both hook points from one train.yaml, with one model and one text",
        )
