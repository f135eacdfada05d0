"""A store: recordings and what was concluded from them, in one DuckDB file."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from auditkit.core.confirmations import Confirmation, Trial
from auditkit.core.correlations import CorrelationFinding, CorrelationMatch
from auditkit.core.errors import InvalidInput, MismatchError, StoreError
from auditkit.core.findings import Finding
from auditkit.core.locks import Lock
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Match
from auditkit.store import conclusions, recorded
from auditkit.store.batch import RecordedBatch
from auditkit.store.directions import (
    DirectionBatch,
    directed_tokens,
    insert_direction,
    lacks_directions,
)
from auditkit.store.failures import translated
from auditkit.store.latent_stats import MEASURE_LATENT_STATS, reference_name

Parameters = Sequence[Any] | Mapping[str, Any]

MASKED_IN_STATS = (
    TokenMask.BOS | TokenMask.TEMPLATE | TokenMask.SPECIAL | TokenMask.PADDING | TokenMask.HIGH_NORM
)

_READS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


class Store:
    """One open store; use it as a context manager. Reads give Arrow tables or numpy arrays.

    Every write is one transaction. StoreError where the file cannot be read or written; what was
    committed before stays. Made by `open_store`.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: str, *, read_only: bool
    ) -> None:
        self._connection = connection
        self.path = path
        self.read_only = read_only

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except StoreError:
            if error is None:  # otherwise what went wrong first is what the caller must see
                raise

    def close(self) -> None:
        """Write the log into the file and close it."""
        try:
            if not self.read_only:
                with translated(self.path):
                    self._connection.execute("CHECKPOINT")
        finally:
            self._connection.close()

    # recordings

    def begin_recording(self, recording: Recording) -> None:
        """Write down what is about to be recorded; nothing where it already is."""
        if self.find_recording(recording.id) is None:
            with self._transaction() as connection:
                recorded.insert_recording(connection, recording)

    def commit_batch(self, batch: RecordedBatch) -> None:
        """Write whole prompts with their tokens, activations, coverage and vectors, or nothing.

        MismatchError where the recording was not begun, or where a prompt is already there.
        """
        with self._transaction() as connection:
            twice = recorded.already_there(connection, batch)
            if twice is not None:
                raise MismatchError(
                    f"{self.path} already holds prompt {twice!r} of recording {batch.recording}",
                    help="a prompt is recorded once; leave out those in done_prompts()",
                )
            if recorded.find_recording(connection, batch.recording) is None:
                raise MismatchError(
                    f"{self.path} has no recording {batch.recording}",
                    help="begin_recording() first",
                )
            recorded.insert_batch(connection, batch)

    def finish_recording(self, recording: str) -> None:
        """Mark a recording as complete and compact the file."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE recordings SET state = 'complete' WHERE recording = ?", [recording]
            )
        with translated(self.path):
            self._connection.execute("CHECKPOINT")

    def commit_directions(self, batches: Sequence[DirectionBatch]) -> None:
        """Add directions' values on some prompts, or nothing; MismatchError if they are there."""
        with self._transaction() as connection:
            for batch in batches:
                insert_direction(connection, batch, str(self.path))

    def directed_tokens(self, recording: str, direction: str) -> set[int]:
        """First tokens of the prompts that hold the values of a direction (its digest)."""
        with translated(self.path):
            return directed_tokens(self._connection, recording, direction)

    def lacks_directions(self, recording: str, directions: Sequence[str]) -> frozenset[str]:
        """Those of `directions` (digests) that some covered token has no value of."""
        with translated(self.path):
            return lacks_directions(self._connection, recording, directions)

    def done_prompts(self, recording: str) -> set[str]:
        """Ids of the prompts of a recording that are in the store, whole."""
        with translated(self.path):
            return recorded.done_prompts(self._connection, recording)

    def recordings(self) -> list[Recording]:
        """Every recording in the store, ordered by suite and id."""
        with translated(self.path):
            return recorded.recordings(self._connection)

    def find_recording(self, recording: str) -> Recording | None:
        """The recording with this id, if the store has it."""
        with translated(self.path):
            return recorded.find_recording(self._connection, recording)

    # reading

    def query(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pa.Table:
        """Run one reading statement, which may name `tables` given beside the store's own.

        InvalidInput for anything that writes, or for several statements.
        """
        with translated(self.path):
            try:
                statements = self._connection.extract_statements(sql)
            except duckdb.ParserException as error:
                raise InvalidInput(f"not valid SQL: {error}") from error
        if len(statements) != 1 or statements[0].type not in _READS:
            raise InvalidInput(
                "query() takes one SELECT, and this is something else",
                help="to change a store, use its write_ methods",
            )
        for name, table in (tables or {}).items():
            self._connection.register(name, table)
        try:
            return self._read(sql, parameters)
        finally:
            for name in tables or {}:
                self._connection.unregister(name)

    def frame_tokens(self, recording: str) -> pa.Table:
        """All tokens of a recording in order: prompt, ordinal, token, position, token_id, text,
        role, message, mask, generated. Masked tokens are among them; `mask` says why.
        """
        return self._read(recorded.FRAME_TOKENS, [recording])

    def prompts(self, recording: str) -> pa.Table:
        """The prompts of a recording as recorded (replies included), in the suite's order."""
        return self._read("SELECT * FROM prompts WHERE recording = ? ORDER BY ordinal", [recording])

    def activations(self, recording: str, latents: Sequence[int] | None = None) -> pa.Table:
        """Columns token, latent, value in order of token and latent; all, or only `latents`."""
        where = "" if latents is None else " AND list_contains(?, latent)"
        given: list[Any] = [recording] + ([] if latents is None else [list(latents)])
        return self._read(
            "SELECT token, latent, value FROM activations WHERE recording = ?"
            + where
            + " ORDER BY token, latent",
            given,
        )

    def coverage(self, recording: str) -> pa.Table:
        """Columns sae, first_token, last_token (inclusive): which tokens were encoded."""
        return self._read(
            "SELECT sae, first_token, last_token FROM coverage WHERE recording = ? "
            "ORDER BY sae, first_token",
            [recording],
        )

    def vectors(
        self, recording: str, pool: str, role: str = "all"
    ) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
        """Prompt ids and their pooled activations f32[n, d_in], in the suite's order.

        `pool` mean | max | last over the unmasked tokens of the prompt; for a single `role` the
        mean alone is stored. A prompt without such a token is left out.
        """
        table = self._read(recorded.VECTORS, {"recording": recording, "pool": pool, "role": role})
        ids = tuple(table["prompt"].to_pylist())
        if not ids:
            return (), np.zeros((0, 0), dtype=np.float32)
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return ids, flat.astype(np.float32, copy=False).reshape(len(ids), -1)

    # what latents do on reference text

    def measure_latent_stats(
        self, recordings: Sequence[str], *, masked: TokenMask = MASKED_IN_STATS
    ) -> str:
        """Measure every latent over `recordings` of one SAE and keep the result.

        Returns the reference's name, for `latent_stats`. MismatchError where a recording is
        missing or the SAEs differ.
        """
        found = [self.find_recording(r) for r in recordings]
        saes = {r.sae for r in found if r is not None}
        if len(saes) != 1 or None in found:
            raise MismatchError(
                f"latent statistics need recordings of one SAE that are in {self.path}",
                help="recordings: " + ", ".join(recordings),
            )
        sae, reference = saes.pop(), reference_name(recordings, masked)
        given = {
            "recordings": list(recordings),
            "masked": int(masked),
            "d_sae": sae.d_sae,
            "reference": reference,
            "sae": sae.digest,
        }
        with self._transaction() as connection:
            connection.execute("DELETE FROM latent_stats WHERE reference = ?", [reference])
            connection.execute(f"INSERT INTO latent_stats {MEASURE_LATENT_STATS}", given)
        return reference

    def latent_stats(self, reference: str, latents: Sequence[int] | None = None) -> pa.Table:
        """Rows of `latent_stats` in order of latent: fires, tokens, density and, over active
        values, mean, sd, max, q99, q9999 (null for a latent that never fired).
        """
        where = "" if latents is None else " AND list_contains(?, latent)"
        given: list[Any] = [reference] + ([] if latents is None else [list(latents)])
        return self._read(
            f"SELECT * FROM latent_stats WHERE reference = ?{where} ORDER BY latent", given
        )

    # what later stages concluded

    def write_lock(self, lock: Lock) -> str:
        """Keep a lock; returns its digest, which what stands on it names."""
        with self._transaction() as connection:
            return conclusions.write_lock(connection, lock)

    def read_lock(self, digest: str) -> Lock | None:
        """The lock with this digest, if the store has it."""
        with translated(self.path):
            return conclusions.read_lock(self._connection, digest)

    def write_matches(self, matches: Sequence[Match], *, lock: str) -> None:
        """Replace what these rules said about these recordings under `lock`."""
        with self._transaction() as connection:
            conclusions.write_matches(connection, matches, lock)

    def write_trials(self, trials: Sequence[Trial]) -> None:
        """Add trials; one that is already there (same key) is replaced."""
        with self._transaction() as connection:
            conclusions.write_trials(connection, trials)

    def read_trials(self, confirmation: str) -> list[Trial]:
        """The trials of a confirmation, in order of arm, control, op, dose, metric, prompt."""
        with translated(self.path):
            return conclusions.read_trials(self._connection, confirmation)

    def write_confirmation(self, confirmation: Confirmation, *, lock: str) -> None:
        """Keep a confirmation, replacing an earlier one of the same id."""
        with self._transaction() as connection:
            conclusions.write_confirmation(connection, confirmation, lock)

    def read_confirmations(self, lock: str) -> list[Confirmation]:
        """The confirmations that stand on `lock`, in order of rule and name."""
        with translated(self.path):
            return conclusions.read_confirmations(self._connection, lock)

    def write_finding(self, finding: Finding, *, recording: str, lock: str) -> None:
        """Keep a finding, replacing the same one of the same recording and lock."""
        with self._transaction() as connection:
            conclusions.write_finding(connection, finding, recording, lock)

    def read_findings(self, recording: str, lock: str) -> list[Finding]:
        """The findings of a recording under `lock`, in order of rule."""
        with translated(self.path):
            return conclusions.read_findings(self._connection, recording, lock)

    def write_correlation(self, finding: CorrelationFinding, *, lock: str) -> None:
        """Keep a correlation's verdicts, replacing those on the same suite under `lock`."""
        with self._transaction() as connection:
            conclusions.write_correlation(connection, finding, lock)

    def read_correlations(self, lock: str) -> list[CorrelationMatch]:
        """Verdicts of correlations under `lock`, in order of correlation, suite and group."""
        with translated(self.path):
            return conclusions.read_correlations(self._connection, lock)

    def _read(self, sql: str, parameters: Parameters) -> pa.Table:
        given = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        with translated(self.path):
            return self._connection.execute(sql, given).to_arrow_table()

    @contextmanager
    def _transaction(self) -> Generator[duckdb.DuckDBPyConnection]:
        with translated(self.path):
            self._connection.execute("BEGIN")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                _roll_back(self._connection)
                raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        return  # a failed COMMIT has ended the transaction already
