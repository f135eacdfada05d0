"""Percentiles that a rule names as thresholds are measured over benign tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from auditkit.binding.percentiles import measure_percentiles, named_percentiles
from auditkit.binding.recorded import RecordedFrame, RecordedSuite
from auditkit.core.locks import LockedLatent
from auditkit.core.prompts import Role
from auditkit.rules import parse_rules
from tests.locked import make_signal
from tests.unit.rules.rule_texts import GOOD


class FakeStore:
    """A hundred covered tokens on which latent 7 is their number / 128, and ten that are not."""

    def activations(self, recording: str, latents: list[int]) -> pa.Table:
        assert latents == [7]
        tokens = list(range(1, 100))
        return pa.table({"token": tokens, "latent": [7] * 99, "value": [t / 128 for t in tokens]})

    def lacks_directions(self, recording: str, directions: list[str]) -> frozenset[str]:
        return frozenset()

    def coverage(self, recording: str) -> pa.Table:
        return pa.table({"first_token": [0], "last_token": [99]})


def suite(*frames: range) -> RecordedSuite:
    made = tuple(
        RecordedFrame(
            prompt_id=f"p{n}",
            split=None,
            tokens=np.array(tokens, dtype=np.int64),
            roles=(Role.USER,) * len(tokens),
            text="",
        )
        for n, tokens in enumerate(frames)
    )
    return RecordedSuite(recording="r", suite="benign", frames=made)


STORE: Any = FakeStore()
SIGNAL = make_signal("a", LockedLatent(latent=7))


def test_the_nearest_rank_over_covered_tokens_of_all_frames() -> None:
    found = measure_percentiles(SIGNAL, suite(range(60), range(60, 110)), [1, 50, 99.5, 100], STORE)
    assert found == ((1, 0.0), (50, 49 / 128), (99.5, 99 / 128), (100, 99 / 128))


def test_without_a_covered_token_there_is_none() -> None:
    assert measure_percentiles(SIGNAL, suite(range(100, 110)), [50], STORE) == ()


def test_what_a_rule_names_is_found_in_all_its_conditions() -> None:
    old = "answered: max(refuse @assistant) >= 0.15"
    assert old in GOOD
    new = "answered: max(refuse @assistant) in [refuse.p99.9, refuse.p100]"
    text = GOOD.replace(old, new).replace("code >= 2 raw", "code >= code.p50")
    (rule,) = parse_rules(text, "r.yaml").rules
    assert named_percentiles(rule) == {"refuse": [99.9, 100.0], "code": [50.0]}


@pytest.mark.parametrize(("percent", "value"), [(10, 9), (10.1, 10), (0.001, 0)])
def test_percents_are_taken_as_written(percent: float, value: int) -> None:
    found = measure_percentiles(SIGNAL, suite(range(100)), [percent], STORE)
    assert found == ((percent, value / 128),)
