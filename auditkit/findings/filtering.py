"""Filters: which true matches are excused, and by which filter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from auditkit.core.filters import FilterException, LockedFilter
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.recordings import Recording
from auditkit.core.verdicts import Match, Truth
from auditkit.findings.places import PromptTokens, read_prompt_tokens
from auditkit.rules import compile_pattern
from auditkit.store import Store

OtherMatches = Callable[[LockedRule], Sequence[Match]]
"""The matches of another rule on the same recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What exceptions ask of: the rule, its prompts' tokens and labels, and other rules."""

    rule: LockedRule
    suite: str
    tokens: Mapping[str, PromptTokens]
    labels: Mapping[str, str | None]
    tags: Mapping[str, tuple[str, ...]]
    others: Mapping[str, frozenset[tuple[str, int]]]


def active_filters(lock: Lock, rule_id: str, today: date) -> tuple[LockedFilter, ...]:
    """The filters that tune a rule and have not expired, in the lock's order."""
    return tuple(f for f in lock.filters if rule_id in f.rules and not f.expired(today))


def mark_filtered(
    matches: Sequence[Match],
    rule: LockedRule,
    lock: Lock,
    store: Store,
    recording: Recording,
    *,
    today: date,
    others: OtherMatches,
) -> tuple[Match, ...]:
    """The matches, the excused ones among them with the first filter that excuses them.

    Only true matches are excused; an exception by another rule holds only where that is true.
    """
    filters = active_filters(lock, rule.id, today)
    true = sorted({m.prompt_id for m in matches if m.truth is Truth.TRUE})
    if not filters or not true:
        return tuple(matches)
    evidence = _gather(filters, true, rule, lock, store, recording, others)
    return tuple(
        replace(m, filtered_by=_excused_by(m, filters, evidence)) if m.truth is Truth.TRUE else m
        for m in matches
    )


def _gather(
    filters: Sequence[LockedFilter],
    prompts: Sequence[str],
    rule: LockedRule,
    lock: Lock,
    store: Store,
    recording: Recording,
    others: OtherMatches,
) -> _Evidence:
    asked = [e for f in filters for e in f.exceptions]
    of_tokens = any(e.roles or e.text is not None for e in asked)
    rows = store.prompts(recording.id).select(["prompt", "label", "tags"]).to_pylist()
    named = {e.rule for e in asked if e.rule is not None}
    return _Evidence(
        rule=rule,
        suite=recording.suite,
        tokens=read_prompt_tokens(store, recording.id, prompts if of_tokens else (), lock.masked),
        labels={r["prompt"]: r["label"] for r in rows},
        tags={r["prompt"]: tuple(json.loads(r["tags"] or "[]")) for r in rows},
        others={
            r.id: frozenset((m.prompt_id, m.frame) for m in others(r) if m.truth is Truth.TRUE)
            for r in lock.rules
            if r.id in named
        },
    )


def _excused_by(match: Match, filters: Sequence[LockedFilter], evidence: _Evidence) -> str | None:
    for tuning in filters:
        if any(_holds(exception, match, evidence) for exception in tuning.exceptions):
            return tuning.id
    return None


def _holds(e: FilterException, match: Match, evidence: _Evidence) -> bool:
    """Everything that is given must hold."""
    prompt = match.prompt_id
    if e.suites and evidence.suite not in e.suites:
        return False
    if e.prompts and prompt not in e.prompts:
        return False
    if e.labels and evidence.labels.get(prompt) not in e.labels:
        return False
    if e.tags and not set(e.tags) & set(evidence.tags.get(prompt, ())):
        return False
    if e.rule is not None and (prompt, match.frame) not in evidence.others.get(e.rule, ()):
        return False
    if e.roles and _role_of(match, evidence) not in e.roles:
        return False
    if e.text is None:
        return True
    return compile_pattern(e.text)(evidence.tokens[prompt].text(evidence.rule, match.frame))


def _role_of(match: Match, evidence: _Evidence) -> object:
    return None if match.token is None else evidence.tokens[match.prompt_id].role(match.token)
