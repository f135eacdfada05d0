"""SIGKILL at any moment of a harvest loses nothing: run again, it ends as if undisturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from auditkit.core.errors import InvalidInput
from auditkit.training.activations.store import ActivationStore, check_aligned, read_meta
from tests.harvested_runs import HOOK_POINTS, MAX_TOKENS, content, run

KILLS = 5
PART_WAY = 3
"""At least so many kills must find some of the documents done and not all."""


@pytest.fixture(scope="module")
def forked() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.harvested_runs"])
    return context


def _finish(forked: ForkServerContext, folder: Path) -> float:
    started = time.monotonic()
    process = forked.Process(target=run, args=(str(folder),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


def _is_part_way(folder: Path) -> bool:
    try:
        metas = [read_meta(folder / name) for name in HOOK_POINTS]
    except InvalidInput:
        return False
    return any(meta.documents for meta in metas) and not all(meta.complete for meta in metas)


def test_killed_at_random_moments_a_harvest_of_two_hook_points_ends_equal(
    forked: ForkServerContext, tmp_path: Path
) -> None:
    _finish(forked, tmp_path / "warm")
    duration = _finish(forked, tmp_path / "whole")
    expected = content(tmp_path / "whole")
    stores = [ActivationStore(tmp_path / "whole" / name) for name in HOOK_POINTS]
    check_aligned(*stores)
    assert len(stores[0]) == MAX_TOKENS
    moments = random.Random(20240501)
    folder = tmp_path / "cut"
    kills = part_way = 0
    while kills < KILLS or part_way < PART_WAY:
        process = forked.Process(target=run, args=(str(folder),))
        process.start()
        process.join(moments.uniform(0.1, 0.9) * duration)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            part_way += _is_part_way(folder)
            assert kills < 20 * KILLS, "no kill lands while the harvest is under way"
            continue
        assert process.exitcode == 0
        assert content(folder) == expected
        shutil.rmtree(folder)
    _finish(forked, folder)
    assert content(folder) == expected
