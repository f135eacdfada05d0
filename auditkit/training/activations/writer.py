"""Appends activations to a folder so that a killed harvest goes on exactly where it was."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import MismatchError, NonFiniteActivations
from auditkit.training.activations.store import (
    SHARD_ROWS,
    ActivationMeta,
    ActivationStore,
    Shard,
    SourceTokens,
    read_meta,
    write_meta,
)


class ActivationWriter:
    """Writes rows of whole documents; `commit` makes everything appended so far permanent.

    Opening a folder whose `key` equals the new one goes on after the last commit; another key
    raises MismatchError, so that two harvests never mix, and committed rows that are gone
    WeightsError.
    """

    def __init__(
        self, folder: Path | str, meta: ActivationMeta, *, shard_rows: int = SHARD_ROWS
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard_rows = shard_rows
        self._unsynced: set[str] = set()
        if (self.folder / "meta.json").exists():
            found = read_meta(self.folder)
            if found.key != meta.key:
                raise MismatchError(
                    f"{self.folder}: holds activations of another harvest "
                    f"({found.hook_point}, {found.rows:,} rows)",
                    help="name another folder, or delete this one",
                )
            meta = found if found.rows_key else dataclasses.replace(found, rows_key=meta.rows_key)
            if meta != found:
                write_meta(self.folder, meta)
        else:
            write_meta(self.folder, meta)
        self.meta = meta
        self._shards = list(meta.shards)
        self._sources = Counter({s.name: s.tokens for s in meta.sources})
        self._documents = meta.documents
        if self._shards:
            ActivationStore(self.folder)  # truncate would fill up with zeros what was lost
            last = self._shards[-1]
            with (self.folder / last.file).open("r+b") as file:
                file.truncate(last.rows * meta.d_in * 2)

    @property
    def documents(self) -> int:
        """How many documents are permanently done."""
        return self.meta.documents

    @property
    def rows(self) -> int:
        """Rows appended so far, committed or not."""
        return sum(shard.rows for shard in self._shards)

    def append(self, x: Float[Tensor, "token d_in"], *, source: str, documents: int = 1) -> None:
        """Append the rows of `documents` finished documents of one source.

        Raises NonFiniteActivations where a row is NaN, infinite, or beyond float16's range.
        """
        if x.shape[1] != self.meta.d_in:
            raise MismatchError(
                f"{self.folder}: rows are {self.meta.d_in} wide, not {x.shape[1]}",
                help="the model and the folder do not belong together",
            )
        stored = x.to(torch.float16)
        bad = (~torch.isfinite(stored)).any(dim=1).nonzero()
        if len(bad):
            largest = float(x[bad[0, 0]].abs().max())
            raise NonFiniteActivations(
                f"{self.meta.hook_point}: row {self.rows + int(bad[0, 0])} (of source {source!r}) "
                f"is not finite in float16 (largest |x| {largest:g}, limit 65504)",
                help="run the model in float32, or choose another hook point",
            )
        rows = stored.numpy()
        while len(rows):
            room = self._room()
            self._write(rows[:room])
            rows = rows[room:]
        self._sources[source] += len(x)
        self._documents += documents

    def _room(self) -> int:
        """Free rows in the current shard; a full one is closed and the next begun."""
        if self._shards and self._shards[-1].rows < self._shard_rows:
            return self._shard_rows - self._shards[-1].rows
        self._shards.append(Shard(file=f"acts-{len(self._shards):05d}.f16", rows=0))
        (self.folder / self._shards[-1].file).write_bytes(b"")
        return self._shard_rows

    def _write(self, rows: np.ndarray) -> None:
        shard = self._shards[-1]
        with (self.folder / shard.file).open("ab") as file:
            file.write(np.ascontiguousarray(rows).tobytes())
        self._unsynced.add(shard.file)
        self._shards[-1] = dataclasses.replace(shard, rows=shard.rows + len(rows))

    def _sync(self) -> None:
        for name in self._unsynced:
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
        self._unsynced.clear()

    def commit(self) -> None:
        """Make all appended rows and documents permanent: rows first, then `meta.json`."""
        self._sync()
        self.meta = dataclasses.replace(
            self.meta,
            shards=tuple(self._shards),
            sources=tuple(
                SourceTokens(name=name, tokens=n) for name, n in sorted(self._sources.items())
            ),
            documents=self._documents,
        )
        write_meta(self.folder, self.meta)

    def finish(self) -> ActivationStore:
        """Commit, measure the median norm, and mark the folder complete."""
        self.commit()
        store = ActivationStore(self.folder)
        self.meta = dataclasses.replace(self.meta, reference_norm=median_norm(store), complete=True)
        write_meta(self.folder, self.meta)
        return ActivationStore(self.folder)


def median_norm(store: ActivationStore, *, sample: int = 65_536) -> float:
    """Median ‖x‖ over an evenly spaced sample of the rows."""
    n = min(sample, len(store))
    picked = torch.linspace(0, len(store) - 1, n, dtype=torch.float64).round().long()
    return float(store.rows(picked).norm(dim=1).median())
