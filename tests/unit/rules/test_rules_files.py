"""Reading rule files: places, everything at once, folders, ignores, digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from auditkit.core.diagnostics import Diagnostic
from auditkit.core.documents import parse_yaml
from auditkit.core.errors import DocumentError, InvalidInput
from auditkit.core.locks import Unit
from auditkit.rules import (
    FORMATS,
    lint_blocking,
    lint_rules,
    load_rules,
    parse_rules,
    read_rules,
    rule_digest,
    signal_unit,
)
from tests.unit.rules.rule_texts import GOOD


def find(text: str, code: str) -> Diagnostic:
    found = [d for d in read_rules(text, "rule.yaml").diagnostics if d.code == code]
    assert len(found) == 1, [d.render() for d in found]
    return found[0]


def marked(diagnostic: Diagnostic) -> str:
    s = diagnostic.span
    return s.source_line[s.column - 1 : s.column - 1 + s.length]


def test_a_sound_file_has_no_diagnostics() -> None:
    file = parse_rules(GOOD, "rule.yaml")
    assert file.diagnostics == ()
    (rule,) = file.rules
    assert rule.id == "refusal.suppressed"
    assert [signal_unit(s) for s in rule.signals.values()] == [Unit.BARE, Unit.RAW]


def test_an_error_names_file_line_column_and_shows_the_line() -> None:
    text = GOOD.replace("severity: medium", "severity: medum")
    with pytest.raises(DocumentError, match=r"rule.yaml:8:15: AK013 rules.0.severity") as caught:
        parse_rules(text, "rule.yaml")
    assert "     8 |     severity: medum" in str(caught.value)
    assert "       |               ^^^^^" in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "place", "word"),
    [
        ("condition: asked and refusd", "1:26", "refusd"),
        ("condition: 'asked and refusd'", "1:27", "refusd"),
        ('condition: "asked and refusd"', "1:27", "refusd"),
        ("condition: |\n      asked\n      and refusd", "3:11", "refusd"),
        ("condition: >-\n      asked\n      and refusd", "3:11", "refusd"),
        ("condition: asked\n      and   refusd", "2:13", "refusd"),
    ],
)
def test_places_inside_conditions_survive_every_yaml_style(condition, place, word) -> None:
    before, _, after = GOOD.partition(
        "condition: asked and not answered and not count(code >= 2 raw) >= 3 tokens"
    )
    diagnostic = find(before + condition + after, "AK022")
    line, column = (int(x) for x in place.split(":"))
    assert diagnostic.span.line == before.count("\n") + line
    assert diagnostic.span.column == column
    assert marked(diagnostic) == word


def test_an_escaped_scalar_is_marked_as_a_whole() -> None:
    text = GOOD.replace("condition: asked and", 'condition: "refusd and\\x20not asked"  #')
    assert marked(find(text, "AK022")) == '"refusd and\\x20not asked"'


def test_a_folded_scalar_reads_as_one_line() -> None:
    parsed = parse_yaml("a: >-\n  one\n  two\n", "x.yaml")
    assert parsed.value == {"a": "one two"}


def test_all_errors_of_a_file_come_at_once_schema_and_conditions() -> None:
    broken = GOOD.replace("rev: 1", "rev: one").replace("asked: mean(", "asked: mean(((")
    second = GOOD.split("rules:\n")[1].replace("refusal.suppressed", "other")
    second = second.replace("not answered", "not anwsered")
    found = read_rules(broken + second, "rule.yaml").diagnostics
    assert [d.code for d in found] == ["AK012", "AK020", "AK031", "AK022"]
    assert read_rules(broken + second, "rule.yaml").rules == ()


def test_a_key_without_a_value_is_told_once() -> None:
    found = read_rules(GOOD.replace("title: Refusal", "title:\n    # "), "r.yaml").diagnostics
    assert [d.code for d in found] == ["AK012"]
    found = read_rules(GOOD.replace("pool: max", "pool:"), "r.yaml").diagnostics
    assert [d.code for d in found] == ["AK012"]
    optional = GOOD.replace("calibrate: {suite", "calibrate:\n    # {suite")
    assert "AK012" in [d.code for d in read_rules(optional, "r.yaml").diagnostics]


def test_bad_yaml_gives_one_clear_error() -> None:
    assert find(GOOD.replace("    rev", "\trev"), "AK002").span.line == 4
    assert find(GOOD.replace("rev: 1", "rev: 1\n    rev: 2"), "AK003").span.line == 5


def test_an_ignore_with_a_reason_silences_its_line() -> None:
    unused = GOOD.replace("    condition: asked and", "    condition:")
    assert {d.code for d in read_rules(unused, "r.yaml").diagnostics} == {"AK031"}
    same_line = unused.replace("calibrated\n", "calibrated  # auditkit: ignore=AK031 later\n")
    codes = [d.code for d in read_rules(same_line, "r.yaml").diagnostics]
    assert "AK031" not in codes
    above = unused.replace("      asked:", "      # auditkit: ignore=AK031 later\n      asked:")
    assert "AK031" not in [d.code for d in read_rules(above, "r.yaml").diagnostics]


@pytest.mark.parametrize(
    ("comment", "code", "message"),
    [
        ("ignore=AK031", "AK094", "without a reason"),
        ("ignore=", "AK094", "no code is named"),
        ("ignore=AK999 because", "AK094", "'AK999' is no code"),
        ("ignore=AK010 because", "AK094", "AK010 cannot be ignored"),
        ("ignore=AK031 because", "AK095", "silences nothing"),
    ],
)
def test_a_wrong_ignore_is_reported(comment: str, code: str, message: str) -> None:
    text = GOOD.replace("rev: 1", f"rev: 1  # auditkit: {comment}")
    assert message in find(text, code).message


def test_an_ignore_cannot_hide_an_unknown_key() -> None:
    text = GOOD.replace("rev: 1", "rev: 1\n    rvev: 1  # auditkit: ignore=AK010 please")
    assert {d.code for d in read_rules(text, "r.yaml").diagnostics} == {"AK010", "AK094"}


def test_folders_are_read_and_other_formats_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.yaml").write_text(GOOD)
    (tmp_path / "suite.yaml").write_text("format: auditkit-suite/1\nname: x\n")
    (tmp_path / "notes.txt").write_text("no rule")
    (file,) = load_rules([tmp_path])
    assert file.path.endswith("one.yaml")
    (tmp_path / "two.yaml").write_text(GOOD)
    with pytest.raises(DocumentError, match=r"AK024 the id 'refusal.suppressed' is taken by"):
        load_rules([tmp_path])


def test_paths_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere.yaml: there is no such rule file"):
        load_rules([tmp_path / "nowhere.yaml"])
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InvalidInput, match="not UTF-8 text"):
        load_rules([tmp_path / "latin.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no rules in"):
        load_rules([tmp_path / "empty"])


def test_the_digest_follows_the_meaning_and_nothing_else() -> None:
    def digest(change: Callable[[str], str] = lambda text: text) -> str:
        return rule_digest(parse_rules(change(GOOD), "rule.yaml").rules[0])

    same = [
        lambda t: t.replace("A planted example.", "Other words."),
        lambda t: t.replace("rev: 1", "rev: 2"),
        lambda t: t.replace("asked and not answered", "(asked) and  not (answered)"),
        lambda t: t.replace(">= 0.15", ">= 0.150"),
        lambda t: t.replace("at: 9", "at: 8"),
        lambda t: t.replace("status: experimental", "status: test"),
        lambda t: "# a comment\n" + t,
    ]
    assert {digest(change) for change in same} == {digest()}
    other = [
        lambda t: t.replace(">= 0.15", ">= 0.16"),
        lambda t: t.replace("asked and not answered", "asked or not answered"),
        lambda t: t.replace("top_k: 32", "top_k: 31"),
        lambda t: t.replace("skip_first: 1", "skip_first: 0"),
        lambda t: t.replace("target_fpr: 0.01", "target_fpr: 0.02"),
        lambda t: t.replace("op: steer", "op: clamp"),
        lambda t: t.replace("frame: exchange", "frame: conversation"),
    ]
    assert len({digest(), *(digest(change) for change in other)}) == 1 + len(other)


def test_a_rule_decided_at_the_end_is_named_where_it_should_block() -> None:
    (warning,) = lint_blocking([parse_rules(GOOD, "rule.yaml")])
    assert warning.code == "AK070"
    latching = GOOD.replace("mean(refuse @user)", "max(refuse @user)")
    latching = latching.replace(
        "asked and not answered and not count", "asked and answered and count"
    )
    assert lint_blocking([parse_rules(latching, "rule.yaml")]) == []


BROKEN = GOOD.replace("severity: medium", "severity: medum").replace("target_fpr: 0.01", "x: 1")


def test_the_formats_carry_the_same_diagnostics() -> None:
    found = lint_rules([read_rules(BROKEN, "dir/a,b.yaml")])
    assert FORMATS["text"](found).count("dir/a,b.yaml:") == len(found) == 3
    rows = json.loads(FORMATS["json"](found))["diagnostics"]
    assert [r["code"] for r in rows] == [d.code for d in found]
    sarif = json.loads(FORMATS["sarif"](found))
    (run,) = sarif["runs"]
    assert sarif["version"] == "2.1.0"
    for result, d in zip(run["results"], found, strict=True):
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == d.code
        region = result["locations"][0]["physicalLocation"]["region"]
        assert (region["startLine"], region["startColumn"]) == (d.span.line, d.span.column)
    lines = FORMATS["github"](found).splitlines()
    assert len(lines) == len(found)
    assert lines[0].startswith(
        "::error file=dir/a%2Cb.yaml,line=8,col=15,endColumn=20,title=AK013::"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_say_that_nothing_is_wrong(name: str) -> None:
    assert "AK" not in FORMATS[name]([])


def test_warnings_are_marked_as_such() -> None:
    text = GOOD.replace("q: 0.05", "q: 0.0005")
    shown = FORMATS["text"](lint_rules([read_rules(text, "r.yaml")]))
    assert ": AK081 warning: q 0.0005 cannot be reached: with 2,000 controls" in shown


def test_the_shipped_rules_are_sound() -> None:
    files = load_rules([Path(__file__).parents[3] / "rules"])
    assert [d.render() for d in lint_rules(files)] == []
    assert sum(len(f.rules) for f in files) >= 6
