"""Do the compiled SQL, the stream and a slow reference say the same of random rules?

    python benchmarks/rule_equality.py [--pairs 20000] [--seed 100] [--json FILE] [--markdown FILE]

Random conditions over the whole language and all five kinds of frame, weighted to windows,
sequences and values that stand exactly on thresholds, on random recordings with masked and
uncovered tokens, twins and prompts without one, unresolved signals and empty frames. Compared for
every pair of condition and frame: truth, reason, firing token (and between SQL and stream the
score). The reference writes every definition out, straight from the syntax tree. Every recording
and its rules come from one seed, so that a difference can be had again. Ends with 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb

from auditkit.core.locks import Pool, Unit
from auditkit.rules import StreamEvaluator, parse_condition
from auditkit.rules.language import ast
from tests.unit.rules.rules_reference import reference_rows
from tests.unit.rules.rules_worlds import make_bench, run_sql, run_stream

RESULTS = Path(__file__).resolve().parent / "results"
RULES_PER_SEED = 100


def constructs(texts: list[str]) -> set[str]:
    """The parts of the language that conditions use."""
    found: set[str] = set()
    for node in (n for text in texts for n in ast.walk(parse_condition(text))):
        match node:
            case ast.SignalStatistic(function=name) | ast.TokenStatistic(function=name):
                found.add(name)
            case ast.Window():
                found.add("window")
            case ast.Then():
                found.add("then … within")
            case ast.InRange():
                found.add("in [low, high]")
            case ast.Defined():
                found.add("defined")
            case ast.Percentile():
                found.add("NAME.pN")
            case ast.Calibrated():
                found.add("calibrated")
            case ast.Difference():
                found.add("diff(…)")
            case ast.OfNames():
                found.add("k of them, k of GLOB")
            case ast.Of() | ast.TokenOf():
                found.add("k of (…)")
            case _:
                pass
    return found


def compare_all(pairs: int, seed: int) -> dict[str, Any]:
    """Try seeds until so many pairs of condition and frame have been compared."""
    truths: Counter[str] = Counter()
    used: Counter[str] = Counter()
    framed: Counter[str] = Counter()
    differences: list[dict[str, Any]] = []
    rules = latching = compared = 0
    first, started = seed, time.process_time()
    while compared < pairs:
        bench = make_bench(seed, worlds=4)
        for rule, world, masked in bench.cases(RULES_PER_SEED):
            by_sql = run_sql(bench.connection, rule, world, masked)
            by_stream = run_stream(rule, world, masked)
            by_reference = reference_rows(rule, world, masked)
            rules += 1
            latching += StreamEvaluator(rule).latching
            used.update(constructs([rule.condition, *(text for _, text in rule.let)]))
            if any(s.pool is Pool.MAX and s.unit is Unit.Z for s in rule.signals):
                used["pool: max of z"] += 1
            framed[rule.frame.value] += len(by_stream)
            compared += len(by_stream)
            truths.update(row[2] if row[3] is None else row[3] for row in by_stream)
            if by_sql != by_stream or [row[:6] for row in by_stream] != by_reference:
                differences.append({"seed": seed, "condition": rule.condition, "let": rule.let})
        bench.connection.close()
        seed += 1
    return {
        "pairs": compared,
        "rules": rules,
        "latching_rules": latching,
        "seeds": [first, seed - 1],
        "verdicts": dict(truths.most_common()),
        "frames": dict(framed.most_common()),
        "constructs": dict(used.most_common()),
        "differences": differences,
        "cpu_seconds": round(time.process_time() - started, 1),
        "duckdb": duckdb.__version__,
        "python": platform.python_version(),
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The page `results/rule-equality.md`."""
    first, last = result["seeds"]
    lines = [
        "# Rules in SQL, in the stream, and by definition",
        "",
        f"{result['rules']:,} random conditions ({result['latching_rules']:,} of them latching), "
        f"{result['pairs']:,} pairs of condition and frame, seeds {first} to {last}, DuckDB "
        f"{result['duckdb']}. Written by `python benchmarks/rule_equality.py`.",
        "",
        f"**{len(result['differences'])} conditions differ** in truth, reason, firing token or "
        "score between the compiled SQL and the stream, or in truth, reason or firing token from "
        "the reference, which writes every definition out.",
        "",
        "| verdict | pairs |",
        "| --- | --: |",
        *(f"| {name} | {n:,} |" for name, n in result["verdicts"].items()),
        "",
        "| frame | pairs |",
        "| --- | --: |",
        *(f"| {name} | {n:,} |" for name, n in result["frames"].items()),
        "",
        "| part of the language | conditions that use it |",
        "| --- | --: |",
        *(f"| {name} | {n:,} |" for name, n in result["constructs"].items()),
        "",
    ]
    lines += [f"- seed {d['seed']}: `{d['condition']}`" for d in result["differences"]]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--json", type=Path, default=RESULTS / "rule-equality.json")
    parser.add_argument("--markdown", type=Path, default=RESULTS / "rule-equality.md")
    given = parser.parse_args()
    result = compare_all(given.pairs, given.seed)
    given.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    given.markdown.write_text(to_markdown(result), encoding="utf-8")
    print(f"{result['pairs']:,} pairs, {len(result['differences'])} conditions differ")
    return 1 if result["differences"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
