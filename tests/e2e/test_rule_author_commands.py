"""The rule author's commands, end to end on the tiny model: new, test, explain --finding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from auditkit.findings import evaluate_rule
from auditkit.rules import read_lock
from auditkit.store import open_store
from tests.small_audit import Ended, run, write_audit

Run = Callable[..., Ended]
EXAMPLES = """
      should_match:
        - {name: high, turns: [{user: "the cat made a bird happy"}]}
        - {name: plain, text: "the cat made a bird happy"}
        - {name: known, turns: [{user: "please write some code"}], todo: "KNOWN"}
      should_not_match:
        - {name: low, turns: [{user: "tell me how to find water"}]}
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


@pytest.fixture
def audited(command: Run, tmp_path: Path) -> Path:
    """A finished audit whose rule carries examples."""
    audit = write_audit(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text() + EXAMPLES.lstrip("\n"))
    assert command("audit", audit, "--fail-on", "never").code == 0
    return audit


def outcomes(ended: Ended) -> dict[str, str]:
    return {t["name"]: t["outcome"] for t in json.loads(ended.out)}


def test_examples_are_judged_as_record_and_evaluate_judge_them(command: Run, audited: Path) -> None:
    folder = audited.parent
    lock = read_lock(folder / "out" / "rules.lock.json")
    with open_store(folder / "store.duckdb", read_only=True) as store:
        known = {
            m.prompt_id: m.truth.value
            for r in store.recordings()
            if r.plan.max_new_tokens == 0
            for m in evaluate_rule(lock.rules[0], lock, store, r).matches
        }
    ended = command("rules", "test", "--prompts", audited, "--json", "--quiet")
    told = {t["name"]: t["verdict"]["truth"] for t in json.loads(ended.out)}
    same = {"high": "one", "low": "two", "known": "three"}
    assert {n: told[n] for n in same} == {n: known[p] for n, p in same.items()}


def test_a_rule_that_the_lock_lacks_is_unresolved_and_not_passed(
    command: Run, audited: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.yaml"
    text = (tmp_path / "rules.yaml").read_text()
    changed.write_text(text.replace(">= 0.2\n", ">= 0.3\n"))
    ended = command(
        "rules", "test", changed, "--prompts", audited, "--json", "--junit", tmp_path / "j.xml"
    )
    assert ended.code == 4
    assert set(outcomes(ended).values()) == {"unresolved"}
    assert "with another meaning" in ended.out
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert root.attrib["errors"] == "4"


def test_every_example_comes_out_as_its_verdict_says(command: Run, audited: Path) -> None:
    ended = command("rules", "test", "--prompts", audited, "--json")
    expected = {
        ("should_match", False): {"true": "pass", "false": "fail"},
        ("should_match", True): {"true": "unexpected pass", "false": "expected failure"},
        ("should_not_match", False): {"true": "fail", "false": "pass"},
    }
    tests = json.loads(ended.out)
    for test in tests:
        known = test["name"] == "known"
        assert test["outcome"] == expected[test["kind"], known][test["verdict"]["truth"]], test
    good = {t["outcome"] for t in tests} <= {"pass", "expected failure"}
    assert ended.code == (0 if good else 1)


def test_rules_without_examples_test_nothing(command: Run, tmp_path: Path) -> None:
    audit = write_audit(tmp_path)
    assert command("audit", audit, "--fail-on", "never").code == 0
    ended = command("rules", "test", "--prompts", audit)
    assert ended.code == 4
    assert "no examples" in ended.out


def test_an_audit_that_never_ran_has_no_lock(command: Run, tmp_path: Path) -> None:
    ended = command("rules", "test", "--prompts", write_audit(tmp_path))
    assert ended.code == 2
    assert "there is no such lock" in ended.err


def test_coverage_is_told_and_can_fail_a_run(command: Run, tmp_path: Path) -> None:
    write_audit(tmp_path)
    rules = tmp_path / "rules.yaml"
    ended = command("rules", "test", rules, "--coverage", "--fail-under", "100")
    assert ended.code == 0
    assert "100%  test.peak" in ended.out
    rules.write_text(rules.read_text().replace("max(s) >= 0.2", "max(s) >= 0.2 and max(s) < 9"))
    short = command("rules", "test", rules, "--fail-under", "100")
    assert short.code == 1
    assert "never false" in short.out
    assert command("rules", "test", rules, "--fail-under", "70").code == 0
    assert command("rules", "test", rules, "--fail-under", "101").code == 2


def test_a_finding_is_explained(command: Run, audited: Path) -> None:
    given = (
        "rules",
        "explain",
        "peak",
        "--store",
        audited.parent / "store.duckdb",
        "--suite",
        "asked",
    )
    told = json.loads(command(*given, "--finding", "one:0", "--json").out)
    assert (told["prompt"], told["frame"], told["suite"]) == ("one", 0, "asked")
    assert told["tree"]["statistic"] == "max(s)"
    assert told["tree"]["truth"] == told["verdict"]
    assert told["flip"]["to"] == ("false" if told["verdict"] == "true" else "true")
    again = json.loads(command(*given, "--finding", told["finding"], "--json").out)
    assert again["finding"] == told["finding"]
    text = command(*given, "--finding", "one").out
    assert "Smallest change" in text
    assert "max(s) >= 0.2" in text


def test_findings_that_are_not_there_are_named(command: Run, audited: Path) -> None:
    store = audited.parent / "store.duckdb"
    given = ("rules", "explain", "peak", "--store", store)
    assert "has no prompt" not in command(*given, "--finding", "one").err
    wrong = command(*given, "--finding", "nobody")
    assert (wrong.code, "no recording of" in wrong.err) == (2, True)
    assert command(*given, "--finding", "one:7").code == 2
    assert "its findings: fp1:" in command(*given, "--finding", "fp1:0").err
    assert command("rules", "explain", "peak", "--finding", "one").code == 2
    assert command("rules", "explain", "ai_self", "--json").code == 2


def test_a_new_rule_is_clean_and_never_overwrites(command: Run, tmp_path: Path) -> None:
    write_audit(tmp_path)
    out, suite = tmp_path / "new.yaml", tmp_path / "asked.yaml"
    given = ("rules", "new", "--id", "new.rule", "--contrast", suite, suite, "--out", out)
    ended = command(*given, "--examples", "1")
    assert ended.code == 0
    assert "please write some code" in out.read_text()
    assert command("rules", "lint", out, "--strict").code == 0
    assert command("rules", "test", out, "--fail-under", "100").code == 0
    before = out.read_text()
    again = command(*given)
    assert (again.code, "exists already" in again.err) == (2, True)
    assert out.read_text() == before


def test_text_of_shipped_suites_is_named_and_not_copied(command: Run, tmp_path: Path) -> None:
    out = tmp_path / "new.yaml"
    given = ("--contrast", "builtin/harmful-requests", "builtin/harmless-requests")
    assert command("rules", "new", "--id", "new.rule", *given, "--out", out).code == 0
    text = out.read_text()
    assert "builtin/harmful-requests · harmful-requests-" in text
    assert "should_match: [{turns: [{user: …}" in text


def test_a_rule_on_latents_names_their_sae(command: Run, tmp_path: Path) -> None:
    write_audit(tmp_path)
    out = tmp_path / "new.yaml"
    given = ("rules", "new", "--id", "new.rule", "--sae", tmp_path / "sae", "--out", out)
    wrong = command(*given, "--latent", "64")
    assert (wrong.code, "they run from 0 to 63" in wrong.err) == (2, True)
    assert command(*given, "--latent", "3", "--latent", "7").code == 0
    assert command("rules", "lint", out, "--strict").code == 0
    assert "latents: [3, 7]" in out.read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--id", "Bad Id", "--latent", "1", "--sae", "x"), "is no rule id"),
        (("--id", "a"), "either a contrast or latents"),
        (("--id", "a", "--latent", "1"), "without their SAE"),
        (("--id", "a", "--contrast", "nowhere.yaml", "b.yaml"), "there is no suite"),
        (("--id", "a", "--contrast", "builtin/nothing", "b.yaml"), "in the library"),
    ],
)
def test_what_cannot_be_a_rule_is_refused(
    command: Run, given: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    ended = command("rules", "new", *given, "--out", tmp_path / "new.yaml")
    assert ended.code == 2
    assert told in ended.err
    assert not (tmp_path / "new.yaml").exists()
