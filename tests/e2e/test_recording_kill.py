"""SIGKILL at any moment loses nothing and doubles nothing: restarted, it ends as if undisturbed.

Children are forked from a server that has imported everything and opened no store, so that a kill
can land anywhere: while the store is made, in the forward pass, in a commit, in a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import duckdb
import pytest

from auditkit.recording import CommitPolicy
from tests.conftest import ROOT
from tests.recorded_runs import content, run, small_suite

KILLS = 12
PART_WAY = 3
"""At least so many kills must find a store that holds some of the prompts and not all."""


@pytest.fixture(scope="module")
def forked() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.recorded_runs"])
    return context


@pytest.fixture(scope="module")
def undisturbed(
    forked: ForkServerContext, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], float]:
    """Content of the undisturbed store, and how long a warm child takes for it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    _finish(forked, folder / "warm.duckdb")
    path = folder / "store.duckdb"
    started = time.monotonic()
    _finish(forked, path)
    duration = time.monotonic() - started
    at_once = folder / "at_once.duckdb"
    run(str(at_once), commits=CommitPolicy())
    assert content(at_once) == content(path), "how batches are committed changes what is stored"
    return content(path), duration


def _child(forked: ForkServerContext, path: Path) -> multiprocessing.process.BaseProcess:
    process = forked.Process(target=run, args=(str(path),))
    process.start()
    return process


def _finish(forked: ForkServerContext, path: Path) -> None:
    process = _child(forked, path)
    process.join()
    assert process.exitcode == 0


def _prompts_in(path: Path) -> int:
    if not path.exists():
        return 0
    with duckdb.connect(str(path), read_only=True) as connection:
        row = connection.execute("SELECT count(*) FROM prompts").fetchone()
    return 0 if row is None else row[0]


def test_killed_at_random_moments_the_store_ends_equal(
    forked: ForkServerContext, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    expected, duration = undisturbed
    moments = random.Random(20240501)
    path = tmp_path / "store.duckdb"
    kills = part_way = 0
    while kills < KILLS or part_way < PART_WAY:
        process = _child(forked, path)
        process.join(moments.uniform(0.02, 1.0) * duration)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            part_way += 0 < _prompts_in(path) < len(small_suite().prompts)
            assert kills < 20 * KILLS, "no kill lands while the recording is under way"
            continue
        # It came to its end: whatever was killed before, the store is the undisturbed one.
        assert process.exitcode == 0
        assert content(path) == expected
        path.unlink()
    _finish(forked, path)
    assert content(path) == expected


def test_killed_during_each_commit_the_store_ends_equal(
    forked: ForkServerContext, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """The log grows with each commit: kill as soon as it is seen to have grown."""
    path = tmp_path / "store.duckdb"
    log = tmp_path / "store.duckdb.wal"
    for _ in range(4):
        process = _child(forked, path)
        seen = log.stat().st_size if log.exists() else 0
        while process.is_alive():
            if log.exists() and log.stat().st_size > seen:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                break
        process.join()
    _finish(forked, path)
    assert content(path) == undisturbed[0]


def test_a_killed_interpreter_is_resumed_by_another_process(
    forked: ForkServerContext, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    path = tmp_path / "store.duckdb"
    process = subprocess.Popen([sys.executable, "-m", "tests.recorded_runs", str(path)], cwd=ROOT)
    while process.poll() is None and not path.with_name("store.duckdb.wal").exists():
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert _prompts_in(path) < len(small_suite().prompts)
    _finish(forked, path)
    assert content(path) == undisturbed[0]


def test_a_second_identical_run_does_nothing(
    forked: ForkServerContext, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    path = tmp_path / "store.duckdb"
    _finish(forked, path)
    before = path.read_bytes()
    _finish(forked, path)
    assert path.read_bytes() == before
    assert content(path) == undisturbed[0]
