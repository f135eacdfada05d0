"""`auditkit rules lint | explain | list | schema`: no model, no torch."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.core.correlations import LockedCorrelation
from auditkit.core.diagnostics import Level
from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.filters import LockedFilter
from auditkit.core.locks import Calibration, Lock, LockedRule
from auditkit.core.measured import Measured
from auditkit.core.tokens import TokenMask
from auditkit.pipeline.rule_files import RuleSet, load_rule_set, rule_paths
from auditkit.rules import (
    FORMATS,
    RuleDocument,
    explain_correlation,
    explain_filter,
    lint_blocking,
    lint_rules,
    read_lock,
    read_rule_paths,
    render_schema,
)
from auditkit.rules import explain_rule as explain_text


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What a check prints and how it ends."""

    text: str
    exit_code: ExitCode


def lint_paths(
    paths: Sequence[str], *, format: str, strict: bool, online: bool = False
) -> CheckOutcome:
    """Every diagnostic of some rule files in one of the formats; `online`: those too that only
    matter where a monitor is to act."""
    if format not in FORMATS:
        raise InvalidInput(f"unknown format {format!r}", help="one of " + ", ".join(FORMATS))
    files = read_rule_paths(rule_paths(paths))
    if not files:
        return CheckOutcome(text="no rule files found", exit_code=ExitCode.NOTHING_EVALUATED)
    found = lint_rules(files) + (lint_blocking(files) if online else [])
    errors = sum(d.level is Level.ERROR for d in found)
    code = ExitCode.CLEAN
    if errors:
        code = ExitCode.INVALID_INPUT
    elif found and strict:
        code = ExitCode.WARNINGS
    text = FORMATS[format](found)
    if format == "text":
        tally = f"{len(files)} files: {errors} errors, {len(found) - errors} warnings"
        text = f"{text}\n{tally}" if text else tally
    return CheckOutcome(text=text, exit_code=code)


def explain_rule(rule: str, paths: Sequence[str], lock: Path | None) -> str:
    """A rule in plain words; from the lock where one is given."""
    if lock is None:
        loaded = load_rule_set(paths)
        rules = {r.id: r for r in loaded.rules}
        tuned = (*loaded.locked_filters(), *loaded.locked_correlations())
        masked = TokenMask.NONE
    else:
        opened = read_lock(lock)
        rules = {r.id: r for r in opened.rules}
        tuned, masked = (*opened.filters, *opened.correlations), opened.masked
    found = _named(rule, {**rules, **{part.id: part for part in tuned}})
    if isinstance(found, LockedFilter):
        return explain_filter(found)
    if isinstance(found, LockedCorrelation):
        return explain_correlation(found)
    return explain_text(found, masked=masked)


def list_paths(paths: Sequence[str], lock: Path | None, *, json: bool) -> str:
    """A table of rules with what is known of each."""
    loaded = load_rule_set(paths)
    opened = read_lock(lock) if lock is not None else None
    rows = [_row(rule, opened) for rule in loaded.rules] + _tuned_rows(loaded, opened)
    if json:
        return json_format.dumps(rows, indent=1)
    names = list(dict.fromkeys(k for r in rows for k in r))
    widths = {k: max(len(k), *(len(str(r.get(k, ""))) for r in rows)) for k in names}
    lines = ["  ".join(k.ljust(w) for k, w in widths.items())]
    lines += ["  ".join(str(r.get(k, "")).ljust(w) for k, w in widths.items()) for r in rows]
    return "\n".join(line.rstrip() for line in lines)


def _tuned_rows(loaded: RuleSet, lock: Lock | None) -> list[dict[str, Any]]:
    """Filters and correlations, each with what it is in a column of its own."""
    known = {} if lock is None else {x.id: x.digest for x in (*lock.filters, *lock.correlations)}
    rows: list[dict[str, Any]] = [
        {
            "rule": c.id,
            "status": c.status.value,
            "severity": c.severity.value,
            "unit tests": len(c.tests.unit),
            "kind": f"correlation ({c.type})",
        }
        for c in loaded.correlations
    ]
    rows += [{"rule": f.id, "kind": "filter", "expires": f.expires or ""} for f in loaded.filters]
    tuned = (*loaded.locked_correlations(), *loaded.locked_filters())
    if lock is not None:
        for row, own in zip(rows, tuned, strict=True):
            found = known.get(own.id)
            same = "yes" if found == own.digest else "changed since"
            row["resolved"] = same if found else "not in the lock"
    return rows


def schema_text() -> str:
    """The JSON Schema of rule files."""
    return render_schema()


def _named(name: str, rules: Mapping[str, Any]) -> Any:
    found = [r for r in rules if r == name] or [r for r in rules if r.endswith(name)]
    if len(found) != 1:
        raise InvalidInput(
            f"{'no' if not found else 'more than one'} rule is called {name!r}",
            help="rules: " + ", ".join(sorted(rules)),
        )
    return rules[found[0]]


def _row(rule: RuleDocument, lock: Lock | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rule": rule.id,
        "status": rule.status.value,
        "severity": rule.severity.value,
        "unit tests": len(rule.tests.unit),
    }
    if lock is None:
        return row
    locked = next((r for r in lock.rules if r.id == rule.id), None)
    return row | (_locked_row(locked) if locked else {"resolved": "not in the lock"})


def _locked_row(locked: LockedRule) -> dict[str, Any]:
    own = next((s for s in locked.scores if s.detector == "rule"), None)
    certified = isinstance(locked.calibration, Calibration)
    return {
        "status": locked.status.value,
        "resolved": "yes" if all(s.unresolved is None for s in locked.signals) else "no",
        "calibrated": "yes" if certified else "no",
        "AUROC": f"{own.auroc.value:.3f}"
        if own is not None and isinstance(own.auroc, Measured)
        else "not measured",
        "confirmations": len(locked.confirm),
    }
