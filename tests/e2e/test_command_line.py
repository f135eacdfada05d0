"""Commands that read: their output says what it should, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.small_audit import Ended, run, write_audit

Run = Callable[..., Ended]
COMMANDS = [
    ("audit",),
    ("record",),
    ("report",),
    ("query",),
    ("monitor",),
    ("serve",),
    *(("rules", verb) for verb in ("lint", "test", "explain", "bind", "list", "schema", "new")),
    *(("features", verb) for verb in ("top", "show", "contrast", "cooccur", "search")),
    *(("labels", verb) for verb in ("import", "show")),
    *(("sae", verb) for verb in ("train", "sweep", "compare", "score", "lookup", "absorption")),
    *(("sae", verb) for verb in ("splitting", "import", "export", "inspect", "gate")),
    *(("suites", verb) for verb in ("list", "import")),
]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_examples(command: Run, words: tuple[str, ...]) -> None:
    ended = command(*words, "--help")
    assert ended.code == 0
    assert "Examples" in ended.out


def test_the_shipped_rules_are_clean_and_pass_their_tests(command: Run) -> None:
    assert command("rules", "lint", "--strict").code == 0
    ended = command("rules", "test", "--json")
    assert ended.code == 0
    results = json.loads(ended.out)
    assert len(results) >= 24
    assert {r["outcome"] for r in results} == {"pass"}


def test_at_least_six_rules_ship(command: Run) -> None:
    rows = json.loads(command("rules", "list", "--json").out)
    assert len(rows) >= 6
    assert all(row["unit tests"] >= 2 for row in rows)


def test_a_rule_is_explained_in_words(command: Run) -> None:
    ended = command("rules", "explain", "ai_self")
    assert ended.code == 0
    assert "Fires where" in ended.out
    assert command("rules", "explain", "nonsense").code == 2


def test_the_printed_schema_is_the_shipped_one(command: Run) -> None:
    shipped = (ROOT / "rules" / "schema" / "rules.v1.json").read_text()
    assert command("rules", "schema").out.strip() == shipped.strip()


def test_suites_are_listed_and_imported(command: Run, tmp_path: Path) -> None:
    assert "builtin/benign-chat" in command("suites", "list").out
    (tmp_path / "in.csv").write_text("prompt,label\nhello there,greeting\ngoodbye,parting\n")
    given = ("--name", "mine", "--source", "us", "--licence", "none", "--label", "label")
    out = tmp_path / "mine.yaml"
    assert command("suites", "import", tmp_path / "in.csv", "--out", out, *given).code == 0
    assert "greeting" in out.read_text()
    assert command("suites", "import", tmp_path / "in.csv", "--out", out, *given).code == 2


def test_the_example_sae_says_what_it_is(command: Run) -> None:
    ended = command("sae", "inspect", ROOT / "examples" / "smollm2" / "sae", "--json")
    assert ended.code == 0
    identity = json.loads(ended.out)["identity"]
    assert (identity["architecture"], identity["k"], identity["d_in"]) == ("topk", 32, 576)


def test_binding_without_recordings_says_what_to_record(command: Run, tmp_path: Path) -> None:
    audit = write_audit(tmp_path)
    made = command("audit", audit, "--fail-on", "never")
    assert made.code == 0
    ended = command(
        "rules", "bind", "--sae", tmp_path / "sae", "--store", tmp_path / "store.duckdb",
        "--out", tmp_path / "lock.json",
    )  # fmt: skip
    assert ended.code == 2
    assert "auditkit record builtin/" in ended.err


def test_a_report_is_rendered_again_to_the_same_bytes(command: Run, tmp_path: Path) -> None:
    sample = ROOT / "reports" / "smollm2"
    ended = command("report", str(sample / "report.json"), "--out", str(tmp_path / "again"))
    assert ended.code == 0
    for name in ("report.html", "report.md", "report.json", "findings.sarif"):
        assert (tmp_path / "again" / name).read_bytes() == (sample / name).read_bytes(), name


def test_a_file_that_is_no_report_is_refused(command: Run, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"format": "something else"}')
    ended = command("report", str(tmp_path / "report.json"))
    assert ended.code == 2
    assert "not a report that this version reads" in ended.err
    assert command("report", str(tmp_path / "nowhere.json")).code == 2
