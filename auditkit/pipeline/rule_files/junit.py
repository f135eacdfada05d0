"""Test results as JUnit XML, as CI systems read it: a suite per rule, a case per test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from auditkit.pipeline.rule_files.test_results import RuleTest
from auditkit.report.visible import visible
from auditkit.rules import Outcome

# What XML 1.0 cannot hold, besides the controls that `visible` spells out.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(tests: Sequence[RuleTest]) -> str:
    """JUnit XML. A failure is a `failure`, an unresolved test an `error`, an expected failure is
    `skipped` with its reason."""
    by_rule: dict[str, list[RuleTest]] = {}
    for test in tests:
        by_rule.setdefault(test.rule_id, []).append(test)
    root = ElementTree.Element("testsuites", {"name": "auditkit rules test", **_counts(tests)})
    for rule, own in by_rule.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": _safe(rule), **_counts(own)})
        for test in own:
            _add_case(suite, test)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(tests: Sequence[RuleTest]) -> dict[str, str]:
    kinds = [_ELEMENTS.get(t.outcome) for t in tests]
    return {
        "tests": str(len(tests)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": f"{sum(t.seconds or 0.0 for t in tests):.6f}",
    }


def _add_case(suite: ElementTree.Element, test: RuleTest) -> None:
    name = test.name if test.kind == "unit" else f"{test.kind}: {test.name}"
    case = ElementTree.SubElement(
        suite, "testcase", name=_safe(name), classname=_safe(test.rule_id)
    )
    if test.seconds is not None:
        case.set("time", f"{test.seconds:.6f}")
    element = _ELEMENTS.get(test.outcome)
    if element is None:
        return
    told = ElementTree.SubElement(case, element, message=_safe(test.message))
    if element != "skipped":
        told.set("type", test.outcome.value)
        told.text = _safe(test.message)


_ELEMENTS = {
    Outcome.FAIL: "failure",
    Outcome.UNEXPECTED_PASS: "failure",
    Outcome.UNRESOLVED: "error",
    Outcome.EXPECTED_FAILURE: "skipped",
}


def _safe(text: str) -> str:
    return _NO_XML.sub("\ufffd", visible(text))
