"""What is wrong with one correlation, seen by itself."""

from __future__ import annotations

from auditkit.core.correlations import (
    CorrelationType,
    Distinct,
    GroupBy,
    LockedCorrelation,
    SpanUnit,
)
from auditkit.core.standing import Status
from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.correlation_documents import CorrelationDocument, CorrelationTest
from auditkit.rules.documents.tuning import lock_correlation
from auditkit.rules.trying.correlation_tests import VerdictSeriesError, lay_out_verdicts


def lint_correlation(document: CorrelationDocument, number: int, reporter: Reporter) -> None:
    """Report everything that is wrong with correlation `number` of a file."""
    before = len(reporter.diagnostics)
    correlation = lock_correlation(document)
    _check_members(correlation, number, reporter)
    _check_size(correlation, number, reporter)
    _check_group(correlation, number, reporter)
    if not reporter.has_errors_from(before):
        _check_tests(document, correlation, number, reporter)
    if document.status is Status.STABLE and not document.tests.unit:
        at = ("correlations", number, "status")
        reporter.add("AK090", "a stable correlation has tests", at)


def _check_members(c: LockedCorrelation, number: int, reporter: Reporter) -> None:
    at = ("correlations", number, "of")
    absent = [m.rule for m in c.members if m.absent]
    if not c.present:
        help = "absent members are looked for beside one that is there"
        reporter.add("AK039", "every member is absent: nothing can match", at, key=True, help=help)
    for index, member in enumerate(c.members):
        if member.rule in c.present and member.rule in absent:
            if member.absent:
                message = f"{member.rule!r} must match and must not"
                reporter.add("AK039", message, (*at, index))
            continue
        again = member in c.members[:index]
        if again and not (c.type is CorrelationType.SEQUENCE and not member.absent):
            reporter.add("AK035", f"the member {member.rule!r} stands here twice", (*at, index))


def _check_size(c: LockedCorrelation, number: int, reporter: Reporter) -> None:
    at = ("correlations", number, "at_least")
    if c.at_least is None:
        return
    if c.distinct is Distinct.RULE and c.at_least > len(c.present):
        message = f"{c.at_least} of {len(c.present)} rules is always false"
        reporter.add("AK039", message, at)
    if c.distinct is Distinct.RULE and len(c.present) == 1:
        message = "one rule is one rule, however often it matches"
        reporter.add("AK039", message, ("correlations", number, "distinct"))
    if c.distinct is Distinct.PROMPT and c.group_by is GroupBy.CONVERSATION:
        message = "a conversation is one prompt: group by label, tag, suite or recording"
        reporter.add("AK049", message, ("correlations", number, "distinct"))
    one_rule = len(c.present) == 1 and c.distinct is None
    in_frames = c.within is not None and c.within.unit is SpanUnit.FRAMES
    if c.within is not None and in_frames and one_rule and c.at_least > c.within.count:
        message = f"{c.at_least} matches in {c.within.count} frames is always false"
        reporter.add("AK039", message, at)


def _check_group(c: LockedCorrelation, number: int, reporter: Reporter) -> None:
    if c.within is None or c.group_by is GroupBy.CONVERSATION:
        return
    message = f"'within' measures a conversation, and this groups by {c.group_by.value}"
    help = "leave 'within' out, or group_by: conversation"
    reporter.add("AK049", message, ("correlations", number, "within"), key=True, help=help)


def _check_tests(
    document: CorrelationDocument, c: LockedCorrelation, number: int, reporter: Reporter
) -> None:
    tests = document.tests.unit
    for index, test in enumerate(tests):
        at = ("correlations", number, "tests", "unit", index)
        _check_series(test, c, at, reporter)
        if test.name in [t.name for t in tests[:index]]:
            reporter.add("AK027", f"the name {test.name!r} stands twice", (*at, "name"))
    at = ("correlations", number, "tests")
    place = at if at in reporter.source.keys else ("correlations", number, "id")
    if not any(t.fires is False for t in tests):
        message = "no test in which this correlation stays silent"
        reporter.add("AK080", message, place, key=True, help="a unit test with fires: false")
    if not any(t.fires is True for t in tests):
        message = "no test in which this correlation fires"
        reporter.add("AK082", message, place, key=True, help="a unit test with fires: true")


def _check_series(
    test: CorrelationTest, c: LockedCorrelation, at: tuple[str | int, ...], reporter: Reporter
) -> None:
    if test.prompts is not None and c.group_by is GroupBy.CONVERSATION:
        message = "'prompts' in a test of one conversation: write 'series'"
        reporter.add("AK083", message, (*at, "prompts"), key=True)
        return
    groups = [((*at, "series"), test.series)] if test.series is not None else []
    groups += [((*at, "prompts", n), s) for n, s in enumerate(test.prompts or ())]
    for place, series in groups:
        try:
            lay_out_verdicts(series, c, "")
        except VerdictSeriesError as error:
            reporter.add("AK083", error.message, (*place, error.rule))
