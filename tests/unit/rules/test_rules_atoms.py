"""Coverage of comparisons: which were seen true and which false, on both evaluators."""

from __future__ import annotations

import pytest

from auditkit.pipeline.series_sql import run_series_sql
from auditkit.rules import CompiledSql, RuleDocument, SeriesTables, load_rules, read_rules
from auditkit.rules.trying.atoms import RuleCoverage, measure_coverage
from auditkit.suites import library_root

RULE = """\
format: auditkit-rules/1
rules:
  - id: test.rule
    rev: 1
    title: A rule
    status: experimental
    severity: low
    false_positives: [Unknown]
    signals:
      a: {select: {by: index, latents: [1], sae: "0123456789abcdef"}, unit: raw}
      b: {select: {by: index, latents: [2], sae: "0123456789abcdef"}, unit: raw}
    frame: conversation
    condition: CONDITION
    tests:
      unit:
"""


def rule_of(condition: str, *tests: str) -> RuleDocument:
    text = RULE.replace("CONDITION", condition)
    text += "".join(f"        - {{name: t{n}, {t}}}\n" for n, t in enumerate(tests))
    return read_rules(text, "rule.yaml").rules[0]


def coverage_of(condition: str, *tests: str) -> RuleCoverage:
    rule = rule_of(condition, *tests)
    both, stream = measure_coverage(rule, run_sql=run_series_sql), measure_coverage(rule)
    assert both == stream
    assert both.disagreements == ()
    return both


def seen(coverage: RuleCoverage) -> dict[str, tuple[int, int]]:
    return {a.text: (len(a.seen_true), len(a.seen_false)) for a in coverage.atoms}


def test_a_comparison_is_covered_when_seen_both_ways() -> None:
    found = coverage_of(
        "max(a) >= 0.5", 'series: {a: "0.6"}, fires: true', 'series: {a: "0.1"}, fires: false'
    )
    assert seen(found) == {"max(a) >= 0.5": (1, 1)}
    assert found.share == 1.0


def test_what_short_circuits_is_not_covered() -> None:
    found = coverage_of(
        "max(a) >= 0.5 or max(b) >= 0.5",
        'series: {a: "0.6", b: "0.1"}, fires: true',
        'series: {a: "0.1", b: "0.1"}, fires: false',
    )
    assert seen(found) == {"max(a) >= 0.5": (1, 1), "max(b) >= 0.5": (0, 2)}
    assert found.share == 0.75


def test_unknown_covers_nothing() -> None:
    found = coverage_of("max(a) <= 0.5", 'series: {a: "_*2"}, fires: unknown')
    assert seen(found) == {"max(a) <= 0.5": (0, 0)}
    assert found.share == 0.0


def test_comparisons_at_tokens_are_atoms_too() -> None:
    found = coverage_of("count(a >= 0.5 and b < 0.2) >= 1", 'series: {a: "0.6 0.1"}, fires: true')
    assert seen(found) == {
        "any((a >= 0.5 and b < 0.2))".replace("((", "(").replace("))", ")"): (1, 0),
        "at a token: a >= 0.5": (1, 1),
        "at a token: b < 0.2": (1, 0),
    }


def test_comparisons_inside_windows_are_seen_there() -> None:
    found = coverage_of("window 2 (mean(a) >= 0.5)", 'series: {a: "0.9 0.9 0 0"}, fires: true')
    assert seen(found) == {"window 2: mean(a) >= 0.5": (1, 1)}


def test_then_has_the_comparisons_of_both_sides() -> None:
    found = coverage_of(
        "(a >= 0.5) then (b >= 0.5) within 3 tokens",
        'series: {a: "0.9 0 0", b: "0 0 0.9"}, fires: true',
    )
    assert seen(found) == {
        "(a >= 0.5) then (b >= 0.5) within 3 tokens": (1, 0),
        "at a token: a >= 0.5": (1, 1),
        "at a token: b >= 0.5": (1, 1),
    }


def test_one_comparison_written_twice_is_one_atom() -> None:
    test = 'series: {a: "0.9", b: "0.9"}, fires: true'
    found = coverage_of("max(a) >= 0.5 and (max(a) >= 0.5 or max(b) >= 0.5)", test)
    assert len(found.atoms) == 2


def test_evaluators_that_disagree_are_told() -> None:
    def broken(compiled: CompiledSql, tables: SeriesTables) -> list[dict[str, object]]:
        del compiled, tables
        row = {"prompt": "series", "frame": 0, "verdict": "false", "reason": None, "at": None}
        return [row]

    rule = rule_of("max(a) >= 0.5", 'series: {a: "0.9"}, fires: true')
    found = measure_coverage(rule, run_sql=broken)
    assert found.disagreements == ("t0: max(a) >= 0.5",)
    assert found.share == 0.0


SHIPPED = [rule for file in load_rules([library_root()]) for rule in file.rules]


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: rule.id)
def test_shipped_rules_show_every_comparison_true_and_false(rule: RuleDocument) -> None:
    found = measure_coverage(rule, run_sql=run_series_sql)
    assert found.atoms
    assert found.share == 1.0, seen(found)
    assert found.disagreements == ()
