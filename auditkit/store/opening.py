"""Open or create a store file: version first, then the lock, then migrations."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from auditkit.core.errors import StoreError
from auditkit.store.failures import store_error, translated
from auditkit.store.migrations import check_version, create_tables, migrate, read_version
from auditkit.store.schema import SCHEMA_VERSION
from auditkit.store.store import Store

MEMORY = ":memory:"

# 479,232 = 6 · 39 · 2,048: at 3.3 bytes a value and 1.6 bytes a latent, a row group's columns then
# fill whole blocks of 256 KiB (the default of 122,880 rows leaves 12% of the file empty).
_ROW_GROUP = "STORAGE_VERSION 'v1.2.0', ROW_GROUP_SIZE 479232"

# Grouping by latent is by array and not by hash table up to 2²⁰ latents: twice as fast at 10⁷ rows.
# The last three close the door that SQL from a rule or a user could take to files and network.
_SETTINGS = (
    "SET wal_autocheckpoint = '64MB'",
    "SET perfect_ht_threshold = 20",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
)


def open_store(path: str | Path, *, read_only: bool = False) -> Store:
    """Open the store at `path`, making it where there is none (`:memory:`: one without a file).

    Raises StoreVersionError (the file stays untouched) for a store from a newer auditkit, and
    StoreError for a file that is no store, a folder that cannot be written, a store that another
    process has open, or one that is missing and `read_only`.
    """
    if str(path) == MEMORY:
        return Store(_create_in_memory(), MEMORY, read_only=False)
    connection = open_connection(path, read_only=read_only)
    return Store(connection, str(path), read_only=read_only)


def open_connection(path: str | Path, *, read_only: bool = True) -> duckdb.DuckDBPyConnection:
    """The connection of a store in a file; raises as `open_store` does."""
    file = Path(path)
    name = str(file)
    if not file.exists():
        if read_only:
            raise StoreError(
                f"there is no store at {name}", help="record into it first: auditkit record"
            )
        _create(file)
    version = _version_of(file)
    if read_only and version < SCHEMA_VERSION:
        raise StoreError(
            f"{name} has schema version {version} and must be migrated to {SCHEMA_VERSION}",
            help="open it once for writing: auditkit record or auditkit rules bind does",
        )
    connection = _attach(file, "READ_ONLY" if read_only else _ROW_GROUP)
    try:
        if version < SCHEMA_VERSION:
            migrate(connection, version, name)
        with translated(name):
            _apply_settings(connection)
    except Exception:
        connection.close()
        raise
    return connection


def _version_of(file: Path) -> int:
    # Read-only, so that a newer store is not so much as checkpointed by this auditkit.
    connection = _attach(file, "READ_ONLY")
    try:
        version = read_version(connection, str(file))
        check_version(version, str(file))
        return version
    finally:
        connection.close()


def _attach(file: Path, options: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(MEMORY)
    try:
        quoted = str(file).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS store ({options})")
        connection.execute("USE store")
    except duckdb.Error as error:
        connection.close()
        raise store_error(error, str(file)) from error
    return connection


def _apply_settings(connection: duckdb.DuckDBPyConnection) -> None:
    for statement in _SETTINGS:
        connection.execute(statement)


def _create_in_memory() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(MEMORY)
    create_tables(connection)
    _apply_settings(connection)
    return connection


def _create(file: Path) -> None:
    """Make an empty store beside `file` and give it the name in one step.

    A kill at any moment leaves either no store or a whole one.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        connection = _attach(new, _ROW_GROUP)
        try:
            with translated(str(file)):
                create_tables(connection)
                connection.execute("CHECKPOINT")
        finally:
            connection.close()
        _take_name(new, file)
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written here ({error.strerror or error})",
            help="make the folder writable, or give a path somewhere else",
        ) from error
    finally:
        _remove_quietly(new)


def _take_name(new: Path, file: Path) -> None:
    try:
        os.link(new, file)
    except FileExistsError:
        return  # another process made the store meanwhile: that one counts
    except OSError:
        new.rename(file)  # a file system without hard links


def _remove_quietly(file: Path) -> None:
    for leftover in (file, file.with_name(file.name + ".wal")):
        try:
            leftover.unlink(missing_ok=True)
        except OSError:
            continue
