"""Typed exceptions to rules, kept apart from them: what they excuse, why, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from auditkit.core.prompts import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterException:
    """One kind of match that is excused: everything that is given must hold.

    `suites`, `labels`, `tags`, `prompts`: those of the match's prompt (one of the names given is
    enough). `roles`: the role of the firing token. `text`: an RE2 pattern that is found in the
    text of the frame's eligible tokens. `rule`: another rule, true on the same frame.
    """

    suites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    text: str | None = None
    rule: str | None = None

    @property
    def asks_of_prompt(self) -> bool:
        """Does it need what only a suite says of a prompt? A monitor knows none of that."""
        return bool(self.suites or self.labels or self.tags or self.prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFilter:
    """A filter with the rules that it tunes by id.

    A match that one of `exceptions` excuses stays a match, and carries the filter's id. `date` and
    `expires` are days as YYYY-MM-DD; from `expires` on the filter excuses nothing.
    """

    id: str
    rev: int
    digest: str
    title: str
    reason: str
    author: str
    date: str
    expires: str | None
    rules: tuple[str, ...]
    exceptions: tuple[FilterException, ...]

    def expired(self, today: date) -> bool:
        """Is it past its last day?"""
        return self.expires is not None and today >= date.fromisoformat(self.expires)

    @property
    def online(self) -> bool:
        """Can a monitor decide every one of its exceptions?"""
        return not any(e.asks_of_prompt for e in self.exceptions)
