"""Values of plain directions beside the SAE's latents, and for which tokens they are there.

A direction's values are rows of `activations` with a latent of at least d_sae. The table
`directions` says for which tokens they were computed: coverage says so of the SAE alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from auditkit.core.errors import MismatchError, NonFiniteActivations
from auditkit.store.schema import ACTIVATION_ROWS, COVERAGE_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionBatch:
    """One direction's values on some whole prompts of a recording.

    `activations`: ACTIVATION_ROWS, all of the one `latent`; `coverage`: COVERAGE_ROWS, a prompt's
    tokens each. Raises NonFiniteActivations for NaN or infinity.
    """

    recording: str
    direction: str
    latent: int
    activations: pa.Table
    coverage: pa.Table

    def __post_init__(self) -> None:
        if not self.activations.schema.equals(ACTIVATION_ROWS):
            raise ValueError(f"activations have the schema {self.activations.schema}")
        if not self.coverage.schema.equals(COVERAGE_ROWS):
            raise ValueError(f"coverage has the schema {self.coverage.schema}")
        if not np.isfinite(self.activations["value"].to_numpy()).all():
            raise NonFiniteActivations(
                f"values of the direction {self.direction[:12]} are NaN or infinite",
                help="check the model's dtype (float16 overflows)",
            )


def insert_direction(
    connection: duckdb.DuckDBPyConnection, batch: DirectionBatch, path: str
) -> None:
    """Add a direction's rows; MismatchError where some are there, or its number is taken."""
    taken = connection.execute(
        "SELECT direction FROM directions WHERE recording = ? AND latent = ? AND direction <> ? "
        "LIMIT 1",
        [batch.recording, batch.latent, batch.direction],
    ).fetchone()
    if taken is not None:
        raise MismatchError(
            f"the directions {batch.direction[:12]} and {taken[0][:12]} have the same number "
            f"{batch.latent} in {path}",
            help="record into another store for one of them",
        )
    first = batch.coverage["first_token"].to_pylist()
    twice = connection.execute(
        "SELECT first_token FROM directions WHERE recording = ? AND direction = ? "
        "AND list_contains(?::BIGINT[], first_token) LIMIT 1",
        [batch.recording, batch.direction, first],
    ).fetchone()
    if twice is not None:
        raise MismatchError(
            f"{path} already holds the direction {batch.direction[:12]} for the tokens from "
            f"{twice[0]} of recording {batch.recording}",
            help="leave out the tokens in directed_tokens()",
        )
    for rows, text, given in (
        (
            batch.activations,
            "INSERT INTO activations SELECT $recording, token, latent, value FROM incoming",
            {"recording": batch.recording},
        ),
        (
            batch.coverage,
            "INSERT INTO directions "
            "SELECT $recording, $direction, $latent, first_token, last_token FROM incoming",
            {
                "recording": batch.recording,
                "direction": batch.direction,
                "latent": batch.latent,
            },
        ),
    ):
        connection.register("incoming", rows)
        try:
            connection.execute(text, given)
        finally:
            connection.unregister("incoming")


def directed_tokens(
    connection: duckdb.DuckDBPyConnection, recording: str, direction: str
) -> set[int]:
    """First tokens of the prompts that are completed for a direction."""
    rows = connection.execute(
        "SELECT first_token FROM directions WHERE recording = ? AND direction = ?",
        [recording, direction],
    ).fetchall()
    return {row[0] for row in rows}


LACKING = """
SELECT DISTINCT w.direction
FROM unnest(?::VARCHAR[]) w(direction)
JOIN recordings r ON r.recording = ?
JOIN coverage c ON c.recording = r.recording
WHERE NOT EXISTS (
    SELECT 1 FROM directions d
    WHERE d.recording = c.recording AND d.direction = w.direction
      AND d.first_token <= c.first_token AND d.last_token >= c.last_token
)
"""


def lacks_directions(
    connection: duckdb.DuckDBPyConnection, recording: str, directions: Sequence[str]
) -> frozenset[str]:
    """Those of `directions` (digests) that some covered token of the recording has no value of."""
    if not directions:
        return frozenset()
    rows = connection.execute(LACKING, [list(directions), recording]).fetchall()
    return frozenset(row[0] for row in rows)
