"""`rules list` joins rule files with their lock and the report beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Lock, LockedRule
from auditkit.pipeline.rule_files.files import load_rule_set
from auditkit.pipeline.rule_files.listing import WIDTH, list_paths
from auditkit.report import build_report, to_json
from auditkit.rules import rule_digest, write_lock
from tests.report_sample import HARM, INJECTION, sample_audit

SHIPPED = "harm.request"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lock(bound_lock(), tmp_path / "rules.lock.json")
    return tmp_path


def bound_lock(rule: LockedRule | None = None) -> Lock:
    """The sample's lock, one of its rules being a shipped one."""
    document = next(r for r in load_rule_set([]).rules if r.id == SHIPPED)
    own = replace(HARM, id=SHIPPED, digest=rule_digest(document))
    sample = sample_audit().lock
    others = [r for r in sample.rules if r.id != SHIPPED]
    return replace(sample, rules=(rule or own, *others))


def rows(folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    text = list_paths([], folder / "rules.lock.json", json=True, **options)
    return {row["rule"]: row for row in json.loads(text)}


def test_json_has_scores_recalls_and_the_worst_variant(folder: Path) -> None:
    row = rows(folder)[SHIPPED]
    assert {k: row[k] for k in row if k not in ("severity", "unit tests", "confirmations")} == {
        "rule": SHIPPED,
        "status": "test",
        "resolved": "yes",
        "calibrated": "≤ 0.01",
        "AUROC": "0.953",
        "best baseline": "logistic regression on dense activations",
        "baseline AUROC": "0.949",
        "recall": "0.85",
        "baseline recall": "0.82",
        "scored on": "another data set: harm-elsewhere / harmless-elsewhere",
        "recall as written": "0.90",
        "worst variant": "in 1,024 tokens of benign text",
        "worst recall": "0.25",
        "confirmed": "no report",
    }


def test_verdicts_come_from_the_report_beside_the_lock(folder: Path) -> None:
    audit = replace(sample_audit(), lock=bound_lock())
    (folder / "report.json").write_text(to_json(build_report(audit)), encoding="utf-8")
    assert rows(folder)[SHIPPED]["confirmed"] == "confirmed"
    changed = replace(bound_lock().rules[0], digest="0" * 64)
    write_lock(bound_lock(changed), folder / "rules.lock.json")
    assert rows(folder)[SHIPPED]["confirmed"] == "changed since"


def test_a_report_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        rows(folder, report=folder / "none.json")
    (folder / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="not a report that this version reads"):
        rows(folder, report=folder / "other.json")
    with pytest.raises(InvalidInput, match="belongs to a --lock"):
        list_paths([], None, json=True, report=folder / "other.json")


def test_the_table_fits_a_hundred_columns_and_marks_what_the_lock_lacks(folder: Path) -> None:
    text = list_paths([], folder / "rules.lock.json", json=False)
    assert max(map(len, text.splitlines())) <= WIDTH
    lines = text.splitlines()
    (own,) = [line for line in lines if line.split()[:1] == [SHIPPED]]
    assert own.split()[:7] == [SHIPPED, "test", "yes", "≤", "0.01", "0.953", "0.949"]
    assert "0.25 in 1,024" in own
    others = [line for line in lines if "not in the" in line]
    assert len(others) == len(load_rule_set([]).rules) - 1
    # Names that go on in the next line are whole when they are put together.
    shown = "".join(line[:23].strip() for line in lines)
    assert all(rule.id in shown for rule in load_rule_set([]).rules)


def test_an_unmeasured_score_is_a_dash_and_no_number(folder: Path) -> None:
    unresolved = replace(INJECTION, id=SHIPPED)
    write_lock(bound_lock(unresolved), folder / "rules.lock.json")
    row = rows(folder)[SHIPPED]
    assert (row["resolved"], row["AUROC"], row["recall"]) == ("no", "not measured", "not measured")
    assert row["worst variant"] is None
    (line,) = [
        found
        for found in list_paths([], folder / "rules.lock.json", json=False).splitlines()
        if found.split()[:1] == [SHIPPED]
    ]
    assert "–" in line.split()
