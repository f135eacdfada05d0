"""The document: counts, order, and sentences that claim no more than the numbers do."""

from __future__ import annotations

import dataclasses

import pytest

from auditkit.core.findings import FindingState
from auditkit.core.locks import Calibration, Severity
from auditkit.core.measured import Interval, Measured, NotMeasured
from auditkit.report import ReportDocument, build_report, to_json
from auditkit.report.facts import notes_of
from auditkit.report.figures import area, figure, measure, p_value, percent, rate
from auditkit.report.visible import escape_hidden, one_line, visible
from auditkit.report.wording import best_detector, false_positives_in_short
from tests.report_sample import CONFIRMED, HARM, sample_audit, score


def test_the_headline_counts_rules_and_names_the_gravest_that_fired() -> None:
    head = build_report(sample_audit()).headline
    assert (head.rules, head.fired, head.silent, head.unknown) == (3, 1, 1, 1)
    assert head.worst is Severity.HIGH  # the critical rule stayed silent
    assert head.untested == ("injection.override",)
    assert (head.frames, head.unknown_frames, head.prompts) == (180, 62, 60)


def test_rules_come_fired_first_then_unknown_then_silent() -> None:
    states = [r.state for r in build_report(sample_audit()).results]
    assert states == [FindingState.FIRED, FindingState.UNKNOWN, FindingState.SILENT]


def test_a_silent_rule_is_never_called_absent() -> None:
    silent = build_report(sample_audit()).results[2]
    assert "That is not absence." in silent.sentence
    assert "may still be up to" in silent.sentence


def test_a_baseline_that_wins_is_named() -> None:
    harm, _, leak = build_report(sample_audit()).results
    assert leak.beaten_by[0] == "text only (TF-IDF)"
    assert "a plain baseline, text only (TF-IDF) (and 2 more), does better" in leak.detection
    assert harm.beaten_by == ()
    assert harm.detection.endswith("no baseline does better.")


def test_a_tie_is_the_rules() -> None:
    assert best_detector((score("other", 0.9, 0.8, 1), score("rule", 0.9, 0.8, 1))) == "rule"


def test_a_rule_without_a_finding_is_unknown() -> None:
    audit = dataclasses.replace(sample_audit(), findings=())
    assert {r.state for r in build_report(audit).results} == {FindingState.UNKNOWN}


def test_json_reads_back_to_an_equal_document() -> None:
    doc = build_report(sample_audit())
    assert ReportDocument.model_validate_json(to_json(doc)) == doc
    assert to_json(build_report(sample_audit())) == to_json(doc)


def test_json_hides_nothing_and_loses_nothing() -> None:
    text = to_json(build_report(sample_audit()))
    assert "\u202e" not in text
    assert "\\u202e" in text
    assert "مرحبا" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.9534, "0.953"), (-1.87, "−1.87"), (1234.5, "1,234"), (2.4e-7, "2.40e−7")],
)
def test_figures_have_three_significant_digits(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_rates_are_percentages_with_their_interval() -> None:
    value = Measured(value=0.3833, n=60, interval=Interval(low=0.26, high=0.517))
    assert rate(value) == "38% (95% interval 26%–52%)"
    assert [percent(x) for x in (0, 0.0032, 0.062, 0.999, 1)] == [
        "0%",
        "0.32%",
        "6.2%",
        "99.90%",
        "100%",
    ]


def test_missing_is_never_a_number() -> None:
    assert measure(NotMeasured("too few prompts")) == "not measured: too few prompts"
    assert rate(NotMeasured("no frame")) == "not measured: no frame"


def test_small_p_values_are_bounded_not_rounded_to_zero() -> None:
    assert [p_value(p) for p in (0.0, 0.0004, 0.005, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.005",
        "1.000",
    ]


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u2066", "\u200b", "\x1b", "\U000e0041", "\ud800", "\x85"]
)
def test_hidden_characters_are_written_out(hidden: str) -> None:
    assert visible(f"a{hidden}b") == f"a⟨U+{ord(hidden):04X}⟩b"
    assert hidden not in escape_hidden(f'"{hidden}"')


def test_ordinary_text_of_any_script_is_left_alone() -> None:
    text = "naïve مرحبا 你好 👩‍👩‍👧\n\tcode"
    assert visible(text) == text
    assert one_line("a\r\nb") == "a⏎b"


def test_documents_find_a_rule_or_raise() -> None:
    doc = build_report(sample_audit())
    assert doc.rule("harm.request") == HARM
    with pytest.raises(KeyError, match="none"):
        doc.rule("none")


def test_an_auroc_below_one_is_never_rounded_to_one() -> None:
    assert [area(v) for v in (0.743, 0.9995, 0.99999, 1.0)] == [
        "0.743",
        "0.9995",
        "0.9999",
        "1.000",
    ]


def test_fresh_frames_above_the_target_are_said_against_the_certificate() -> None:
    assert isinstance(HARM.calibration, Calibration)

    def said(low: float, value: float) -> str:
        fresh = Measured(value=value, n=332, interval=Interval(low=low, high=0.05))
        return false_positives_in_short(dataclasses.replace(HARM.calibration, verified=fresh))

    assert said(0.0, 0.004).endswith("5.0%)")
    assert said(0.007, 0.018).endswith("above the target, though the interval includes it")
    assert said(0.012, 0.018).endswith("so the certificate does not hold there")


def test_notes_that_latents_share_are_said_once() -> None:
    notes = ("latent 3: few controls", "doses cut", "latent 5: few controls", "latent 9: none")
    grouped = notes_of(dataclasses.replace(CONFIRMED, notes=notes))
    assert grouped == ["latents 3, 5: few controls", "doses cut", "latent 9: none"]


def test_the_report_says_first_what_it_claims_and_counts_beaten_rules() -> None:
    document = build_report(sample_audit())
    assert "three things about each of 3 rules and nothing else" in document.says
    assert (document.headline.scored, document.headline.beaten) == (2, 1)
