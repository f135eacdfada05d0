"""What every shipped rule has to bring, and what `stable` asks of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from auditkit.config import load_audit
from auditkit.core.confirmations import CausalVerdict
from auditkit.core.errors import ExitCode
from auditkit.core.locks import Calibration, LockedRule, NotCalibrated, Status
from auditkit.core.measured import Measured, NotMeasured
from auditkit.pipeline.report_files import read_report
from auditkit.pipeline.rule_files.checks import lint_paths
from auditkit.pipeline.rule_files.files import load_rule_set
from auditkit.report import ReportDocument
from auditkit.rules import RuleDocument, read_lock, rule_digest
from auditkit.suites import library_root
from tests.conftest import ROOT
from tests.report_sample import HARM
from tests.rules.taxonomies import ATLAS_5_6, NIST_AI_600_1, OWASP_LLM_2025, wrong_tags

RULES = load_rule_set([]).rules
LOCK = ROOT / "reports/library/rules.lock.json"
REPORT = LOCK.with_name("report.json")
GOOD_AUROC, GOOD_RECALL = 0.85, 0.80
LEAST_WORDS = 15
"""Of a description that says what is watched, against what, and why."""
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


def shortfalls(rule: RuleDocument) -> list[str]:
    """What a shipped rule lacks."""
    verdicts = {test.fires for test in rule.tests.unit if test.todo is None}
    found = {
        f"a description of {LEAST_WORDS} words, and not the title over again": not _says_why(rule),
        "false positives that are named": not _named(rule.false_positives),
        "a unit test that fires": True not in verdicts,
        "a unit test that stays silent": False not in verdicts,
        "a unit test that is unknown": "unknown" not in verdicts,
        "a prompt that it should match": not rule.tests.should_match,
        "a prompt that it should not match": not rule.tests.should_not_match,
        "a calibration": rule.calibrate is None,
    }
    return [what for what, missing in found.items() if missing] + wrong_tags(rule.tags)


def _says_why(rule: RuleDocument) -> bool:
    said = rule.description.replace(rule.title, "")
    return len(said.split()) >= LEAST_WORDS


def _named(false_positives: Sequence[str]) -> bool:
    return all(text.strip(" .").lower() != "unknown" for text in false_positives)


def stable_shortfalls(
    digest: str, locked: LockedRule | None, verdicts: Sequence[CausalVerdict]
) -> list[str]:
    """What the committed audit lacks for a rule of this digest to be stable."""
    if locked is None or locked.digest != digest:
        return ["an audit of the rule as it is"]
    own = next((s for s in locked.scores if s.detector == "rule"), None)
    auroc = own.auroc if own else NotMeasured("")
    recall = own.recall if own else NotMeasured("")
    found = {
        f"AUROC ≥ {GOOD_AUROC}": not _at_least(auroc, GOOD_AUROC),
        f"recall ≥ {GOOD_RECALL}": not _at_least(recall, GOOD_RECALL),
        "a calibration": not isinstance(locked.calibration, Calibration),
        "recall on altered examples": len(locked.robustness) < 2,
        "a confirmation": CausalVerdict.CONFIRMED not in verdicts,
    }
    return [what for what, missing in found.items() if missing]


def _at_least(value: Measured | NotMeasured, bar: float) -> bool:
    return isinstance(value, Measured) and value.value >= bar


def test_the_library_passes_strict_lint() -> None:
    outcome = lint_paths([], format="text", strict=True)
    assert outcome.exit_code is ExitCode.CLEAN, outcome.text


def test_there_are_twenty_rules_in_eight_families() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES) >= 20
    assert len({rule.id.partition(".")[0] for rule in RULES}) >= 8


def test_a_rule_stands_in_the_folder_of_its_family() -> None:
    for path in library_root().glob("*/*.yaml"):
        if path.parent.name in ("suites", "lexicons", "schema"):
            continue
        for rule in load_rule_set([str(path)]).rules:
            assert rule.id.partition(".")[0] == path.parent.name, path


def test_the_examples_audit_six_rules_and_all_of_them() -> None:
    six, every = (
        load_audit(ROOT / f"examples/{name}/audit.yaml") for name in ("smollm2", "library")
    )
    few = load_rule_set(six.document.rules, base=six.folder).rules
    assert len({rule.id.partition(".")[0] for rule in few}) == len(few) == 6
    assert load_rule_set(every.document.rules, base=every.folder).rules == RULES
    assert every.resolve(every.document.sae) == six.resolve(six.document.sae)
    assert every.document.model == six.document.model
    assert every.resolve(every.document.output) == LOCK.parent
    assert every.document.robustness is not None
    assert every.resolve(every.document.store) != six.resolve(six.document.store)


@every_rule
def test_a_shipped_rule_is_complete(rule: RuleDocument) -> None:
    assert shortfalls(rule) == []


@every_rule
def test_a_stable_rule_has_it_all_on_record(rule: RuleDocument) -> None:
    if rule.status is not Status.STABLE:
        return
    assert LOCK.is_file(), f"{rule.id} is stable, and no audit of the library is committed"
    locked = {r.id: r for r in read_lock(LOCK).rules}
    report = read_report(REPORT)
    assert stable_shortfalls(rule_digest(rule), locked.get(rule.id), _verdicts(report, rule)) == []


def _verdicts(report: ReportDocument, rule: RuleDocument) -> list[CausalVerdict]:
    digests = {r.id: r.digest for r in report.audit.lock.rules}
    if digests.get(rule.id) != rule_digest(rule):
        return []
    return [c.verdict for c in report.confirmations(rule.id)]


# The checks themselves: each of them can fail.

GOOD = RULES[0].model_copy(update={"tags": ("owasp-llm:2025:LLM01", "topic:any")})


def _without(verdict: bool | str) -> dict[str, Any]:
    unit = tuple(test for test in GOOD.tests.unit if test.fires is not verdict)
    unit = tuple(test for test in unit if test.fires != verdict or verdict in (True, False))
    return {"tests": GOOD.tests.model_copy(update={"unit": unit})}


def _silenced() -> dict[str, Any]:
    unit = tuple(test.model_copy(update={"todo": "later"}) for test in GOOD.tests.unit)
    return {"tests": GOOD.tests.model_copy(update={"unit": unit})}


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"description": ""}, "a description"),
        ({"description": f"{GOOD.title} {GOOD.title}"}, "a description"),
        ({"false_positives": ("Unknown",)}, "false positives"),
        (_without(True), "that fires"),
        (_without(False), "stays silent"),
        (_without("unknown"), "is unknown"),
        (_silenced(), "that fires"),
        ({"tests": GOOD.tests.model_copy(update={"should_match": ()})}, "should match"),
        ({"tests": GOOD.tests.model_copy(update={"should_not_match": ()})}, "should not match"),
        ({"calibrate": None}, "a calibration"),
        ({"tags": ()}, "no tag"),
        ({"tags": ("topic:privacy",)}, "no tag"),
        ({"tags": ("owasp-llm:2025:LLM11",)}, "no such entry"),
        ({"tags": ("owasp-llm:LLM01",)}, "not of the form"),
        ({"tags": ("owasp-llm:2023:LLM01",)}, "not of the form"),
        ({"tags": ("atlas:AML.T0051",)}, "not of the form"),
        ({"tags": ("atlas:5.6:AML.T9999",)}, "no such entry"),
        ({"tags": ("owasp-llm:2025:LLM01", "nist-ai-rmf:600-1:Data Privacy")}, "no such entry"),
    ],
)
def test_what_a_planted_rule_lacks_is_named(change: dict[str, Any], lacks: str) -> None:
    assert shortfalls(GOOD) == []
    found = shortfalls(GOOD.model_copy(update=change))
    assert any(lacks in text for text in found), found


def test_tags_of_a_taxonomy_are_known_by_number_and_name() -> None:
    tags = ("owasp-llm:2025:LLM02", "atlas:5.6:AML.T0057", "nist-ai-rmf:600-1:data-privacy")
    assert wrong_tags(tags) == []
    assert OWASP_LLM_2025["LLM02"] == "Sensitive Information Disclosure"
    assert ATLAS_5_6["AML.T0057"] == "LLM Data Leakage"
    slugs = {
        name.lower().replace(",", "").replace("and/or", "or") for name in NIST_AI_600_1.values()
    }
    assert {slug.replace(" ", "-") for slug in slugs} == set(NIST_AI_600_1)


STABLE = HARM
CONFIRMED = [CausalVerdict.CONFIRMED]


def _scored(**change: Any) -> LockedRule:
    return replace(STABLE, scores=(replace(STABLE.scores[0], **change), *STABLE.scores[1:]))


@pytest.mark.parametrize(
    ("locked", "verdicts", "lacks"),
    [
        (None, CONFIRMED, ["an audit of the rule as it is"]),
        (replace(STABLE, digest="00" * 32), CONFIRMED, ["an audit of the rule as it is"]),
        (_scored(auroc=Measured(value=0.849, n=99)), CONFIRMED, ["AUROC ≥ 0.85"]),
        (_scored(auroc=NotMeasured("no examples")), CONFIRMED, ["AUROC ≥ 0.85"]),
        (_scored(recall=Measured(value=0.79, n=99)), CONFIRMED, ["recall ≥ 0.8"]),
        (replace(STABLE, scores=()), CONFIRMED, ["AUROC ≥ 0.85", "recall ≥ 0.8"]),
        (
            replace(STABLE, robustness=STABLE.robustness[:1]),
            CONFIRMED,
            ["recall on altered examples"],
        ),
        (
            replace(STABLE, calibration=NotCalibrated(reason="too few", frames=9, needs_more=290)),
            CONFIRMED,
            ["a calibration"],
        ),
        (STABLE, [], ["a confirmation"]),
        (STABLE, [CausalVerdict.SUFFICIENT_ONLY], ["a confirmation"]),
    ],
)
def test_what_a_stable_rule_lacks_is_named(
    locked: LockedRule | None, verdicts: list[CausalVerdict], lacks: list[str]
) -> None:
    assert stable_shortfalls(STABLE.digest, STABLE, CONFIRMED) == []
    assert stable_shortfalls(STABLE.digest, locked, verdicts) == lacks


def test_the_page_names_every_rule_in_its_family_and_no_other() -> None:
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    sections = page.partition("## The families")[2].partition("\n## ")[0].split("\n### ")[1:]
    named = {
        part.partition("\n")[0]: set(re.findall(r"`([a-z]+\.[a-z_]+)`", part)) for part in sections
    }
    shipped: dict[str, set[str]] = {}
    for rule in RULES:
        shipped.setdefault(rule.id.partition(".")[0], set()).add(rule.id)
    assert named == shipped
