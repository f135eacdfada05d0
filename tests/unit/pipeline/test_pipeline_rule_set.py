"""Commands over rule files know filters and correlations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from auditkit.core.errors import DocumentError, ExitCode, InvalidInput, NothingEvaluated
from auditkit.pipeline.audit import exit_code_of
from auditkit.pipeline.rule_files.checks import explain_rule, lint_paths
from auditkit.pipeline.rule_files.files import load_rule_set
from auditkit.pipeline.rule_files.listing import list_paths
from auditkit.pipeline.rule_files.tests import WhatToTest, run_rule_tests
from auditkit.pipeline.summaries import list_limits
from auditkit.rules import write_lock
from tests.report_sample import sample_audit
from tests.unit.rules.test_rules_filters_page import BLOCKS
from tests.unit.rules.test_rules_filters_page import FILES as PAGE

NAMES = [f.path for f in PAGE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BLOCKS.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_rule_set_holds_every_part_of_its_files(folder: Path) -> None:
    loaded = load_rule_set([str(folder)])
    assert [r.id for r in loaded.rules] == ["asks.harm", "runs.code"]
    assert [f.rules for f in loaded.locked_filters()] == [("asks.harm",)]
    assert [c.id for c in loaded.locked_correlations()] == ["harm.then_code", "harm.many_topics"]


def test_filters_without_their_rules_are_refused(folder: Path) -> None:
    with pytest.raises(DocumentError, match=r"filters.yaml:7:13: AK037"):
        load_rule_set(["filters.yaml"], base=folder)
    (folder / "filters.yaml").write_text("format: auditkit-suite/1\n", encoding="utf-8")
    (folder / "rules.yaml").unlink()
    (folder / "correlations.yaml").unlink()
    with pytest.raises((NothingEvaluated, InvalidInput), match="no rules in"):
        load_rule_set([str(folder)])


def test_lint_says_on_request_what_a_monitor_leaves_out(folder: Path) -> None:
    paths = [str(folder)]
    assert lint_paths(paths, format="text", strict=True).exit_code is ExitCode.CLEAN
    online = lint_paths(paths, format="json", strict=True, online=True)
    assert online.exit_code is ExitCode.WARNINGS
    codes = [d["code"] for d in json.loads(online.text)["diagnostics"]]
    assert codes == ["AK072", "AK071"]


def test_the_tests_of_correlations_run_with_those_of_rules(folder: Path) -> None:
    done = run_rule_tests(WhatToTest(paths=(str(folder),)))
    assert done.exit_code is ExitCode.CLEAN
    assert "harm.then_code · next_message" in done.text
    assert "11 pass" in done.text
    wrong = BLOCKS["correlations"].replace("fires: unknown", "fires: true")
    (folder / "correlations.yaml").write_text(wrong, encoding="utf-8")
    assert run_rule_tests(WhatToTest(paths=(str(folder),))).exit_code is ExitCode.FINDINGS


def test_they_are_explained_and_listed(folder: Path) -> None:
    paths = [str(folder)]
    assert "(filter)" in explain_rule("asks.harm.fiction", paths, None)
    assert "in this order" in explain_rule("then_code", paths, None)
    rows = {r["rule"]: r for r in json.loads(list_paths(paths, None, json=True))}
    assert rows["harm.many_topics"]["kind"] == "correlation (population)"
    assert rows["asks.harm.fiction"] == {
        "rule": "asks.harm.fiction", "kind": "filter", "expires": "2099-05-02",
    }  # fmt: skip
    assert "filter" in list_paths(paths, None, json=False)


def test_a_lock_says_whether_they_have_changed_since(folder: Path) -> None:
    loaded = load_rule_set([str(folder)])
    filters, correlations = loaded.locked_filters(), loaded.locked_correlations()
    old = (replace(correlations[0], digest="other"),)
    lock = replace(sample_audit().lock, filters=filters, correlations=old)
    write_lock(lock, folder / "rules.lock.json")
    listed = list_paths([str(folder)], folder / "rules.lock.json", json=True)
    rows = {r["rule"]: r.get("resolved") for r in json.loads(listed)}
    assert rows["asks.harm.fiction"] == "yes"
    assert rows["harm.then_code"] == "changed since"
    assert rows["harm.many_topics"] == "not in the lock"
    told = explain_rule("harm.then_code", [], folder / "rules.lock.json")
    assert "digest other" in told


def test_an_audit_says_which_filters_did_nothing(folder: Path) -> None:
    sample = sample_audit()
    (tuning,) = load_rule_set([str(folder)]).locked_filters()
    late = replace(tuning, id="late", expires="2026-01-02")
    lock = replace(sample.lock, filters=(tuning, late))
    limits = list_limits(lock, sample.findings, ())
    assert any("asks.harm.fiction excused no match" in line for line in limits)
    assert any("late expired on 2026-01-02" in line for line in limits)
    fired = replace(sample.findings[0], filtered=(("asks.harm.fiction", 3),))
    assert not any("excused no" in line for line in list_limits(lock, [fired], ()))


def test_a_correlation_that_held_decides_the_exit_code() -> None:
    from auditkit.core.locks import Severity
    from auditkit.core.verdicts import Truth
    from tests.unit.report.test_report_correlations import finding

    assert exit_code_of([finding(Truth.TRUE)], Severity.HIGH) is ExitCode.FINDINGS
    assert exit_code_of([finding(Truth.FALSE)], Severity.HIGH) is ExitCode.CLEAN
