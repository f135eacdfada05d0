"""The runner of the unit tests that rules carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from auditkit.core.prompts import Role
from auditkit.core.verdicts import Truth
from auditkit.rules import (
    CompiledSql,
    Outcome,
    RuleDocument,
    SeriesTables,
    UnitResult,
    judge_example,
    parse_rules,
    run_unit_tests,
)
from auditkit.rules.documents.series import SeriesError, lay_out_series, parse_series
from tests.unit.rules.rule_texts import GOOD

HEAD, _, TAIL = GOOD.partition("    tests:\n")


def in_memory(compiled: CompiledSql, tables: SeriesTables) -> Sequence[Mapping[str, Any]]:
    """Run a statement over a series in DuckDB."""
    types = {
        "tokens": [("token", pa.int64()), ("mask", pa.int32()), ("message", pa.int32())],
        "activations": [("token", pa.int64()), ("latent", pa.int32()), ("value", pa.float32())],
        "coverage": [("first_token", pa.int64()), ("last_token", pa.int64())],
        "prompts": [],
    }
    with duckdb.connect() as connection:
        for name, wanted in types.items():
            columns = dict(getattr(tables, name))
            kinds = dict(wanted)
            table = pa.table(
                {
                    c: pa.array(v, kinds.get(c, pa.string() if not v else None))
                    for c, v in columns.items()
                }
            )
            connection.register(name, table)
        result = connection.execute(compiled.text, list(compiled.parameters))
        names = [d[0] for d in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def rule(tests: str, *, old: str = "", new: str = "") -> RuleDocument:
    text = HEAD.replace(old, new) if old else HEAD
    return parse_rules(f"{text}    tests:\n      unit:\n        - {tests}\n", "r.yaml").rules[0]


def run(tests: str, **changes: str) -> UnitResult:
    (result,) = run_unit_tests(rule(tests, **changes), run_sql=in_memory)
    return result


def test_the_tests_of_a_rule_run_on_both_evaluators() -> None:
    results = run_unit_tests(parse_rules(GOOD, "r.yaml").rules[0], run_sql=in_memory)
    assert [(r.name, r.outcome) for r in results] == [
        ("fires", Outcome.PASS),
        ("silent", Outcome.PASS),
    ]
    assert results[0].verdict.at == 9


BOTH = '{refuse@user: "0.5", refuse@assistant: "0"}'


def case(series: str, expected: str, *, calibrated: float | None = 0.3) -> str:
    given = "" if calibrated is None else f"given: {{calibrated: {calibrated}}}, "
    return f"{{name: t, {given}series: {series}, {expected}}}"


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (case('{refuse@user: "0.5*4"}', "fires: true"), "got unknown (empty frame)"),
        (case(BOTH, "fires: true", calibrated=None), "got unknown (not calibrated)"),
        (case(BOTH, "fires: false"), "expected false, got true at 1"),
        (case(BOTH, "fires: true, at: 0"), "expected to fire at 0, fired at 1"),
        (
            case('{refuse@user: "0.5", refuse@assistant: "_ 0"}', "fires: true"),
            "got unknown (not covered)",
        ),
    ],
)
def test_a_test_that_fails_says_what_came(test: str, message: str) -> None:
    result = run(test)
    assert result.outcome is Outcome.FAIL
    assert message in result.message
    assert not result.outcome.good


def test_signals_of_one_role_are_laid_side_by_side() -> None:
    series = 'refuse@user: "0.5*3", code@user: "2 3 4", refuse@assistant: "0"'
    silent = run(f"{{name: t, given: {{calibrated: 0.3}}, series: {{{series}}}, fires: false}}")
    assert silent.outcome is Outcome.PASS
    fewer = series.replace("2 3 4", "2 3 1")
    fires = run(f"{{name: t, given: {{calibrated: 0.3}}, series: {{{fewer}}}, fires: true, at: 3}}")
    assert fires.outcome is Outcome.PASS


def test_skipped_tokens_stand_before_the_series() -> None:
    test = case(BOTH, "fires: true, at: 1", calibrated=0.5)
    assert run(test, old="skip_first: 1", new="skip_first: 5").outcome is Outcome.PASS


@pytest.mark.parametrize("frame", ["message", "exchange", "conversation"])
def test_a_series_is_one_frame_of_any_kind(frame: str) -> None:
    test = case('{refuse@user: "0.5*2", refuse@assistant: "0*3"}', "fires: true, at: 4")
    assert run(test, old="frame: exchange", new=f"frame: {frame}").outcome is Outcome.PASS


def test_todo_turns_failures_into_expected_ones_and_passes_into_failures() -> None:
    base = 'name: t, given: {calibrated: 0.3}, series: {refuse@user: "0.5", refuse@assistant: "0"}'
    assert run(f"{{{base}, fires: false, todo: later}}").outcome is Outcome.EXPECTED_FAILURE
    unexpected = run(f"{{{base}, fires: true, todo: later}}")
    assert unexpected.outcome is Outcome.UNEXPECTED_PASS
    assert "marked todo: later" in unexpected.message


def test_evaluators_that_disagree_fail_the_test() -> None:
    def wrong(compiled: CompiledSql, tables: SeriesTables) -> Sequence[Mapping[str, Any]]:
        return [{**row, "verdict": "false", "at": None} for row in in_memory(compiled, tables)]

    (first, _) = run_unit_tests(parse_rules(GOOD, "r.yaml").rules[0], run_sql=wrong)
    assert first.outcome is Outcome.FAIL
    assert first.message == "evaluators disagree: the stream says true at 9, the SQL false"


def test_the_stream_alone_needs_no_database() -> None:
    (first, second) = run_unit_tests(parse_rules(GOOD, "r.yaml").rules[0])
    assert first.outcome is second.outcome is Outcome.PASS


def test_a_value_on_the_threshold_reaches_it_as_stored() -> None:
    series = '{refuse@user: "0.35", refuse@assistant: "0"}'
    test = case(series, "fires: true", calibrated=0.35)
    assert run(test).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("truth", "should_match", "todo", "outcome"),
    [
        (Truth.TRUE, True, None, Outcome.PASS),
        (Truth.FALSE, True, None, Outcome.FAIL),
        (Truth.TRUE, False, None, Outcome.FAIL),
        (Truth.TRUE, False, "known", Outcome.EXPECTED_FAILURE),
        (Truth.FALSE, False, "known", Outcome.UNEXPECTED_PASS),
        (Truth.UNKNOWN, True, None, Outcome.UNRESOLVED),
        (Truth.UNKNOWN, False, "known", Outcome.UNRESOLVED),
    ],
)
def test_examples_are_judged_by_the_verdict(truth, should_match, todo, outcome) -> None:
    assert judge_example(truth, should_match=should_match, todo=todo) is outcome
    assert outcome.good == (outcome in (Outcome.PASS, Outcome.EXPECTED_FAILURE))


def test_series_notation() -> None:
    assert parse_series("0.5*2 -1 _*2 3e-1") == [0.5, 0.5, -1.0, None, None, 0.3]
    assert parse_series("") == []
    assert parse_series("0*0 1") == [1.0]
    tokens = lay_out_series({"a@user": "1", "b": "2 3"}, ["a", "b"], Role.TOOL)
    assert [(t.role, t.values) for t in tokens] == [
        (Role.USER, {"a": 1.0, "b": 0.0}),
        (Role.TOOL, {"a": 0.0, "b": 2.0}),
        (Role.TOOL, {"a": 0.0, "b": 3.0}),
    ]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({"a": "0.5x2"}, "'0.5x2' is no value"),
        ({"a": "nan"}, "'nan' is no value"),
        ({"a": "1e9"}, "out of range"),
        ({"a": "0*5000"}, "more than 4096 tokens"),
        ({"z": "0"}, "unknown signal 'z'"),
        ({"a@bob": "0"}, "unknown role 'bob'"),
        ({"a": "0", "b": "0 0"}, "another series of @user has another number"),
        ({"a": "0", "a@user": "0"}, "a second series"),
    ],
)
def test_a_series_that_cannot_be_read_is_named(series: dict[str, str], message: str) -> None:
    with pytest.raises(SeriesError, match=message):
        lay_out_series(series, ["a", "b"], Role.USER)
