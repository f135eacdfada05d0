"""Stores that cannot be used are refused with what to do, and nothing in them is touched."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from auditkit.core.errors import ExitCode, StoreError, StoreVersionError
from auditkit.store import SCHEMA_VERSION, open_store
from auditkit.store.migrations import MIGRATIONS
from auditkit.store.schema import TABLES
from tests.conftest import ROOT
from tests.store_rows import made_batch, made_recording

RECORDING = made_recording()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _set_version(path: Path, version: str) -> None:
    open_store(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])


def _run(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def test_a_newer_store_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    _set_version(path, str(SCHEMA_VERSION + 1))
    before = _digest(path)
    for read_only in (False, True):
        with pytest.raises(StoreVersionError, match="upgrade auditkit") as caught:
            open_store(path, read_only=read_only)
        assert caught.value.exit_code is ExitCode.INVALID_INPUT
    assert _digest(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["store.duckdb"]


def test_an_older_store_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.duckdb"
    _set_version(path, "0")
    monkeypatch.setitem(MIGRATIONS, 0, ("ALTER TABLE prompts ADD COLUMN added INTEGER",))
    with pytest.raises(StoreError, match="must be migrated"):
        open_store(path, read_only=True)
    with open_store(path) as store:
        assert "added" in store.query("SELECT * FROM prompts").column_names
    with open_store(path) as store:
        version = store.query("SELECT value FROM meta WHERE key = 'schema_version'")
    assert version["value"].to_pylist() == [str(SCHEMA_VERSION)]


def test_a_store_of_version_1_gains_filters_and_correlations(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    _set_version(path, "1")
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE matches DROP COLUMN filtered_by")
        connection.execute("DROP TABLE correlations")
        connection.execute("INSERT INTO matches (rule, truth) VALUES ('old', 'true')")
    with open_store(path) as store:
        rows = store.query("SELECT rule, filtered_by FROM matches").to_pylist()
        assert rows == [{"rule": "old", "filtered_by": None}]
        assert store.read_correlations("L") == []
        columns = store.query("SELECT * FROM correlations").column_names
    assert ", ".join(columns) == ", ".join(c.split()[0] for c in TABLES["correlations"].split(", "))


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.duckdb"
    _set_version(path, "0")
    monkeypatch.setitem(MIGRATIONS, 0, ("DROP TABLE prompts", "DROP TABLE nothing_of_the_kind"))
    with pytest.raises(StoreError, match="could not be migrated"):
        open_store(path)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT count(*) FROM prompts").fetchall() == [(0,)]
        assert connection.execute("SELECT value FROM meta").fetchall() == [("0",)]


def test_an_older_store_without_migration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    _set_version(path, "0")
    with pytest.raises(StoreVersionError, match="no migration from 0"):
        open_store(path)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 3000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.duckdb"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not an auditkit store"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    before = _digest(path)
    with pytest.raises(StoreError, match="not an auditkit store"):
        open_store(path)
    assert _digest(path) == before


def test_a_truncated_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    open_store(path).close()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match=r"store\.duckdb"):
        open_store(path)


def test_reading_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        open_store(tmp_path / "none.duckdb", read_only=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError, match="make the folder writable") as caught:
        open_store("/proc/auditkit/store.duckdb")
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_store_in_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        (folder / "probe").write_text("")
    except PermissionError:
        with pytest.raises(StoreError, match="make the folder writable"):
            open_store(folder / "store.duckdb")
    else:
        (folder / "probe").unlink()
        pytest.skip("this user may write into read-only folders")


def test_a_store_open_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    code = """
        import sys
        from auditkit.store import open_store
        store = open_store(sys.argv[1])
        print("open", flush=True)
        sys.stdin.read()
        store.close()
    """
    with _run(code, str(path)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="is open in another process"):
            open_store(path)
        process.stdin.close()
        assert process.wait() == 0
    open_store(path).close()


def test_a_store_open_in_this_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with open_store(path), pytest.raises(StoreError, match="already open in this process"):
        open_store(path)


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with open_store(path) as store:
        store.begin_recording(RECORDING)
        store.commit_batch(made_batch(RECORDING, [(0, "p0", 50)]))
    code = """
        import resource, signal, sys
        from auditkit.core.errors import StoreError
        from auditkit.store import open_store
        from tests.store_rows import made_batch, made_recording
        recording = made_recording()
        store = open_store(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            for ordinal in range(1, 100):
                store.commit_batch(made_batch(recording, [(ordinal, f"p{ordinal}", 4000)]))
                print("committed", ordinal, flush=True)
        except StoreError as error:
            print(error)
        try:
            store.close()
        except StoreError as error:
            print(error)
    """
    with _run(code, str(path)) as process:
        assert process.stdout is not None
        output = process.stdout.read()
    assert "the disk is full" in output, output
    assert "free some space" in output
    committed = {f"p{n}" for n in range(100) if f"committed {n}\n" in output}
    with open_store(path) as store:
        assert store.done_prompts(RECORDING.id) == {"p0"} | committed
        store.commit_batch(made_batch(RECORDING, [(200, "later", 3)]))


def test_two_makers_of_one_store_leave_one(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    code = """
        import sys
        from auditkit.core.errors import StoreError
        from auditkit.store import open_store
        try:
            open_store(sys.argv[1]).close()
        except StoreError as error:
            assert "another process" in str(error), error
    """
    processes = [_run(code, str(path)) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    open_store(path).close()
    assert [p.name for p in tmp_path.iterdir()] == ["store.duckdb"]
