"""Filters and correlations: reading, lint with places, ignores, digests, locks, unit tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from auditkit.core.errors import DocumentError
from auditkit.rules import (
    RuleFile,
    explain_correlation,
    explain_filter,
    lint_blocking,
    lint_rules,
    load_rules,
    lock_correlation,
    lock_filter,
    offline_parts,
    parse_lock,
    read_rules,
    render_lock,
    run_correlation_tests,
)
from auditkit.rules.documents.patterns import PatternError, compile_pattern
from auditkit.rules.trying.correlation_tests import VerdictSeriesError
from auditkit.rules.trying.unit_tests import Outcome
from tests.report_sample import sample_audit
from tests.unit.rules.rule_texts import GOOD

TODAY = date(2026, 11, 23)

FILTER = """\
format: auditkit-rules/1
filters:
  - id: refusal.quoted
    rev: 1
    title: Quoted refusals
    rules: ["refusal.*"]
    reason: A character refuses, not the assistant.
    author: a.reviewer
    date: 2026-01-15
    expires: 2027-01-01
    exceptions:
      - {tags: ["topic:fiction"], roles: [user]}
      - {text: "(?i)said no"}
"""
CORRELATION = """\
format: auditkit-rules/1
correlations:
  - id: refusal.often
    rev: 1
    title: Suppressed again and again
    status: test
    severity: high
    false_positives: [Unknown]
    type: count
    of: [{rule: refusal.suppressed}]
    at_least: 2
    within: 3 exchanges
    tests:
      unit:
        - {name: twice, series: {refusal.suppressed: "t f t"}, fires: true}
        - {name: apart, series: {refusal.suppressed: "t f*2 t"}, fires: false}
"""
SECOND = GOOD.replace("refusal.suppressed", "refusal.other").replace("asked and not", "asked and")


def files(*texts: str) -> list[RuleFile]:
    return [read_rules(text, f"{n}.yaml") for n, text in enumerate(texts)]


def lint(*texts: str) -> list[str]:
    return [d.code for d in lint_rules(files(*texts), today=TODAY)]


def test_files_of_filters_and_correlations_are_sound() -> None:
    assert lint(GOOD, FILTER, CORRELATION) == []
    (one,) = files(FILTER)
    assert one.rules == ()
    assert [f.id for f in one.filters] == ["refusal.quoted"]


def test_all_parts_may_stand_in_one_file() -> None:
    whole = GOOD + FILTER.split("1\n", 1)[1] + CORRELATION.split("1\n", 1)[1]
    (file,) = files(whole)
    assert lint(whole) == []
    assert (len(file.rules), len(file.filters), len(file.correlations)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "code", "marked"),
    [
        ('["refusal.*"]', '["refusl.*"]', "AK037", '"refusl.*"'),
        ("A character refuses, not the assistant.", "TODO", "AK093", "TODO"),
        ("a.reviewer", "'-'", "AK093", "'-'"),
        ("2026-01-15", "2026-02-30", "AK097", "2026-02-30"),
        ("expires: 2027-01-01", "expires: 2026-01-15", "AK097", "2026-01-15"),
        ("expires: 2027-01-01", "expires: 2026-11-23", "AK096", "2026-11-23"),
        ("2026-01-15", "15.1.2026", "AK013", "15.1.2026"),
        ('text: "(?i)said no"', 'text: "said (no"', "AK020", '"said (no"'),
        ('text: "(?i)said no"', 'text: "(?<=a)no"', "AK020", '"(?<=a)no"'),
        ('text: "(?i)said no"', 'text: "(said no)*"', "AK038", '"(said no)*"'),
        ("roles: [user]", "roles: [tool]", "AK038", "roles"),
        ('{text: "(?i)said no"}', "{rule: refusal.nowhere}", "AK037", "refusal.nowhere"),
        ('{text: "(?i)said no"}', "{rule: refusal.suppressed}", "AK038", "refusal.suppressed"),
        ('{text: "(?i)said no"}', "{}", "AK013", "{}"),
        ('{text: "(?i)said no"}', "{condition: a}", "AK010", "condition"),
        ("    reason: A character refuses, not the assistant.\n", "", "AK011", "id: "),
    ],
)
def test_what_is_wrong_with_a_filter_is_told_with_its_place(old, new, code, marked) -> None:
    assert FILTER.count(old) == 1
    found = lint_rules(files(GOOD, FILTER.replace(old, new)), today=TODAY)
    assert [d.code for d in found][:1] == [code], [d.render() for d in found]
    span = found[0].span
    assert span.path == "1.yaml"
    assert span.source_line[span.column - 1 :].startswith(marked)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("refusal.suppressed}]", "refusal.supressed}]", "AK037"),
        ("at_least: 2", "at_least: 4\n    distinct: rule", "AK039"),
        ("at_least: 2\n    within: 3 exchanges", "at_least: 4\n    within: 3 frames", "AK039"),
        ("of: [{rule: ref", "of: [{rule: refusal.suppressed}, {rule: ref", "AK035"),
        ("suppressed}]", "suppressed}, {rule: refusal.suppressed, absent: true}]", "AK039"),
        ("[{rule: refusal.suppressed}]", "[{rule: refusal.suppressed, absent: true}]", "AK039"),
        ("at_least: 2", "at_least: 2\n    distinct: prompt", "AK049"),
        ("within: 3", "group_by: suite\n    within: 3", "AK049"),
        ("fires: true", "fires: false", "AK082"),
        ('"t f t"', '"t x t"', "AK083"),
        ('{refusal.suppressed: "t f t"}', "{other: t}", "AK083"),
        ("name: apart", "name: twice", "AK027"),
        ("count", "sequence", "AK010"),
        ("count", "counting", "AK013"),
        ("3 exchanges", "3 lines", "AK013"),
        ("id: refusal.often", "id: refusal.suppressed", "AK024"),
    ],
)
def test_what_is_wrong_with_a_correlation_is_told(old: str, new: str, code: str) -> None:
    assert old in CORRELATION
    assert code in lint(GOOD, CORRELATION.replace(old, new, 1))


def test_a_sequence_of_conversations_and_frames_that_differ_are_refused() -> None:
    whole = SECOND.replace("frame: exchange", "frame: conversation")
    both = "of: [{rule: refusal.suppressed}, {rule: refusal.other}]"
    text = CORRELATION.replace("of: [{rule: refusal.suppressed}]", both)
    sequence = text.replace("count", "sequence").replace("    at_least: 2\n", "")
    assert "AK049" in lint(GOOD, whole, sequence)
    frames = text.replace("3 exchanges", "3 frames")
    assert lint(GOOD, SECOND, frames) == []
    assert lint(GOOD, whole, frames) == ["AK049"]
    other = FILTER.replace('{text: "(?i)said no"}', "{rule: refusal.other}")
    other = other.replace('"refusal.*"', "refusal.suppressed")
    assert lint(GOOD, SECOND, other) == []
    assert lint(GOOD, whole, other) == ["AK049"]


def test_an_ignore_works_on_what_shows_only_among_files() -> None:
    known = FILTER.replace("expires: 2027-01-01", "expires: 2026-02-01")
    assert lint(GOOD, known) == ["AK096"]
    silenced = known.replace("2026-02-01", "2026-02-01  # auditkit: ignore=AK096 renewed soon")
    assert lint(GOOD, silenced) == []
    alone = FILTER.replace(
        '["refusal.*"]', '["refusal.*"]  # auditkit: ignore=AK037 rules elsewhere'
    )
    assert lint(alone) == []
    assert lint(GOOD, alone) == ["AK095"]
    series = CORRELATION.replace("fires: true}", "fires: false}").replace(
        "    tests:", "    tests:  # auditkit: ignore=AK082 it never fires"
    )
    assert lint(GOOD, series) == []


BY_TOPIC = CORRELATION.replace("within: 3 exchanges", "group_by: tag:topic")
ALONE = FILTER.replace('{tags: ["topic:fiction"], roles: [user]}', "{roles: [user]}")


def test_a_monitor_says_what_only_an_audit_decides() -> None:
    def codes(*texts: str) -> list[str]:
        return [d.code for d in lint_blocking(files(GOOD, *texts))][1:]

    assert codes(FILTER, BY_TOPIC) == ["AK071", "AK072"]
    assert codes(ALONE, CORRELATION) == []
    lock = replace(
        sample_audit().lock,
        filters=tuple(
            lock_filter(files(text)[0].filters[0], ["refusal.suppressed"])
            for text in (FILTER, ALONE)
        ),
        correlations=tuple(
            lock_correlation(files(text)[0].correlations[0]) for text in (BY_TOPIC, CORRELATION)
        ),
    )
    told = offline_parts(lock)
    assert len(told) == 2
    assert "correlation refusal.often is not watched: it groups prompts by tag:topic" in told[0]
    assert "filter refusal.quoted asks for a prompt's suite, label, tag or id" in told[1]
    assert offline_parts(sample_audit().lock) == ()


def test_errors_among_files_stop_loading(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(FILTER, encoding="utf-8")
    with pytest.raises(DocumentError, match="AK037 'refusal"):
        load_rules([tmp_path])
    (tmp_path / "b.yaml").write_text(GOOD, encoding="utf-8")
    assert [len(f.rules) for f in load_rules([tmp_path])] == [0, 1]


def test_a_file_without_any_part_is_refused() -> None:
    (file,) = files("format: auditkit-rules/1\n")
    (found,) = file.diagnostics
    assert found.code == "AK013"
    assert "'rules', 'filters' or 'correlations'" in found.message


def test_digests_follow_the_meaning_and_not_the_prose() -> None:
    def digests(text: str) -> str:
        (file,) = files(text)
        parts = [lock_filter(f, []) for f in file.filters]
        return "".join(p.digest for p in [*parts, *map(lock_correlation, file.correlations)])

    for text, prose, meaning in (
        (FILTER, ("Quoted refusals", "Others"), ("said no", "says no")),
        (CORRELATION, ("again and again", "often"), ("3 exchanges", "4 exchanges")),
    ):
        assert digests(text) == digests(text.replace(*prose))
        assert digests(text) != digests(text.replace(*meaning))


def test_a_lock_carries_both_and_comes_back_the_same() -> None:
    tuning = lock_filter(files(FILTER)[0].filters[0], ["refusal.suppressed", "other"])
    assert tuning.rules == ("refusal.suppressed",)
    combined = lock_correlation(files(CORRELATION)[0].correlations[0])
    lock = replace(sample_audit().lock, filters=(tuning,), correlations=(combined,))
    assert parse_lock(render_lock(lock)) == lock
    assert tuning.expired(date(2027, 1, 1))
    assert not tuning.expired(date(2026, 12, 31))


def test_an_older_lock_without_them_is_still_read() -> None:
    lock = sample_audit().lock
    text = render_lock(lock).replace(',\n "filters": [],\n "correlations": []', "")
    assert '"filters"' not in text
    assert parse_lock(text) == lock


def test_unit_tests_tell_what_came_instead() -> None:
    wrong = CORRELATION.replace('"t f t"}, fires: true', '"t ? f"}, fires: true')
    (document,) = files(wrong)[0].correlations
    first, second = run_correlation_tests(document)
    assert first.outcome is Outcome.FAIL
    assert first.message == "expected true, got unknown (not covered)"
    assert second.outcome is Outcome.PASS
    (todo,) = files(wrong.replace("fires: true", "fires: true, todo: later"))[0].correlations
    assert run_correlation_tests(todo)[0].outcome is Outcome.EXPECTED_FAILURE
    (unread,) = files(CORRELATION.replace('"t f t"', '"t*9999"'))[0].correlations
    with pytest.raises(VerdictSeriesError, match="1 to 1000 steps"):
        run_correlation_tests(unread)


def test_patterns_are_bounded() -> None:
    slow = compile_pattern("(a|aa)+$")
    assert not slow("a" * 100_000 + "b")
    assert not compile_pattern("z")("a" * 1_000_000 + "z")
    assert compile_pattern("\ufffd|\\?")("\ud800")
    for bad in ("a{1000}{1000}", "(?=a)", "\\1", "\ud800"):
        with pytest.raises(PatternError):
            compile_pattern(bad)


def test_what_is_explained_names_every_part() -> None:
    told = explain_filter(lock_filter(files(FILTER)[0].filters[0], ["refusal.suppressed"]))
    assert "has the tag topic:fiction and the firing token is said by user" in told
    assert "until 2027-01-01 (a.reviewer)" in told
    told = explain_correlation(lock_correlation(files(CORRELATION)[0].correlations[0]))
    assert "at least 2 frames match, of refusal.suppressed within 3 exchanges" in told
