"""The page docs/rules/filters-and-correlations.md: its examples are clean, and their tests pass."""

from __future__ import annotations

import re
from pathlib import Path

from auditkit.rules import (
    Outcome,
    explain_correlation,
    explain_filter,
    lint_rules,
    lock_correlation,
    lock_filter,
    read_rules,
    run_correlation_tests,
    run_unit_tests,
)

PAGE = Path(__file__).parents[3] / "docs" / "rules" / "filters-and-correlations.md"
BLOCKS = dict(re.findall(r"^```yaml (\w+)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S))
FILES = [read_rules(text, f"{name}.yaml") for name, text in BLOCKS.items()]


def test_the_examples_are_sound_together() -> None:
    assert set(BLOCKS) == {"rules", "filters", "correlations"}
    assert [d.render() for d in lint_rules(FILES)] == []


def test_the_tests_of_the_examples_pass() -> None:
    results = [r for f in FILES for rule in f.rules for r in run_unit_tests(rule)]
    results += [r for f in FILES for c in f.correlations for r in run_correlation_tests(c)]
    assert len(results) == 11
    assert {r.outcome for r in results} == {Outcome.PASS}


def test_the_examples_can_be_explained() -> None:
    ids = [rule.id for f in FILES for rule in f.rules]
    (tuning,) = [lock_filter(t, ids) for f in FILES for t in f.filters]
    told = explain_filter(tuning)
    assert "excused: asks.harm." in told
    assert "the prompt has the tag topic:fiction" in told
    sequence, population = [lock_correlation(c) for f in FILES for c in f.correlations]
    assert "asks.harm, then runs.code within 2 messages" in explain_correlation(sequence)
    told = explain_correlation(population)
    assert "with the same tag topic:…" in told
    assert "at least 2 and at least 0.5 of all prompts" in told
    assert "runs.code nowhere" in told
