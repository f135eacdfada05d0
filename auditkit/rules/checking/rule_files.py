"""Rule files: reading them, and everything that is wrong with one, at once and with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from auditkit.core.diagnostics import Diagnostic, Level
from auditkit.core.documents import ParsedText, parse_yaml, validate_document
from auditkit.core.errors import DocumentError, InvalidInput
from auditkit.core.source_map import Path as Place
from auditkit.core.source_map import SourceMap
from auditkit.rules.checking.ignores import apply_ignores, apply_late
from auditkit.rules.checking.lint import lint_rule
from auditkit.rules.checking.lint_correlations import lint_correlation
from auditkit.rules.checking.lint_filters import lint_filter
from auditkit.rules.checking.lint_frames import RolesOf, check_frames
from auditkit.rules.checking.report import Reporter
from auditkit.rules.checking.rule_conditions import check_syntax
from auditkit.rules.checking.together import check_together
from auditkit.rules.documents.correlation_documents import CorrelationDocument
from auditkit.rules.documents.filter_documents import FilterDocument
from auditkit.rules.documents.rule_documents import RuleDocument, RulesDocument
from auditkit.rules.documents.signals import draft_rule
from auditkit.rules.documents.tuning import lock_correlation, lock_filter
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.streaming.online import watched_online

OTHER_FORMAT = re.compile(r"^format:\s*['\"]?auditkit-(?!rules/)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFile:
    """A rule file that was read: its parts (none if it is not valid) and what is wrong with it."""

    path: str
    rules: tuple[RuleDocument, ...]
    source: SourceMap
    diagnostics: tuple[Diagnostic, ...]
    filters: tuple[FilterDocument, ...] = ()
    correlations: tuple[CorrelationDocument, ...] = ()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that make the file unusable."""
        return tuple(d for d in self.diagnostics if d.level is Level.ERROR)


Reader = Callable[[str, str], RuleFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """A rule file with the plain values of its text; `sound` where they fit the schema."""

    file: RuleFile
    value: Any
    sound: bool


def read_rules(text: str, path: str) -> RuleFile:
    """Read a rule file's text with all its diagnostics, errors and warnings. Never raises."""
    return read_text(text, path).file


def read_text(text: str, path: str) -> ReadFile:
    """As `read_rules`, with what a cache keeps besides."""
    parsed = parse_yaml(text, path)
    document, found = (None, parsed.diagnostics) if parsed.diagnostics else _check(parsed)
    kept = apply_ignores(parsed.source, found)
    ordered = tuple(sorted(kept, key=lambda d: (d.span.line, d.span.column, d.code)))
    return ReadFile(
        file=make_rule_file(parsed.source, document, ordered),
        value=parsed.value,
        sound=document is not None,
    )


def _check(parsed: ParsedText) -> tuple[RulesDocument | None, Sequence[Diagnostic]]:
    reporter = Reporter(parsed.source)
    _refuse_empty_keys(parsed.value, (), reporter)
    try:
        document = validate_document(parsed, RulesDocument)
    except DocumentError as error:
        found = _without_echoes(error.diagnostics, reporter.diagnostics)
        return None, [*found, *_salvage(parsed)]
    for number, rule in enumerate(document.rules):
        lint_rule(rule, number, reporter)
    for number, tuning in enumerate(document.filters):
        lint_filter(tuning, number, reporter)
    for number, correlation in enumerate(document.correlations):
        lint_correlation(correlation, number, reporter)
    return document, reporter.diagnostics


def parse_rules(text: str, path: str) -> RuleFile:
    """Read a rule file's text; raise DocumentError with all its errors."""
    read = read_rules(text, path)
    if read.errors:
        raise DocumentError(read.errors)
    return read


def read_rule_paths(paths: Sequence[str | Path], *, read: Reader = read_rules) -> list[RuleFile]:
    """Read rule files, and folders of them, with all their diagnostics.

    `read` takes each text with its path, as `read_rules` does. In a folder, YAML documents of other
    formats (suites, lexicons) are passed over. Raises InvalidInput where a path does not exist or
    cannot be read.
    """
    return [f for p in paths for f in _read_path(Path(p), read)]


def load_rules(paths: Sequence[str | Path]) -> list[RuleFile]:
    """Read rule files and folders; raise DocumentError with the errors of all of them."""
    files = read_rule_paths(paths)
    if not any(f.rules or f.filters or f.correlations or f.diagnostics for f in files):
        raise InvalidInput(
            f"no rules in {', '.join(str(p) for p in paths) or 'no path'}",
            help="name a rule file, or a folder that holds some",
        )
    errors = [d for d in lint_rules(files) if d.level is Level.ERROR]
    if errors:
        raise DocumentError(errors)
    return files


def lint_rules(
    files: Sequence[RuleFile], *, today: date | None = None, roles_of: RolesOf | None = None
) -> list[Diagnostic]:
    """Every diagnostic of some files, with those that only show when they are seen together, on
    this day, or beside the shipped suites (`roles_of`)."""
    found: list[Diagnostic] = []
    late: list[Diagnostic] = []
    for file, reporter in zip(files, check_together(files, today or date.today()), strict=True):
        if roles_of is not None and not file.errors:
            check_frames(file.rules, roles_of, reporter)
        own, kept = apply_late(file.source, file.diagnostics, reporter.diagnostics)
        found += own
        late += kept
    return found + late


def lint_blocking(files: Sequence[RuleFile]) -> list[Diagnostic]:
    """Warn of what a monitor cannot do in time, or at all: rules decided only at a frame's end or
    beside a twin, filters that ask of prompts, correlations over several prompts."""
    found: list[Diagnostic] = []
    for file in files:
        reporter = Reporter(file.source)
        for number, rule in enumerate(file.rules if not file.errors else ()):
            plan = lower_rule(draft_rule(rule))
            if plan.compares_twins:
                reporter.add(
                    "AK073",
                    "a monitor sees one conversation and no twin of it: there diff(…) is unknown",
                    ("rules", number, "frame"),
                    help="judge differences in an audit; watch the statistic itself",
                )
            if not plan.latching:
                reporter.add(
                    "AK070",
                    "a blocking action waits until the frame has ended: the condition may still "
                    "change",
                    ("rules", number, "condition"),
                    help="max, count, run and any with >= or > and without 'not' fire at once",
                )
        for number, document in enumerate(file.filters if not file.errors else ()):
            if lock_filter(document, ()).online:
                continue
            reporter.add(
                "AK071",
                f"a monitor is not told a prompt's suite, label, tags or id unless its caller says "
                f"them: {document.id!r} then excuses nothing by them",
                ("filters", number, "id"),
                help="a blocking action follows every match that is not excused",
            )
        for number, correlation in enumerate(file.correlations if not file.errors else ()):
            if watched_online(lock_correlation(correlation)):
                continue
            reporter.add(
                "AK072",
                f"a monitor sees one conversation at a time, and {correlation.id!r} groups by "
                f"{correlation.group_by}: only audits judge it",
                ("correlations", number, "group_by"),
                help="a blocking action follows the members' own verdicts",
            )
        found += reporter.diagnostics
    return found


def _read_path(path: Path, read: Reader) -> list[RuleFile]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml"))
        texts = [(p, _text(p)) for p in found]
        return [read(t, str(p)) for p, t in texts if not OTHER_FORMAT.search(t)]
    return [read(_text(path), str(path))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"{path}: there is no such rule file", help="check the path") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path}: not UTF-8 text (byte {error.start})", help="save the file as UTF-8"
        ) from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None


def make_rule_file(
    source: SourceMap, document: RulesDocument | None, diagnostics: tuple[Diagnostic, ...]
) -> RuleFile:
    """A rule file of what was read: without its parts where an error makes them unusable."""
    failed = any(d.level is Level.ERROR and d.code < "AK02" for d in diagnostics)
    file = RuleFile(path=source.path, rules=(), source=source, diagnostics=diagnostics)
    if document is None or failed:
        return file
    return replace(
        file,
        rules=document.rules,
        filters=document.filters,
        correlations=document.correlations,
    )


def _without_echoes(found: Sequence[Diagnostic], empty: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One wrong value is told once, though each member of a union may mind it."""
    told = {(d.span.line, d.span.column) for d in empty}
    seen: dict[tuple[int, int, str], Diagnostic] = {}
    for d in found:
        if (d.span.line, d.span.column) not in told:
            seen.setdefault((d.span.line, d.span.column, d.code), d)
    return [*empty, *seen.values()]


def _refuse_empty_keys(value: Any, at: Place, reporter: Reporter) -> None:
    """A key without a value is neither its default nor left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner is None:
                help = "give it one, or leave the key out"
                reporter.add(
                    "AK012", f"the key {key!r} has no value", (*at, key), key=True, help=help
                )
            _refuse_empty_keys(inner, (*at, key), reporter)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_empty_keys(inner, (*at, index), reporter)


def _salvage(parsed: ParsedText) -> list[Diagnostic]:
    """Where the schema fails: lint the rules that are sound, read the conditions of others."""
    reporter = Reporter(parsed.source)
    rules: Any = parsed.value.get("rules") if isinstance(parsed.value, dict) else None
    for number, raw in enumerate(rules if isinstance(rules, list) else []):
        try:
            rule = RuleDocument.model_validate_json(json.dumps(raw))
        except ValidationError:
            check_syntax(raw, number, reporter)
        else:
            lint_rule(rule, number, reporter)
    return reporter.diagnostics
