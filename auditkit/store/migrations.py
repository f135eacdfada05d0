"""Forward migrations: SQL that takes a store from one schema version to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from auditkit.core.errors import StoreError, StoreVersionError
from auditkit.store.schema import SCHEMA_VERSION, TABLES

Steps = Mapping[int, Sequence[str]]

# MIGRATIONS[n] turns version n into version n + 1.
MIGRATIONS: dict[int, Sequence[str]] = {
    1: (
        "ALTER TABLE matches ADD COLUMN IF NOT EXISTS filtered_by VARCHAR",
        "CREATE TABLE IF NOT EXISTS correlations (lock VARCHAR, correlation VARCHAR, "
        "correlation_digest VARCHAR, suite VARCHAR, member_group VARCHAR, truth VARCHAR, "
        "reason VARCHAR, document VARCHAR)",
    ),
    2: (
        "CREATE TABLE IF NOT EXISTS directions (recording VARCHAR, direction VARCHAR, "
        "latent INTEGER, first_token BIGINT, last_token BIGINT)",
    ),
}


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table of the current schema and write down its version."""
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {name} ({columns})")
    connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)])


def read_version(connection: duckdb.DuckDBPyConnection, path: str) -> int:
    """The schema version of the attached store; StoreError where the file is something else."""
    try:
        rows = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        rows = []
    if len(rows) != 1 or not str(rows[0][0]).isdigit():
        raise StoreError(
            f"{path} is a DuckDB file, but not an auditkit store: it names no schema version",
            help="give another path; auditkit makes the store itself",
        )
    return int(rows[0][0])


def check_version(version: int, path: str) -> None:
    """Raise StoreVersionError where the store is newer than this auditkit can read."""
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{path} has schema version {version}; this auditkit reads up to {SCHEMA_VERSION}",
            help="upgrade auditkit, or record into a new file; this one was not touched",
        )


def migrate(
    connection: duckdb.DuckDBPyConnection, version: int, path: str, steps: Steps | None = None
) -> None:
    """Bring the attached store from `version` to the current one, in one transaction."""
    steps = MIGRATIONS if steps is None else steps
    missing = [v for v in range(version, SCHEMA_VERSION) if v not in steps]
    if missing:
        raise StoreVersionError(
            f"{path} has schema version {version}, and there is no migration from {missing[0]}",
            help=f"record again into a new file (schema version {SCHEMA_VERSION})",
        )
    connection.execute("BEGIN")
    try:
        for step in range(version, SCHEMA_VERSION):
            for statement in steps[step]:
                connection.execute(statement)
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(SCHEMA_VERSION)]
        )
        connection.execute("COMMIT")
    except duckdb.Error as error:
        connection.execute("ROLLBACK")
        raise StoreError(
            f"{path} could not be migrated from schema version {version}: {error}",
            help="the store is as it was before",
        ) from error
