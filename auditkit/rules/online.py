"""What a monitor leaves out of a lock, in sentences: it must be said where a lock is loaded."""

from __future__ import annotations

from auditkit.core.locks import Lock


def offline_parts(lock: Lock) -> tuple[str, ...]:
    """The parts of `lock` that only an audit evaluates: correlations and filters."""
    correlations = [
        f"correlation {c.id} is not watched: a monitor tells the verdicts of "
        f"{', '.join(c.rules)} one by one, and only an audit combines them"
        for c in lock.correlations
    ]
    filters = [
        f"filter {f.id} is not applied: a monitor tells every match of "
        f"{', '.join(f.rules) or 'its rules'}, and only an audit excuses some"
        for f in lock.filters
    ]
    return (*correlations, *filters)
