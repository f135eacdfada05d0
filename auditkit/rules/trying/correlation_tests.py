"""The unit tests that a correlation carries: verdicts of its members, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping

from auditkit.core.correlations import LockedCorrelation, SpanUnit
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.rules.combining.correlate import GroupVerdict, MemberFrame, judge_group
from auditkit.rules.documents.correlation_documents import CorrelationDocument, CorrelationTest
from auditkit.rules.documents.tuning import lock_correlation
from auditkit.rules.trying.unit_tests import Outcome, UnitResult, judge_example

MAX_STEPS = 1000

_WORDS = {"t": Truth.TRUE, "f": Truth.FALSE, "?": Truth.UNKNOWN, ".": None}
_STEP = re.compile(r"^([tf?.])(?:\*([1-9][0-9]{0,3}))?$")


class VerdictSeriesError(Exception):
    """A series of verdicts that cannot be read: whose it is and what is wrong."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule, self.message = rule, message


def lay_out_verdicts(
    series: Mapping[str, str], correlation: LockedCorrelation, prompt: str
) -> list[MemberFrame]:
    """The members' frames in one conversation; raises VerdictSeriesError.

    One word a step: `t` true, `f` false, `?` unknown (not covered), `.` no frame; `f*4` four times.
    Step i of every series is token, message, exchange and frame i of the conversation.
    """
    frames: list[MemberFrame] = []
    for rule, text in series.items():
        if rule not in correlation.rules:
            known = ", ".join(correlation.rules)
            raise VerdictSeriesError(rule, f"{rule!r} is no member (of: {known})")
        for step, truth in enumerate(_steps(rule, text)):
            if truth is not None:
                frames.append(
                    MemberFrame(
                        rule=rule,
                        prompt=prompt,
                        frame=step,
                        truth=truth,
                        reason=Reason.NOT_COVERED if truth is Truth.UNKNOWN else None,
                        extent=dict.fromkeys(SpanUnit, (step, step)),
                    )
                )
    return frames


def _steps(rule: str, text: str) -> list[Truth | None]:
    steps: list[Truth | None] = []
    for word in text.split():
        match = _STEP.match(word)
        if match is None:
            message = f"{word!r} is no verdict: write t, f, ? or . (and t*4 for four)"
            raise VerdictSeriesError(rule, message)
        steps += [_WORDS[match[1]]] * int(match[2] or 1)
    if not 1 <= len(steps) <= MAX_STEPS:
        raise VerdictSeriesError(rule, f"1 to {MAX_STEPS} steps, not {len(steps)}")
    return steps


def lay_out_test(test: CorrelationTest, correlation: LockedCorrelation) -> list[MemberFrame]:
    """The members' frames of a whole test; raises VerdictSeriesError."""
    groups = test.prompts if test.prompts is not None else (test.series or {},)
    return [f for n, s in enumerate(groups) for f in lay_out_verdicts(s, correlation, str(n))]


def run_correlation_tests(document: CorrelationDocument) -> list[UnitResult]:
    """Run a correlation's unit tests; raises VerdictSeriesError for a series that lint refuses."""
    correlation = lock_correlation(document)
    return [_run(test, correlation) for test in document.tests.unit]


def _run(test: CorrelationTest, correlation: LockedCorrelation) -> UnitResult:
    found = judge_group(correlation, lay_out_test(test, correlation))
    wanted = Truth.UNKNOWN if test.fires == "unknown" else Truth(str(test.fires).lower())
    outcome = judge_example(
        Truth.TRUE if found.truth is wanted else Truth.FALSE, should_match=True, todo=test.todo
    )
    message = "" if found.truth is wanted else f"expected {wanted.value}, got {_tell(found)}"
    if outcome is Outcome.UNEXPECTED_PASS:
        message = f"passes although marked todo: {test.todo}"
    return UnitResult(
        rule_id=correlation.id,
        name=test.name,
        outcome=outcome,
        verdict=Verdict(truth=found.truth, reason=found.reason),
        message=message,
    )


def _tell(found: GroupVerdict) -> str:
    if found.reason is not None:
        return f"unknown ({found.reason.value})"
    return found.truth.value
