"""Random inputs for whatever reads a rule file, and what no input may bring about."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from auditkit.core.source_map import SourceMap
from auditkit.rules import (
    compile_pattern,
    draft_rule,
    lint_rules,
    lower_rule,
    parse_condition,
    read_rules,
    render_condition,
)
from auditkit.rules.checking.lint import lint_rule
from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.patterns import PatternError
from auditkit.rules.documents.rule_documents import RuleDocument

WORDS = [
    "a", "b", "s", "t", "other", "and", "or", "not", "of", "any", "all", "none", "them", "window",
    "then", "within", "tokens", "in", "diff", "defined", "max", "mean", "sum", "quantile", "first",
    "topk_mean", "rolling_mean_max", "count", "frac", "run", "last", "calibrated", "s.p99", "raw",
    "fmax", "z", "@user", "@assistant", "(", ")", "[", "]", ",", ">=", "<=", ">", "<", "==", "!=",
    "0", "1", "2", "0.5", "-3", "1e9", "1e999", "9" * 30, "0.1.2", "*", "a*", "?", "\x00", "é", "¬",
    "\u202e", "'", '"', "#", ":", "((((((((", "))))))))", "not not not", "5 of", "window 3",
]  # fmt: skip
PIECES = [
    "{", "}", "[", "]", ":", "- ", ", ", "\n", "  ", "\t", "#", "&x ", "*x", "!!python/object:os ",
    "<<: *x", "? ", "|", ">", "'", '"', "\\", "\x00", "\ud7ff", "\u2028", "é", "null", "true", "1",
    "1e999", ".nan", "-0", "0x1f", "1_000", "2026-11-23", "rules", "filters", "correlations", "id",
    "format: auditkit-rules/1", "rev: 1", "%YAML 1.1", "---", "...", "~", "[" * 30, "{a: " * 30,
]  # fmt: skip
PATTERNS = ["a", "(", ")", "*", "+", "{1000}", "?", "|", "[", "]", "^", "$", "\\", "(?i)", "(?=",
            ".", "\\pL", "\\b", "\\1", "{1,", "é", "\ud800"]  # fmt: skip
KINDS = ("condition", "text", "document", "pattern")

Signals: dict[str, Any] = {
    "s": {"select": {"by": "index", "latents": [1], "sae": "0123456789ab"}},
    "t": {"select": {"by": "index", "latents": [2], "sae": "0123456789ab"}, "unit": "raw"},
}
RULE: dict[str, Any] = {
    "id": "a.b", "rev": 1, "title": "T", "status": "test", "severity": "low",
    "false_positives": ["Unknown"], "signals": Signals, "frame": "message",
    "let": {"a": "max(s) >= 0.5", "b": "count(t > 1) >= 2"}, "condition": "a and b",
}  # fmt: skip
FILTER: dict[str, Any] = {
    "id": "f", "rev": 1, "title": "T", "rules": ["a.*"], "reason": "r", "author": "me",
    "date": "2026-01-01", "exceptions": [{"text": "x", "roles": ["user"]}],
}  # fmt: skip
CORRELATION: dict[str, Any] = {
    "id": "c", "rev": 1, "title": "T", "status": "test", "severity": "low",
    "false_positives": ["Unknown"], "type": "sequence", "of": [{"rule": "a.b"}, {"rule": "a.b"}],
    "tests": {"unit": [{"name": "n", "series": {"a.b": "t ."}, "fires": False}]},
}  # fmt: skip
SMALL = {"format": "auditkit-rules/1", "filters": [FILTER], "correlations": [CORRELATION]}
PARSED = RuleDocument.model_validate_json(json.dumps(RULE))
VALUES = (
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "x",
    "a.b",
    "t f",
    "(",
    [],
    {},
    [1],
    {"a": 1},
    "a" * 2000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input: which reader gets it, and what it is."""

    kind: str
    text: str


def inputs(seed: int, count: int) -> Iterator[Input]:
    """Random inputs, the same for the same seed; mostly conditions, which are read fastest."""
    rng = random.Random(seed)
    made: dict[str, Callable[[random.Random], str]] = {
        "condition": _condition,
        "text": _text,
        "document": _document,
        "pattern": lambda r: "".join(r.choices(PATTERNS, k=r.randint(1, 12))),
    }
    for _ in range(count):
        (kind,) = rng.choices(KINDS, weights=(70, 11, 9, 10))
        text = made[kind](rng)
        if kind in ("text", "document") and rng.random() < 0.5:
            text += "\n"  # what ends in a newline may be read by another reader of YAML
        yield Input(kind=kind, text=text)


def read(given: Input) -> bool:
    """Give an input to its reader; was it taken? Whatever is not a diagnostic is raised."""
    if given.kind == "pattern":
        try:
            return compile_pattern(given.text)("a" * 200) in (True, False)
        except PatternError:
            return False
    if given.kind == "condition":
        return _read_condition(given.text)
    file = read_rules(given.text, "fuzz.yaml")
    for diagnostic in lint_rules([file]):
        diagnostic.render()
    return not file.errors


def _read_condition(text: str) -> bool:
    rule = PARSED.model_copy(update={"condition": text})
    reporter = Reporter(SourceMap(path="fuzz.yaml", lines=[text]))
    lint_rule(rule, 0, reporter)
    if reporter.has_errors_from(0):
        return False
    lower_rule(draft_rule(rule))
    tree = parse_condition(text)
    assert parse_condition(render_condition(tree)) == tree, text
    return True


def _condition(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))
    text = f"({_grown(rng, 2)}) and a and b"
    return _scrambled(rng, text) if rng.random() < 0.4 else text


def _grown(rng: random.Random, depth: int) -> str:
    """A condition that is likely to be read."""
    if depth == 0 or rng.random() < 0.3:
        number = rng.choice(["0.5", "2", "0.25", "1e4"])
        return rng.choice(
            [f"max(s) >= {number}", f"mean(t) < {number}", f"count(s > {number}) >= 2",
             f"run(t >= {number} and s < 1) > 1", "all(s > 0.125)", f"frac(s > {number}) >= 0.5"]
        )  # fmt: skip
    one, two = _grown(rng, depth - 1), _grown(rng, depth - 1)
    return rng.choice(
        [f"{one} and {two}", f"{one} or {two}", f"not ({one})", f"({one})", f"1 of ({one}, {two})",
         f"window 4 ({one})", f"any of ({one}, {two})"]
    )  # fmt: skip


def _scrambled(rng: random.Random, text: str) -> str:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice([*WORDS, *PIECES, ""]) + text[at + rng.randint(0, 3) :]
    return text


def _text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.randint(1, 40)))
    return _scrambled(rng, json.dumps(rng.choice([SMALL, {**SMALL, "rules": [RULE]}])))


def _document(rng: random.Random) -> str:
    """A file of which some places are replaced, doubled or taken out."""
    document: Any = json.loads(json.dumps(SMALL))
    for _ in range(rng.randint(1, 3)):
        holder = document
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], (dict, list)) and rng.random() < 0.8:
                holder = holder[key]
                continue
            _change(rng, holder, key)
            break
    return json.dumps(document)


def _change(rng: random.Random, holder: Any, key: Any) -> None:
    match rng.randrange(3):
        case 0:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        case 1:
            del holder[key]
        case _ if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        case _:
            holder.append(copy.deepcopy(holder[key]))
