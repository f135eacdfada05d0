"""The page docs/rules/diagnostics.md and the linter say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from auditkit.core.diagnostics import Diagnostic, Level
from auditkit.pipeline.rule_files.checks import shipped_roles
from auditkit.rules import CODES, lint_blocking, lint_rules, read_rules

PAGE = Path(__file__).parents[3] / "docs" / "rules" / "diagnostics.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r"^### (AK\d{3})\n\n([^\n]+)\n\n```yaml( whole| beside)?\n(.*?)```", re.M | re.S)
EXAMPLES = {m[1]: ((m[3] or "").strip(), m[4]) for m in BLOCK.finditer(TEXT)}
BASE = re.search(r"```yaml base\n(.*?)```", TEXT, re.S)


def load(text: str) -> Any:
    return YAML(typ="safe").load(text)


def example(code: str) -> str:
    """The whole file that an example stands for."""
    kind, text = EXAMPLES[code]
    if kind == "whole":
        return text
    assert BASE is not None
    if kind == "beside":
        return BASE[1] + text
    document = load(BASE[1])
    for key, value in load(text).items():
        if value == "~delete":
            del document["rules"][0][key]
        else:
            document["rules"][0][key] = value
    return json.dumps(document, indent=1)


def lint(text: str) -> list[Diagnostic]:
    file = read_rules(text, "example.yaml")
    return [*lint_rules([file], roles_of=shipped_roles()), *lint_blocking([file])]


def test_the_page_lists_every_code_with_its_level_and_meaning() -> None:
    rows = re.findall(r"^\| \[(AK\d{3})\]\(#ak\d{3}\) \| (\w+) \| (.+) \|$", TEXT, re.M)
    assert {c: (level, title) for c, level, title in rows} == {
        c: (code.level.value, code.title) for c, code in CODES.items()
    }
    assert set(EXAMPLES) == set(CODES)


def test_the_base_rule_is_sound() -> None:
    assert BASE is not None
    assert lint_rules([read_rules(BASE[1], "base.yaml")]) == []


@pytest.mark.parametrize("code", CODES)
def test_an_example_earns_its_code(code: str) -> None:
    found = lint(example(code))
    mine = [d for d in found if d.code == code]
    assert mine, f"{code} is not among {[d.render() for d in found]}"
    assert {d.level for d in mine} == {CODES[code].level}
    assert all(d.span.path == "example.yaml" and d.span.line >= 1 for d in mine)


@pytest.mark.parametrize("code", [c for c, code in CODES.items() if code.level is Level.WARNING])
def test_an_example_of_a_warning_has_no_error(code: str) -> None:
    assert [d.render() for d in lint(example(code)) if d.level is Level.ERROR] == []
