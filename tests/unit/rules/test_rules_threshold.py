"""The largest calibrated threshold at which a frame fires."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import SCALE, lower
from auditkit.core.locks import LockedLatent, LockedRule
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Truth
from auditkit.rules import StreamEvaluator, TokenSignals, critical_threshold
from tests.locked import make_rule, make_signal
from tests.unit.rules.rules_worlds import calibrated_at

TWO = (make_signal("a", LockedLatent(latent=0)), make_signal("b", LockedLatent(latent=1)))


def frame(*values: tuple[float | None, float | None]) -> list[TokenSignals]:
    return [
        TokenSignals(
            role=Role.USER,
            values={
                "a": None if a is None else lower(a),
                "b": None if b is None else lower(b),
            },
        )
        for a, b in values
    ]


def rule(condition: str) -> LockedRule:
    return make_rule(condition, signals=TWO)


THREE = frame((0.5, 0.0), (0.25, 1.0), (0.75, 0.0))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("max(a) >= calibrated", 0.75),
        ("max(a) > calibrated", 0.75 - 1 / SCALE),
        ("mean(a) >= calibrated", 0.5),
        ("sum(a) >= calibrated", 1.5),
        ("max(a) >= calibrated and max(b) >= 1", 0.75),
        ("max(a) >= calibrated and max(b) >= 2", None),
        ("max(a) >= calibrated or max(b) >= 1", math.inf),
        ("count(a >= 0.3) >= calibrated", 2.0),
        ("any(a >= calibrated)", 0.75),
        ("count(a >= calibrated) >= 2", 0.5),
        ("count(a > calibrated) >= 2", 0.5 - 1 / SCALE),
        ("run(a >= calibrated) >= 2", 0.25),
        ("not count(a >= calibrated) < 3", 0.25),
        ("count(not a >= calibrated) <= 1", 0.5),
        ("count(a >= calibrated or b >= 1) >= 1", math.inf),
        ("count(a >= calibrated) >= 4", None),
        ("window 2 (mean(a) >= calibrated)", 0.5),
        ("window 1 (max(a) >= calibrated and max(b) >= 1)", 0.25),
        ("window 9 (mean(a) > calibrated)", 0.5 - 1 / SCALE),
        ("window 2 (count(a >= calibrated) >= 2)", 0.25),
        ("window 2 (max(a) >= calibrated) or max(b) >= 1", math.inf),
        ("rolling_mean_max(a, 2) >= calibrated", 0.5),
        ("topk_mean(a, 2) >= calibrated", 0.625),
        ("quantile(a, 0.5) >= calibrated", 0.5),
        ("last(a >= 0.5) >= calibrated", 2.0),
        ("first(a >= 9) >= calibrated", math.inf),
        ("last(a >= 9) >= calibrated", None),
        ("first(a >= calibrated) <= 0", 0.5),
        ("(a >= calibrated) then (a >= 0.7) within 1 tokens", 0.25),
        ("(b >= 1) then (a >= calibrated) within 1 tokens", 0.75),
        ("max(a) in [calibrated, 0.8]", 0.75),
    ],
)
def test_the_critical_threshold_is_the_largest_that_fires(condition, expected) -> None:
    assert critical_threshold(rule(condition), THREE) == expected


def test_it_agrees_with_trying_thresholds_one_by_one() -> None:
    rng = random.Random(1)
    conditions = [
        "mean(a) >= calibrated",
        "max(a) > calibrated and count(b >= 0.2) >= 1",
        "count(a >= calibrated) >= 2 or max(b) >= 0.9",
        "2 of (sum(a) > calibrated, max(b) > 0.5, mean(b) < 0.4)",
        "frac(a >= calibrated and b < 0.5) >= 0.5",
        "window 3 (mean(a) >= calibrated and max(b) < 0.9)",
        "window 2 (rolling_mean_max(a, 2) > calibrated) or sum(b) > 2",
        "(a >= calibrated) then (b >= 0.4) within 2 tokens",
        "rolling_mean_max(a, 3) > calibrated and topk_mean(b, 2) < 0.9",
        "quantile(a, 0.75) >= calibrated",
    ]
    for number in range(200):
        condition = conditions[number % len(conditions)]
        tokens = frame(
            *(
                (None, None) if rng.random() < 0.1 else (rng.random(), rng.random())
                for _ in range(rng.randint(1, 6))
            )
        )
        critical = critical_threshold(rule(condition), tokens)

        def fires(threshold: float) -> bool:
            made = replace(rule(condition), calibration=calibrated_at(threshold))  # noqa: B023
            evaluator = StreamEvaluator(made)
            evaluator.push(tokens)  # noqa: B023
            return evaluator.finish().truth is Truth.TRUE

        if critical is None:
            assert not any(fires(t) for t in (-100.0, -1.0, 0.0, 0.5))
        elif math.isinf(critical):
            assert fires(1000.0)
        else:
            assert fires(critical)
            assert not fires(critical + 1 / SCALE)


@pytest.mark.parametrize(
    "condition",
    [
        "not max(a) >= calibrated",
        "max(a) <= calibrated",
        "all(a == calibrated)",
        "window 3 (mean(a) < calibrated)",
        "not window 3 (mean(a) >= calibrated)",
        "first(a >= calibrated) > 2",
        "max(a) in [0, calibrated]",
    ],
)
def test_a_rule_that_does_not_fall_with_the_threshold_is_refused(condition: str) -> None:
    with pytest.raises(InvalidInput, match="may turn true as 'calibrated' rises"):
        critical_threshold(rule(condition), THREE)


def test_a_rule_without_calibrated_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no 'calibrated' threshold"):
        critical_threshold(rule("max(a) >= 1"), THREE)
