"""What of a lock a monitor decides, and what only an audit does."""

from __future__ import annotations

from auditkit.core.correlations import GroupBy, LockedCorrelation
from auditkit.core.locks import Frame, Lock


def watched_online(correlation: LockedCorrelation) -> bool:
    """Can it be judged while one conversation goes on? Other groups are of a suite's prompts."""
    return correlation.group_by is GroupBy.CONVERSATION


def offline_parts(lock: Lock) -> tuple[str, ...]:
    """What only an audit decides of `lock`, in sentences for whoever loads it into a monitor."""
    correlations = [
        f"correlation {c.id} is not watched: it groups prompts by {_group(c)}, which only an audit "
        f"of a suite can; the verdicts of {', '.join(c.rules)} are told one by one"
        for c in lock.correlations
        if not watched_online(c)
    ]
    filters = [
        f"filter {f.id} asks for a prompt's suite, label, tag or id: where the caller does not say "
        f"them, it excuses nothing, and matches of {', '.join(f.rules) or 'its rules'} are told"
        for f in lock.filters
        if not f.online
    ]
    twins = [
        f"rule {r.id} compares a message with its twin's: a monitor sees no twin, and where the "
        "verdict hangs on one it is unknown"
        for r in lock.rules
        if r.frame is Frame.PAIRED_MESSAGE
    ]
    return (*correlations, *filters, *twins)


def _group(correlation: LockedCorrelation) -> str:
    tag = "" if correlation.tag is None else f":{correlation.tag}"
    return f"{correlation.group_by.value}{tag}"
