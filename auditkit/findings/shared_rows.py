"""What the rules of a lock read of one recording, read once for all of them.

A rule alone reads the whole table of activations and lays every token into its frames. Many rules
share both: one scan gathers the rows of all their latents (as many at a time as `MOST_ROWS`
allows), and the frames of every kind and scope are laid out once. Plain rules on recordings that
are covered whole are then judged in columns (rules/columnar), the others by their own statements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from auditkit.core.locks import LockedRule
from auditkit.core.tokens import TokenMask
from auditkit.rules import Plan, compile_layout, compile_sql, layout_of, lower_rule
from auditkit.rules.columnar import (
    COLUMNS_SQL,
    COVERED_SQL,
    ColumnLayout,
    TokenColumns,
    evaluate_columns,
    is_plain,
)
from auditkit.store import Store

MOST_ROWS = 2**24
"""Activations that are held at a time: 16 bytes each, twice while they are put in order."""

_COUNT = "SELECT count(*) AS n FROM activations WHERE recording = ?"
_FIRES = """
SELECT latent, count(*) AS fires FROM activations SEMI JOIN wanted USING (latent)
WHERE recording = $recording GROUP BY latent
"""
_ALL_ROWS = "SELECT latent, token, value FROM activations WHERE recording = ?"
_ROWS = """
SELECT latent, token, value FROM activations SEMI JOIN wanted USING (latent)
WHERE recording = $recording
"""


class SharedRows:
    """The verdicts of rules on one recording, row by row as their own statements give them."""

    def __init__(self, store: Store, recording: str, masked: TokenMask) -> None:
        self.store, self.recording, self.masked = store, recording, masked
        self.scans = 0
        self.in_columns = 0
        self._layouts: dict[tuple[object, ...], dict[str, pa.Table]] = {}
        self._column_layouts: dict[tuple[object, ...], ColumnLayout] = {}

    def verdicts(self, rules: Sequence[LockedRule]) -> Iterator[tuple[LockedRule, pa.Table]]:
        """Every rule with its rows of `compile_sql`, in order."""
        plans = [lower_rule(rule) for rule in rules]
        shared = [layout_of(plan) is not None and bool(_latents(plan)) for plan in plans]
        fires = self._fires([p for p, s in zip(plans, shared, strict=True) if s])
        held = _Gathered.none()
        for number, (rule, plan) in enumerate(zip(rules, plans, strict=True)):
            if not shared[number]:
                compiled = compile_sql(plan, self.recording, masked=self.masked)
                yield rule, self.store.query(compiled.text, compiled.parameters)
                continue
            if not _latents(plan) <= held.latents:
                rest = [p for p, s in zip(plans[number:], shared[number:], strict=True) if s]
                held = self._gather(_as_many_as_fit(rest, fires))
            yield rule, self._run(plan, held)

    def _run(self, plan: Plan, held: _Gathered) -> pa.Table:
        if is_plain(plan) and self._columns is not None:
            found = evaluate_columns(plan, self._column_layout(plan, self._columns), held)
            if found is not None:
                self.in_columns += 1
                return found
        compiled = compile_sql(plan, self.recording, masked=self.masked, laid_out=True)
        tables = self._layout(plan) | {"activations": held.rows(self.recording, _latents(plan))}
        return self.store.query(compiled.text, compiled.parameters, tables=tables)

    def _layout(self, plan: Plan) -> dict[str, pa.Table]:
        key = layout_of(plan)
        assert key is not None
        if key not in self._layouts:
            sql = compile_layout(plan, self.recording, masked=self.masked)
            self._layouts[key] = {
                "frames": self.store.query(sql.frames.text, sql.frames.parameters),
                "placed": self.store.query(sql.placed.text, sql.placed.parameters),
            }
        return self._layouts[key]

    @cached_property
    def _columns(self) -> TokenColumns | None:
        tokens = self.store.query(COLUMNS_SQL, [self.recording])
        return TokenColumns.of(tokens, self.store.query(COVERED_SQL, [self.recording]))

    def _column_layout(self, plan: Plan, columns: TokenColumns) -> ColumnLayout:
        key = layout_of(plan)
        assert key is not None
        if key not in self._column_layouts:
            laid = ColumnLayout.of(columns, plan.frame, plan.scope, masked=self.masked)
            self._column_layouts[key] = laid
        return self._column_layouts[key]

    def _fires(self, plans: Sequence[Plan]) -> dict[int, int]:
        """How often each of the rules' latents fires; nothing where all rows can be held."""
        wanted = {x for plan in plans for x in _latents(plan)}
        if not wanted or self._all_fit:
            return {}
        table = self._query_wanted(_FIRES, wanted)
        return dict(zip(table["latent"].to_pylist(), table["fires"].to_pylist(), strict=True))

    def _gather(self, latents: frozenset[int]) -> _Gathered:
        self.scans += 1
        latent, token, value = self._rows(latents)
        number = np.zeros_like(token) if self._columns is None else self._columns.find(token)
        order = np.argsort(_narrow(latent), kind="stable")
        order = order[number[order] >= 0] if number.min(initial=0) < 0 else order
        return _Gathered(latents, latent[order], token[order], value[order], number[order])

    def _rows(
        self, latents: frozenset[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
        """latent, token, value of some of the latents. Where all rows can be held, picking them
        here takes half of what a join does."""
        if not self._all_fit:
            return _columns_of([self._query_wanted(_ROWS, latents)])
        table = self.store.query(_ALL_ROWS, [self.recording])
        return _columns_of(_picked(batch, latents) for batch in table.to_batches())

    @cached_property
    def _all_fit(self) -> bool:
        """Can all activations of the recording be held at a time?"""
        return self.store.query(_COUNT, [self.recording])["n"][0].as_py() <= MOST_ROWS

    def _query_wanted(self, sql: str, latents: Collection[int]) -> pa.Table:
        wanted = pa.table({"latent": pa.array(sorted(latents), pa.int32())})
        return self.store.query(sql, {"recording": self.recording}, tables={"wanted": wanted})


class _Gathered:
    """The rows of some latents, in order of latent: `latent`, `token`, `value` [n], and the
    `number` of the token in the TokenColumns, of no meaning where there are none."""

    def __init__(
        self,
        latents: frozenset[int],
        latent: NDArray[np.int32],
        token: NDArray[np.int64],
        value: NDArray[np.float32],
        number: NDArray[np.int64],
    ) -> None:
        self.latents, self.latent = latents, latent
        self.token, self.value, self.number = token, value, number

    @classmethod
    def none(cls) -> _Gathered:
        """No rows, of no latents."""
        none = np.zeros(0, np.int64)
        return cls(frozenset(), none.astype(np.int32), none, none.astype(np.float32), none)

    def of_latents(
        self, latents: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Numbers of tokens and values, latent after latent, and how many there are of each."""
        at, lengths = self._at(latents)
        return self.number[at], self.value[at], lengths

    def rows(self, recording: str, latents: frozenset[int]) -> pa.Table:
        """recording, token, latent, value of some of the latents, as in the store's table."""
        at, _ = self._at(sorted(latents))
        one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(at), np.int8)), [recording])
        columns = [one, *(pa.array(c[at]) for c in (self.token, self.latent, self.value))]
        return pa.table(columns, names=["recording", "token", "latent", "value"])

    def _at(self, latents: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        wanted = np.array(latents, dtype=np.int32)
        starts = np.searchsorted(self.latent, wanted, side="left")
        ends = np.searchsorted(self.latent, wanted, side="right")
        parts = [np.arange(a, b) for a, b in zip(starts, ends, strict=True)]
        at = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return at, ends - starts


def _latents(plan: Plan) -> frozenset[int]:
    return frozenset(x.latent for s in plan.signals if s.resolved for x in s.latents)


def _as_many_as_fit(plans: Sequence[Plan], fires: dict[int, int]) -> frozenset[int]:
    """The latents of the first rules, of as many as fit; of the first one in any case."""
    chosen: set[int] = set()
    rows = 0
    for number, plan in enumerate(plans):
        new = _latents(plan) - chosen
        rows += sum(fires.get(x, 0) for x in new)
        if number and rows > MOST_ROWS:
            break
        chosen |= new
    return frozenset(chosen)


def _picked(batch: pa.RecordBatch, latents: frozenset[int]) -> pa.RecordBatch:
    """The rows of some latents."""
    latent = batch["latent"].to_numpy()
    wanted = np.zeros(max(int(latent.max(initial=0)), *latents) + 1, dtype=np.bool_)
    wanted[list(latents)] = True
    return batch.take(pa.array(np.flatnonzero(wanted[latent])))


def _columns_of(
    parts: Iterable[pa.Table | pa.RecordBatch],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    latent, token, value = zip(
        *([part[name].to_numpy() for name in ("latent", "token", "value")] for part in parts),
        strict=True,
    )
    return np.concatenate(latent), np.concatenate(token), np.concatenate(value)


def _narrow(latent: NDArray[np.int32]) -> NDArray[np.integer]:
    """16 bits where they suffice: numpy then sorts by counting."""
    return latent.astype(np.uint16) if latent.size and latent.max() < 2**16 else latent
