"""A statistic of a message less the same statistic of its twin: intervals, exact in integers."""

from __future__ import annotations

from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.kleene import KNOWN, Held
from auditkit.rules.lowered.plan import FAR, Statistic

PLACES = (Statistic.FIRST, Statistic.LAST)
"""Statistics that are a place, or beyond every place where no token satisfies their test."""


def subtract(own: Held, twin: Held | None, *, place: bool) -> Held:
    """own − twin, each an interval times its own share; the result's share is their product.

    Without a twin nothing is known, for the reason "no twin" (or what is unknown of `own`, if that
    comes first). Of two places that are both beyond every place the difference is 0; of one and a
    token's, beyond every number.
    """
    if twin is None:
        return Held(None, None, own.share, min(_open(own), Reason.NO_TWIN.rank))
    low = _minus(own.low, twin.share, twin.high, own.share, place=place)
    high = _minus(own.high, twin.share, twin.low, own.share, place=place)
    return Held(low, high, own.share * twin.share, min(_open(own), _open(twin)))


def _open(held: Held) -> int:
    """The first reason for what is not known of a side; none where its value is known."""
    return KNOWN if held.low is not None and held.low == held.high else held.rank


def _minus(
    own: int | None, own_by: int, twin: int | None, twin_by: int, *, place: bool
) -> int | None:
    if own is None or twin is None:
        return None
    found = own * own_by - twin * twin_by
    if place and abs(found) > FAR // 2:
        return FAR if found > 0 else -FAR
    return found
