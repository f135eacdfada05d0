"""The page of all rules: what it says of a made lock, and that the committed one is up to date."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from auditkit.core.locks import (
    Calibration,
    DetectorScore,
    JointCalibration,
    Lock,
    LockedRule,
    LockedSignal,
    NotCalibrated,
    Pool,
    Selector,
    Status,
    Unit,
    VariantRecall,
)
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.pipeline.rule_files.files import load_rule_documents
from auditkit.report import build_report, to_json
from auditkit.rules import draft_rule, rule_digest, write_lock
from benchmarks.rules_facts import statistics_of, table_facts
from benchmarks.rules_markdown import to_markdown
from benchmarks.rules_summary import kept, summarise
from benchmarks.rules_table import RESULTS, build, main
from benchmarks.rules_wording import down, up
from tests.conftest import ROOT
from tests.locked import make_rule
from tests.report_sample import HARM, sample_audit

COMMITTED = ROOT / "reports/library/rules.lock.json"
MEANS, LOGISTIC = "difference of means", "logistic regression on dense activations"
TEXT = "text only (TF-IDF)"
LONG, ALONE = "in 1,024 tokens of benign text", "1,024 benign tokens alone"


def share(hits: int, n: int) -> Measured:
    return Measured(value=hits / n, n=n)


def scores(
    own: Measure, dense: float, text: float, *, recall: Measure, source: str
) -> tuple[DetectorScore, ...]:
    """The rule, both dense baselines and the text, on 40 positives and 50 negatives."""

    def score(detector: str, auroc: Measure, found: Measure) -> DetectorScore:
        return DetectorScore(
            detector=detector,
            auroc=auroc,
            positives=40,
            negatives=50,
            recall=found,
            source=source,
        )

    def plain(value: float) -> Measured:
        return Measured(value=value, n=90)

    return (
        score("rule", own, recall),
        score(MEANS, plain(dense - 0.05), share(20, 40)),
        score(LOGISTIC, plain(dense), share(34, 40)),
        score(TEXT, plain(text), NotMeasured("40 benign examples cannot certify 0.01")),
    )


def variants(written: int, long: int, alone: int, typos: int = 12) -> tuple[VariantRecall, ...]:
    return (
        VariantRecall(variant="as written", recall=share(written, 20), examples=20),
        VariantRecall(variant="polite frame", recall=share(written, 20), examples=20),
        VariantRecall(
            variant="sentences reordered",
            recall=NotMeasured("no example can be altered so"),
            examples=0,
            skipped=20,
        ),
        VariantRecall(
            variant="typos, 1 letter in 20", recall=share(typos, 18), examples=18, skipped=2
        ),
        VariantRecall(variant=LONG, recall=share(long, 20), examples=20),
        VariantRecall(variant=ALONE, recall=share(alone, 20), examples=20, control=True),
    )


CERTIFICATE = Calibration(
    threshold=0.4,
    target_fpr=0.01,
    confidence=0.95,
    frames=584,
    exceedances=1,
    bound=0.00811,
    suite="benign-chat",
    verified=Measured(value=0.0121, n=580),
)
ELSEWHERE = "another data set: other-harm / other-harmless"
PART = "held-out part of praise / praise-benign"
DIRECTION = LockedSignal(
    name="a",
    selector=Selector.DIRECTION,
    pool=Pool.WEIGHTED,
    unit=Unit.BARE,
    latents=HARM.signals[0].latents[:1],
)
UNRESOLVED = replace(HARM.signals[0], name="a", latents=(), unresolved="no latent scores 0.5")


def made_rules() -> tuple[LockedRule, ...]:
    """A rule that meets every goal, one that misses each by little, and one without figures."""
    good = replace(
        make_rule("rolling_mean_max(a, 24) >= calibrated", signals=(DIRECTION,), id="harm.long"),
        calibration=replace(CERTIFICATE, verified=Measured(value=0.0, n=580)),
        scores=scores(Measured(value=0.9, n=90), 0.92, 0.7, recall=share(32, 40), source=ELSEWHERE),
        robustness=variants(20, 18, 2),
    )
    short = replace(
        make_rule("mean(a) >= calibrated", id="sycophancy.flattery"),
        calibration=CERTIFICATE,
        scores=scores(Measured(value=0.8996, n=90), 0.92, 0.95, recall=share(31, 40), source=PART),
        robustness=variants(16, 14, 0),
        confirm=HARM.confirm,
    )
    bare = replace(
        make_rule("max(a) >= 2", id="triggers.odd", signals=(UNRESOLVED,)),
        status=Status.EXPERIMENTAL,
        calibration=NotCalibrated(reason="the signal has no latents", frames=0, needs_more=None),
        scores=scores(
            NotMeasured("the signal has no latents"),
            0.9,
            0.8,
            recall=NotMeasured("not calibrated"),
            source="",
        ),
    )
    return good, short, bare


def made_lock(*rules: LockedRule) -> Lock:
    own = rules or made_rules()
    joint = JointCalibration(
        rules=tuple(r.id for r in own),
        suite="benign-chat",
        target_fpr=None,
        confidence=0.95,
        prompts=584,
        exceedances=3,
        set_aside=3,
        bound=0.0132,
        verified=Measured(value=0.0089, n=560),
    )
    return replace(sample_audit().lock, rules=own, joint=(joint,))


def facts(*rules: LockedRule) -> dict[str, Any]:
    return table_facts(made_lock(*rules), None, [])


def points(*rules: LockedRule) -> dict[str, dict[str, Any]]:
    return {point["title"]: point for point in summarise(facts(*rules))}


def test_the_page_of_a_made_lock(snapshot: SnapshotAssertion) -> None:
    assert to_markdown(facts()) == snapshot


def test_goals_are_judged_before_rounding() -> None:
    good, short, bare = (r["within"] for r in facts()["rules"])
    assert (good, short, bare) == (True, False, None)
    assert "`sycophancy.flattery` is 0.021 below logistic" in to_markdown(facts())
    found = points()["Recall at the certified rate"]
    assert found["text"].startswith("1 of 2 rules find at least 80%")
    assert found["short"][0].startswith("`sycophancy.flattery` finds 0.77: 0.03 too few")


@pytest.mark.parametrize(
    ("value", "digits", "low", "high"),
    [
        (0.8996, 2, "0.89", "0.90"),
        (0.29, 2, "0.29", "0.29"),
        (-0.0201, 3, "−0.021", "−0.020"),
        (0.99999, 3, "0.999", "1.000"),
        (1.0, 3, "1.000", "1.000"),
        (0.0, 2, "0.00", "0.00"),
    ],
)
def test_ours_is_rounded_down_and_theirs_up(value: float, digits: int, low: str, high: str) -> None:
    assert (down(value, digits), up(value, digits)) == (low, high)


def test_hits_kept_in_long_text_are_those_of_the_examples_found_as_written() -> None:
    good, short, bare = facts()["rules"]
    assert kept(good) == {"value": 0.9, "control": 0.1}
    assert kept(short)["value"] == pytest.approx(14 / 16)
    assert kept(bare) == {"missing": "no variants in the lock"}
    assert (
        "none of the examples"
        in kept(facts(replace(made_rules()[0], robustness=variants(0, 0, 0)))["rules"][0])[
            "missing"
        ]
    )


def test_a_rule_that_fires_on_benign_text_alone_is_said_to() -> None:
    point = points()["In 1,024 tokens of benign text"]
    assert "(1 by rolling_mean_max)" in point["text"]
    assert "1 of these fire on more than 5%" in point["text"]
    assert any("fires on 0.10 of the benign texts alone" in said for said in point["short"])


def test_a_concept_meets_a_goal_where_one_of_its_rules_does() -> None:
    good, short, bare = made_rules()
    found = share(38, 40)
    loud = replace(short, id="harm.long_screen", scores=(replace(short.scores[0], recall=found),))
    weak = replace(good, scores=(replace(good.scores[0], recall=share(1, 40)), *good.scores[1:]))
    assert (
        "In 1 some rule is within 0.02 AUROC, in 1 some rule finds at least 80%, in 1 one"
        in (points(good, short, bare)["By concept"]["text"])
    )
    point = points(weak, loud)["By concept"]
    assert "watch 1 concept," in point["text"]
    assert point["short"] == ["`harm.long`: no one rule meets both"]


def test_a_rate_above_the_target_on_fresh_frames_is_a_loss() -> None:
    point = points()["Benign frames that chose no threshold"]
    assert "1 of 2 rules" in point["text"]
    assert point["short"] == ["`sycophancy.flattery` fires on 1.21%, and its target is 1%"]


def test_every_statistic_of_a_condition_is_named() -> None:
    rule = make_rule(
        "window 16 (max(a) >= 2) or strong", let=(("strong", "2 of (run(a > 1) >= 3)"),)
    )
    assert statistics_of(rule) == ["run", "max"]
    assert statistics_of(make_rule("(a > 1) then (a > 2) within 5 tokens")) == ["then"]


def test_a_signal_that_only_a_causal_test_pushes_is_not_watched() -> None:
    rule = replace(made_rules()[0], signals=(DIRECTION, replace(UNRESOLVED, name="cause")))
    (row,) = facts(rule)["rules"]
    assert [s["name"] for s in row["signals"]] == ["a"]


def test_causal_verdicts_are_those_of_the_same_rule_in_the_report() -> None:
    report, lock = build_report(sample_audit()), sample_audit().lock
    verdicts = {r["rule"]: r["causal"] for r in table_facts(lock, report, [])["rules"]}
    assert verdicts[HARM.id] == {"verdicts": ["confirmed"]}
    changed = replace(lock, rules=(replace(HARM, digest="00" * 32),))
    assert "another revision" in table_facts(changed, report, [])["rules"][0]["causal"]["missing"]
    assert "no report" in table_facts(lock, None, [])["rules"][0]["causal"]["missing"]


def test_every_pair_of_suites_that_chose_a_watched_signal_is_told() -> None:
    shipped = load_rule_documents(["builtin"])
    screen = next(r for r in shipped if len(r.signals) == 2 and "unlike" in r.condition)
    rule = replace(draft_rule(screen), id=screen.id, digest=rule_digest(screen))
    (row,) = table_facts(made_lock(rule), None, shipped)["rules"]
    assert [s["name"] for s in row["signals"]] == list(screen.signals)
    assert len(row["selected_on"]["suites"]) == 2


def test_suites_that_chose_a_rule_are_told_only_of_the_same_rule() -> None:
    shipped = load_rule_documents(["builtin"])
    rule = replace(HARM, id="harm.request")
    (row,) = table_facts(made_lock(rule), None, shipped)["rules"]
    assert row["selected_on"] == {"missing": "the rule file has changed since"}


def test_the_command_writes_page_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "rules.lock.json"
    write_lock(sample_audit().lock, lock)
    (tmp_path / "report.json").write_text(to_json(build_report(sample_audit())))
    out, document = tmp_path / "rules.md", tmp_path / "rules.json"
    assert main([str(lock), "--out", str(out), "--json", str(document)]) == 0
    assert "| `harm.request` |" in out.read_text()
    assert "| confirmed |" in out.read_text()
    read = json.loads(document.read_text())
    assert len(read["summary"]) == len(points())
    assert main([str(tmp_path / "none.json"), "--out", str(out)]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.skipif(not COMMITTED.is_file(), reason="no audit of the library is committed")
def test_the_committed_page_is_that_of_the_committed_lock() -> None:
    text, document = build(COMMITTED, None, ["builtin"])
    assert (RESULTS / "rules.md").read_text(encoding="utf-8") == text
    assert json.loads((RESULTS / "rules.json").read_text()) == json.loads(document)
