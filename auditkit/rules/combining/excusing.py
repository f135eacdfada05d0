"""Filters on one true match: whether an exception holds, and of which filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from auditkit.core.filters import FilterException, LockedFilter
from auditkit.core.locks import Lock
from auditkit.core.prompts import Role
from auditkit.rules.documents.patterns import compile_pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFacts:
    """What a suite says of a prompt; what nobody said (None) is no suite's, and bears no label."""

    suite: str | None = None
    prompt: str | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchCase:
    """What the exceptions of a true match are judged by.

    `role` is the firing token's; `text` gives the text of the frame's eligible tokens, and
    `is_true` says of another rule whether it is true on the same frame: asked only where needed.
    """

    facts: PromptFacts
    role: Role | None
    text: Callable[[], str]
    is_true: Callable[[str], bool]


def active_filters(lock: Lock, rule_id: str, today: date) -> tuple[LockedFilter, ...]:
    """The filters that tune a rule and have not expired, in the lock's order."""
    return tuple(f for f in lock.filters if rule_id in f.rules and not f.expired(today))


def excusing_filter(filters: Sequence[LockedFilter], case: MatchCase) -> str | None:
    """The id of the first filter that excuses the match; None where none does."""
    for tuning in filters:
        if any(_holds(exception, case) for exception in tuning.exceptions):
            return tuning.id
    return None


def _holds(e: FilterException, case: MatchCase) -> bool:
    """Everything that is given must hold."""
    facts = case.facts
    if e.suites and facts.suite not in e.suites:
        return False
    if e.prompts and facts.prompt not in e.prompts:
        return False
    if e.labels and facts.label not in e.labels:
        return False
    if e.tags and not set(e.tags) & set(facts.tags):
        return False
    if e.rule is not None and not case.is_true(e.rule):
        return False
    if e.roles and case.role not in e.roles:
        return False
    return e.text is None or compile_pattern(e.text)(case.text())
