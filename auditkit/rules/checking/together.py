"""What only shows when rule files are seen together: names, and parts that must fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from auditkit.core.correlations import GroupBy, LockedCorrelation, SpanUnit
from auditkit.core.locks import Frame
from auditkit.core.source_map import Path
from auditkit.rules.checking.check import suggest
from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.correlation_documents import CorrelationDocument
from auditkit.rules.documents.filter_documents import FilterDocument
from auditkit.rules.documents.rule_documents import RuleDocument
from auditkit.rules.documents.tuning import lock_correlation, lock_filter, tuned_rules

if TYPE_CHECKING:
    from auditkit.rules.checking.rule_files import RuleFile

Rules = Mapping[str, RuleDocument]

_HELP = "name the file that holds it as well, or correct the name"


def check_together(files: Sequence[RuleFile], today: date) -> list[Reporter]:
    """One reporter per file with what its parts make of the rules of all of them."""
    rules = {rule.id: rule for file in files for rule in file.rules}
    reporters: list[Reporter] = []
    first: dict[str, str] = {}
    for file in files:
        reporter = Reporter(file.source)
        for at, name in _ids(file):
            span = file.source.span(at)
            if name in first:
                reporter.add("AK024", f"the id {name!r} is taken by {first[name]}", at)
            first.setdefault(name, f"{span.path}:{span.line}")
        for number, document in enumerate(file.filters):
            _check_filter(document, number, rules, reporter)
            _check_expiry(document, number, reporter, today)
        for number, document in enumerate(file.correlations):
            _check_correlation(document, number, rules, reporter)
        reporters.append(reporter)
    return reporters


def _ids(file: RuleFile) -> Iterator[tuple[Path, str]]:
    for part, documents in (
        ("rules", file.rules),
        ("filters", file.filters),
        ("correlations", file.correlations),
    ):
        for number, document in enumerate(documents):
            yield (part, number, "id"), document.id


def _check_filter(document: FilterDocument, number: int, rules: Rules, reporter: Reporter) -> None:
    at = ("filters", number)
    for index, pattern in enumerate(document.rules):
        if not tuned_rules([pattern], list(rules)):
            message = f"{pattern!r} names no rule, so the filter excuses nothing"
            help = suggest(pattern, rules) or _HELP
            reporter.add("AK037", message, (*at, "rules", index), help=help)
    tuned = [rules[r] for r in tuned_rules(document.rules, list(rules))]
    for index, exception in enumerate(document.exceptions):
        place = (*at, "exceptions", index)
        if exception.rule is not None:
            _check_other_rule(exception.rule, tuned, rules, (*place, "rule"), reporter)
        roles = exception.roles or ()
        seen = [r for r in roles for t in tuned if not t.scope.roles or r in t.scope.roles]
        if roles and tuned and not seen:
            names = " or ".join(r.value for r in roles)
            message = f"no rule that this filter tunes looks at {names} tokens"
            reporter.add("AK038", message, (*place, "roles"), key=True)


def _check_expiry(document: FilterDocument, number: int, reporter: Reporter, today: date) -> None:
    tuning = lock_filter(document, ())
    try:
        expired = tuning.expired(today)
    except ValueError:  # no day of the calendar, which lint has said
        return
    if expired:
        message = f"{document.id!r} expired on {document.expires}: it excuses nothing"
        help = "look at the reason again: set a new day, or take the filter out"
        reporter.add("AK096", message, ("filters", number, "expires"), help=help)


def _check_other_rule(
    name: str, tuned: Sequence[RuleDocument], rules: Rules, at: Path, reporter: Reporter
) -> None:
    if name not in rules:
        reporter.add("AK037", f"no rule {name!r}", at, help=suggest(name, rules) or _HELP)
        return
    for rule in tuned:
        if rule.id == name:
            message = f"{name!r} is true wherever it is true: the filter excuses all of it"
            reporter.add("AK038", message, at)
        elif not same_frames(rule, rules[name]):
            message = f"the frames of {name!r} are not those of {rule.id!r}"
            help = "both need the same frame:, and for messages and tokens the same scope:"
            reporter.add("AK049", message, at, help=help)


def same_frames(one: RuleDocument, other: RuleDocument) -> bool:
    """Is frame n of one rule frame n of the other?

    Conversations and exchanges are counted whatever the scope is; other frames exist only where a
    token is eligible.
    """
    if one.frame is not other.frame:
        return False
    return one.frame in (Frame.CONVERSATION, Frame.EXCHANGE) or one.scope == other.scope


def _check_correlation(
    document: CorrelationDocument, number: int, rules: Rules, reporter: Reporter
) -> None:
    at = ("correlations", number, "of")
    for index, member in enumerate(document.of):
        if member.rule not in rules:
            help = suggest(member.rule, rules) or _HELP
            reporter.add("AK037", f"no rule {member.rule!r}", (*at, index, "rule"), help=help)
        elif document.type == "sequence" and rules[member.rule].frame is Frame.CONVERSATION:
            message = f"{member.rule!r} is over whole conversations: nothing comes after one"
            reporter.add("AK049", message, (*at, index, "rule"))
    _check_frames(lock_correlation(document), number, rules, reporter)


def _check_frames(c: LockedCorrelation, number: int, rules: Rules, reporter: Reporter) -> None:
    if c.within is None or c.within.unit is not SpanUnit.FRAMES:
        return
    known = [rules[r] for r in c.rules if r in rules]
    if c.group_by is GroupBy.CONVERSATION and any(not same_frames(known[0], r) for r in known[1:]):
        message = "'within' counts frames, and the members' frames are not the same"
        help = "count tokens, messages or exchanges"
        reporter.add("AK049", message, ("correlations", number, "within"), help=help)
