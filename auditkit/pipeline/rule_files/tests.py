"""`auditkit rules test`: series on both evaluators, prompts on a model, coverage, JUnit."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.progress import Progress, Silent
from auditkit.pipeline.rule_files.checks import CheckOutcome
from auditkit.pipeline.rule_files.files import load_rule_set
from auditkit.pipeline.rule_files.junit import render_junit
from auditkit.pipeline.rule_files.test_results import (
    RuleTest,
    coverage_row,
    coverage_text,
    exit_code_of_tests,
    tally,
    total_share,
)
from auditkit.pipeline.series_sql import run_series_sql
from auditkit.report.visible import escape_hidden, one_line
from auditkit.rules import (
    CorrelationDocument,
    RuleDocument,
    run_correlation_tests,
    run_unit_tests,
)
from auditkit.rules.documents.rule_documents import RuleTests
from auditkit.rules.trying.atoms import RuleCoverage, measure_coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToTest:
    """What is to be tested, and how told. `prompts`: an audit.yaml, on whose model the examples
    run instead of the series; `fail_under`: the least coverage, in per cent."""

    paths: tuple[str, ...] = ()
    prompts: Path | None = None
    lock: Path | None = None
    junit: Path | None = None
    coverage: bool = False
    fail_under: float | None = None
    json: bool = False


def run_rule_tests(wish: WhatToTest, progress: Progress | None = None) -> CheckOutcome:
    """Run the tests and write the JUnit file where one is asked for; zero tests are an error."""
    _check(wish)
    if wish.prompts is not None:
        from auditkit.pipeline.rule_files.prompt_tests import run_prompt_tests

        tests = run_prompt_tests(
            wish.prompts, wish.paths, lock=wish.lock, progress=progress or Silent()
        )
        none, coverages = "the rules have no examples", list[RuleCoverage]()
    else:
        loaded = load_rule_set(wish.paths)
        rules = loaded.rules
        tests = [t for rule in rules for t in _unit_tests(rule)]
        tests += [t for c in loaded.correlations for t in _verdict_tests(c)]
        none = "the rules have no unit tests"
        measured = wish.coverage or wish.fail_under is not None
        coverages = [measure_coverage(r, run_sql=run_series_sql) for r in rules] if measured else []
    if wish.junit is not None:
        _write(wish.junit, render_junit(tests))
    if not tests:
        return CheckOutcome(text=none, exit_code=ExitCode.NOTHING_EVALUATED)
    return CheckOutcome(text=_text(wish, tests, coverages), exit_code=_code(wish, tests, coverages))


def _check(wish: WhatToTest) -> None:
    if wish.prompts is None and wish.lock is not None:
        raise InvalidInput("--lock says on what --prompts AUDIT.yaml runs, which is not given")
    if wish.prompts is not None and (wish.coverage or wish.fail_under is not None):
        raise InvalidInput(
            "coverage is that of unit series, and --prompts runs examples", help="run it by itself"
        )
    if wish.fail_under is not None and not 0 <= wish.fail_under <= 100:
        raise InvalidInput(f"--fail-under {wish.fail_under:g} is no percentage")


def _unit_tests(rule: RuleDocument) -> Iterator[RuleTest]:
    for test in rule.tests.unit:
        alone = rule.model_copy(update={"tests": RuleTests(unit=(test,))})
        started = time.perf_counter()
        (result,) = run_unit_tests(alone, run_sql=run_series_sql)
        yield RuleTest(
            rule_id=result.rule_id,
            kind="unit",
            name=result.name,
            outcome=result.outcome,
            verdict=result.verdict,
            message=result.message,
            seconds=time.perf_counter() - started,
        )


def _verdict_tests(correlation: CorrelationDocument) -> Iterator[RuleTest]:
    for result in run_correlation_tests(correlation):
        yield RuleTest(
            rule_id=result.rule_id,
            kind="unit",
            name=result.name,
            outcome=result.outcome,
            verdict=result.verdict,
            message=result.message,
        )


def _text(wish: WhatToTest, tests: Sequence[RuleTest], coverages: Sequence[RuleCoverage]) -> str:
    if not wish.json:
        lines = [one_line(t.line()) for t in tests] + [tally(tests)]
        return "\n".join([*lines, coverage_text(coverages)] if coverages else lines)
    rows: Any = [t.row() for t in tests]
    if coverages:
        rows = {"tests": rows, "coverage": [coverage_row(c) for c in coverages]}
    return escape_hidden(json_format.dumps(rows, indent=1, ensure_ascii=False, default=str))


def _code(
    wish: WhatToTest, tests: Sequence[RuleTest], coverages: Sequence[RuleCoverage]
) -> ExitCode:
    code = exit_code_of_tests(tests)
    short = wish.fail_under is not None and 100 * total_share(coverages) < wish.fail_under
    if code is ExitCode.CLEAN and (short or any(c.disagreements for c in coverages)):
        return ExitCode.FINDINGS
    return code


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from None
