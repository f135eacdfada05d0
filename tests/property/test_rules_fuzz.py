"""No input to the readers of rule files ends in a traceback, a hang, or memory that stays."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from auditkit.rules import read_rules
from tests.fuzzed_rules import KINDS, inputs, read

COUNT = int(os.environ.get("AUDITKIT_FUZZ_INPUTS", "600"))


def test_every_input_is_taken_or_refused_with_diagnostics() -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for given in inputs(4, COUNT):
        started = time.process_time()
        seen[given.kind, read(given)] += 1
        assert time.process_time() - started < 1, given
    assert {kind for kind, _ in seen} == set(KINDS)
    assert seen["condition", True] > COUNT // 20


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5_000,
        "{a: " * 2_000,
        "a: &x [" + "1, " * 2_000 + "]\nb: [" + "*x, " * 2_000 + "]",
        "x0: &x0 [a]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 60)),
        "\t" * 10_000,
        "- " * 3_000,
    ],
    ids=["lists", "mappings", "aliases", "billion_laughs", "tabs", "dashes"],
)
def test_depth_and_aliases_are_bounded(text: str) -> None:
    started = time.process_time()
    assert read_rules(text, "deep.yaml").errors
    assert time.process_time() - started < 1
