"""`auditkit rules lint | explain | schema`: no model, no torch."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from auditkit.core.cache_folder import cache_root
from auditkit.core.correlations import LockedCorrelation
from auditkit.core.diagnostics import Level
from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.filters import LockedFilter
from auditkit.core.prompts import Split
from auditkit.core.tokens import TokenMask
from auditkit.pipeline.rule_files.files import load_rule_set, rule_paths
from auditkit.rules import (
    FORMATS,
    PromptRoles,
    RolesOf,
    RuleFile,
    RuleFileCache,
    explain_correlation,
    explain_filter,
    lint_blocking,
    lint_rules,
    read_lock,
    read_rule_paths,
    render_schema,
)
from auditkit.rules import explain_rule as explain_text
from auditkit.suites import load_suite

BUILTIN = "builtin/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What a check prints and how it ends."""

    text: str
    exit_code: ExitCode


def lint_paths(
    paths: Sequence[str],
    *,
    format: str,
    strict: bool,
    online: bool = False,
    cached: bool = False,
) -> CheckOutcome:
    """Every diagnostic of some rule files in one of the formats; `online`: those too that only
    matter where a monitor is to act; `cached`: files that did not change are not read again."""
    if format not in FORMATS:
        raise InvalidInput(f"unknown format {format!r}", help="one of " + ", ".join(FORMATS))
    files = _read_files(paths, cached=cached)
    if not files:
        return CheckOutcome(text="no rule files found", exit_code=ExitCode.NOTHING_EVALUATED)
    found = lint_rules(files, roles_of=shipped_roles()) + (lint_blocking(files) if online else [])
    errors = sum(d.level is Level.ERROR for d in found)
    code = ExitCode.CLEAN
    if errors:
        code = ExitCode.INVALID_INPUT
    elif found and strict:
        code = ExitCode.WARNINGS
    text = FORMATS[format](found)
    if format == "text":
        parts = ((len(files), "file"), (errors, "error"), (len(found) - errors, "warning"))
        read, *told = (f"{n} {name}" if n == 1 else f"{n} {name}s" for n, name in parts)
        tally = f"{read}: {', '.join(told)}"
        text = f"{text}\n{tally}" if text else tally
    return CheckOutcome(text=text, exit_code=code)


def _read_files(paths: Sequence[str], *, cached: bool) -> list[RuleFile]:
    collects = gc.isenabled()
    gc.disable()  # all that is read stays: looking through it for garbage is a quarter of the time
    try:
        if not cached:
            return read_rule_paths(rule_paths(paths))
        cache = RuleFileCache(cache_root() / "rules")
        files = read_rule_paths(rule_paths(paths), read=cache.read)
        cache.prune()
        return files
    finally:
        if collects:
            gc.enable()


def shipped_roles() -> RolesOf:
    """The roles of a shipped suite's messages, prompt by prompt: of those that choose thresholds.
    Each suite is read once."""

    @cache
    def roles_of(ref: str) -> PromptRoles | None:
        try:
            suite = load_suite(ref) if ref.startswith(BUILTIN) else None
        except InvalidInput:
            return None
        if suite is None:
            return None
        chosen = [p for p in suite.prompts if p.split is Split.SELECT] or suite.prompts
        return [tuple(m.role for m in p.messages) for p in chosen]

    return roles_of


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
