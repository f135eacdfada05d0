"""Results of rules' tests as JUnit XML and as exit codes."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import ExitCode
from auditkit.core.verdicts import Truth, Verdict
from auditkit.pipeline.rule_files.junit import render_junit
from auditkit.pipeline.rule_files.test_results import RuleTest, exit_code_of_tests
from auditkit.rules import Outcome

ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testcase"},
    "testcase": {"failure", "error", "skipped"},
}


def made(outcome: Outcome, *, rule: str = "a.b", name: str = "t", message: str = "") -> RuleTest:
    return RuleTest(
        rule_id=rule,
        kind="unit",
        name=name,
        outcome=outcome,
        verdict=Verdict(truth=Truth.FALSE),
        message=message,
        seconds=0.25,
    )


def check_schema(element: ElementTree.Element) -> None:
    """The elements and attributes that the common JUnit schemas know, and counts that are right."""
    assert set(element.attrib) <= ATTRIBUTES[element.tag]
    assert "name" in element.attrib or element.tag not in ("testsuite", "testcase")
    for child in element:
        assert child.tag in CHILDREN[element.tag]
        check_schema(child)
    if "tests" in element.attrib:
        assert int(element.attrib["tests"]) == len(list(element.iter("testcase")))
        for attribute, tag in (("failures", "failure"), ("errors", "error")):
            assert int(element.attrib[attribute]) == len(list(element.iter(tag)))


def test_every_outcome_has_its_element() -> None:
    text = render_junit([made(o, message=f"because {o.value}") for o in Outcome])
    root = ElementTree.fromstring(text)
    check_schema(root)
    found = {
        case[0].attrib["message"].removeprefix("because "): case[0].tag
        for case in root.iter("testcase")
        if len(case)
    }
    assert found == {
        "fail": "failure",
        "unexpected pass": "failure",
        "unresolved": "error",
        "expected failure": "skipped",
    }
    assert root.attrib["time"] == "1.250000"


def test_rules_are_suites() -> None:
    tests = [made(Outcome.PASS, rule=r) for r in ("a", "b", "a")]
    root = ElementTree.fromstring(render_junit(tests))
    assert [(s.attrib["name"], s.attrib["tests"]) for s in root] == [("a", "2"), ("b", "1")]


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text(), st.sampled_from(list(Outcome)))
def test_hostile_names_stay_well_formed(name: str, message: str, outcome: Outcome) -> None:
    hostile = [made(outcome, rule=name, name=message, message=name + "]]>\x00\x1b[2J\ufffe")]
    check_schema(ElementTree.fromstring(render_junit(hostile).encode("utf-8")))


def test_no_tests_at_all_are_still_a_document() -> None:
    check_schema(ElementTree.fromstring(render_junit([])))


P, F, X, U, Q = (
    Outcome.PASS,
    Outcome.FAIL,
    Outcome.EXPECTED_FAILURE,
    Outcome.UNEXPECTED_PASS,
    Outcome.UNRESOLVED,
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], ExitCode.NOTHING_EVALUATED),
        ([P, X], ExitCode.CLEAN),
        ([P, F], ExitCode.FINDINGS),
        ([P, U], ExitCode.FINDINGS),
        ([P, Q], ExitCode.FINDINGS),
        ([Q, Q], ExitCode.NOTHING_EVALUATED),
    ],
)
def test_how_a_run_ends(outcomes: list[Outcome], code: ExitCode) -> None:
    assert exit_code_of_tests([made(o) for o in outcomes]) is code
