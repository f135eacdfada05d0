"""Certificates in words: what is certified where, what is missing, and all rules together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import (
    Calibration,
    JointCalibration,
    JointNotCalibrated,
    Lock,
    LockedRule,
    NotCalibrated,
    Stratum,
)
from auditkit.core.progress import Silent
from auditkit.pipeline.bind import BoundSummary, bind_paths
from auditkit.pipeline.rule_files.listing import list_paths
from auditkit.report import build_report, to_html, to_markdown, to_terminal
from auditkit.report.certificates import joint_sentence, stratum_in_words
from auditkit.report.wording import calibration_sentence, false_positives_in_short
from auditkit.rules import write_lock
from tests.report_sample import CREDENTIALS, HARM, sample_audit

LACKING = NotCalibrated(
    reason="120 benign frames cannot certify 0.01 at 0.95", frames=120, needs_more=179
)
SAID = "not calibrated: needs 179 more"


def joint_of(lock: Lock) -> tuple[JointCalibration, JointNotCalibrated]:
    certified, refused = lock.joint
    assert isinstance(certified, JointCalibration)
    assert isinstance(refused, JointNotCalibrated)
    return certified, refused


@pytest.fixture
def lock() -> Lock:
    return sample_audit().lock


def with_calibration(lock: Lock, calibration: NotCalibrated, rule: LockedRule = HARM) -> Lock:
    rules = (replace(rule, calibration=calibration),)
    return replace(lock, rules=rules, joint=())


def test_what_is_lacking_is_said_everywhere_in_the_same_words(lock: Lock, tmp_path: Path) -> None:
    changed = with_calibration(lock, LACKING)
    document = build_report(replace(sample_audit(), lock=changed, findings=(), views=()))
    assert SAID in to_markdown(document)
    assert SAID in to_html(document)
    assert SAID in calibration_sentence(LACKING)
    assert SAID in false_positives_in_short(LACKING)
    bound = BoundSummary(lock=changed, path=tmp_path / "rules.lock.json")
    assert SAID in bound.text()
    assert SAID in bound.json()


def test_a_list_of_rules_says_what_is_lacking(lock: Lock, tmp_path: Path) -> None:
    shipped = replace(HARM, id="harm.request", calibration=LACKING)
    write_lock(replace(lock, rules=(shipped,), joint=lock.joint[:1]), tmp_path / "a.lock.json")
    table = list_paths([], tmp_path / "a.lock.json", json=False)
    (line,) = [line for line in table.splitlines() if line.startswith("harm.request ")]
    assert "needs 179" in line
    assert "Together, any of 2 rules fires on 1 of the 512" in " ".join(table.split())
    rows = json.loads(list_paths([], tmp_path / "a.lock.json", json=True))
    assert SAID in [row.get("calibrated") for row in rows]


def test_a_reason_that_no_number_mends_has_none() -> None:
    never = NotCalibrated(reason="a signal is unresolved", frames=0, needs_more=None)
    assert never.said == "not calibrated: a signal is unresolved"


@pytest.mark.parametrize(
    ("needs", "said"),
    [(0, "certified: upper bound 0.95%"), (1287, "not calibrated: needs 1,287 more")],
)
def test_a_length_is_certified_or_says_what_it_lacks(needs: int, said: str) -> None:
    stratum = Stratum(low=1, high=16, frames=9, exceedances=0, bound=0.0095, needs_more=needs)
    assert stratum_in_words(stratum) == said


def test_every_length_stands_in_the_report() -> None:
    document = build_report(sample_audit())
    for text in (to_markdown(document), to_html(document)):
        assert "65 to 256 tokens" in text
        assert "257 or more tokens" in text
        assert "not calibrated: needs 287 more" in text


def test_a_rule_from_before_strata_has_no_table_of_them(lock: Lock) -> None:
    assert isinstance(HARM.calibration, Calibration)
    old = replace(HARM, calibration=replace(HARM.calibration, strata=()))
    audit = sample_audit()
    rules = tuple(old if r.id == HARM.id else r for r in lock.rules)
    document = build_report(replace(audit, lock=replace(lock, rules=rules)))
    assert "65 to 256 tokens" not in to_markdown(document)
    assert "65 to 256 tokens" not in to_html(document)


def test_the_joint_rate_is_said_with_its_budget_and_on_fresh_prompts(lock: Lock) -> None:
    certified, _ = joint_of(lock)
    said = joint_sentence(certified)
    assert "any of 2 rules fires on 1 of the 512 benign prompts" in said
    assert "≤ 5.0% certified at 95% confidence, upper bound 1.2%" in said
    assert "kept apart: 0.39%" in said
    document = build_report(sample_audit())
    assert said in to_html(document)
    assert said in " ".join(to_terminal(document).split())


def test_without_a_budget_nothing_is_said_to_be_certified(lock: Lock) -> None:
    certified, _ = joint_of(lock)
    said = joint_sentence(replace(certified, target_fpr=None))
    assert "certified" not in said
    assert "no joint budget was set; at 95% confidence the rate is at most 1.2%" in said


def test_a_budget_that_is_not_kept_says_so(lock: Lock, tmp_path: Path) -> None:
    _, refused = joint_of(lock)
    said = joint_sentence(refused)
    assert "no joint rate of 5.0% is certified" in said
    assert "not calibrated: needs 39 more" in said
    bound = BoundSummary(lock=replace(lock, rules=(CREDENTIALS,)), path=tmp_path / "a")
    assert said in bound.text()


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1])
def test_a_budget_that_is_no_share_is_refused(budget: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no budget"):
        bind_paths(
            [],
            sae="none",
            store=tmp_path / "store.duckdb",
            out=tmp_path / "lock.json",
            joint_fpr=budget,
            progress=Silent(),
        )
