"""Rows of several batches in one transaction: a commit costs as much for one batch as for ten."""

from __future__ import annotations

import time
from dataclasses import dataclass

from auditkit.store import RecordedBatch, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPolicy:
    """When held rows are written: at so many activations, or so long after the last commit.

    A killed process loses what it held: at most `seconds` of work and the batch under way. The
    default of activations is a row group of the store, which then goes to its file in one pass.
    """

    activations: int = 479_232
    seconds: float = 10.0


class Committer:
    """Holds the rows of whole prompts and commits them together, with their coverage."""

    def __init__(self, store: Store, policy: CommitPolicy) -> None:
        self.prompts = 0
        self._store, self._policy = store, policy
        self._held: list[RecordedBatch] = []
        self._since = time.monotonic()

    def add(self, rows: RecordedBatch) -> None:
        """Hold `rows`; commit what is held where the policy says so."""
        self._held.append(rows)
        self.prompts += rows.prompts.num_rows
        held = sum(r.activations.num_rows for r in self._held)
        late = time.monotonic() - self._since >= self._policy.seconds
        if held >= self._policy.activations or late:
            self.flush()

    def flush(self) -> None:
        """Commit what is held; rows that the store refuses are not tried again."""
        held, self._held = self._held, []
        if held:
            self._store.commit_batch(RecordedBatch.joined(held))
        self._since = time.monotonic()
