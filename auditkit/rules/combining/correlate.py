"""Matches of several rules → a correlation's verdict on one group.

Every correlation is monotone: it rises with the frames of its present members and falls with those
of its absent ones, and no rule is both (lint refuses that). So whatever the unknown frames turn out
to be, the verdict lies between two plain evaluations: one with every unknown frame as unfavourable
as can be, one as favourable. Where both agree that is the verdict; where not, both are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

from auditkit.core.correlations import (
    CorrelationType,
    Distinct,
    LockedCorrelation,
    SpanUnit,
)
from auditkit.core.verdicts import Reason, Truth

Ends = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFrame:
    """A rule's verdict on one frame, and where in its conversation the frame lies.

    `extent`: first and last of the frame's tokens, messages, exchanges; `frames`: its own number
    twice. Empty where no correlation asks for places.
    """

    rule: str
    prompt: str
    frame: int
    truth: Truth
    reason: Reason | None = None
    extent: Mapping[SpanUnit, Ends] = field(default_factory=dict[SpanUnit, Ends])

    def ends(self, unit: SpanUnit) -> Ends:
        """First and last of a unit."""
        return self.extent[unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVerdict:
    """Whether a correlation holds in a group, and the frames that a true verdict stands on."""

    truth: Truth
    reason: Reason | None = None
    frames: tuple[MemberFrame, ...] = ()


def asks_where(correlation: LockedCorrelation) -> bool:
    """Does it depend on where in the conversation its members' frames lie?"""
    return correlation.within is not None or correlation.type is CorrelationType.SEQUENCE


def judge_group(correlation: LockedCorrelation, frames: Sequence[MemberFrame]) -> GroupVerdict:
    """The verdict on one group, given every frame of every member in it.

    True or false only if it is so whatever the unknown frames are; else unknown, with the first
    reason among them. Without any frame of a present member there was nothing to look at: unknown,
    empty frame.
    """
    own = [f for f in frames if f.rule in correlation.rules]
    if not any(f.rule in correlation.present for f in own):
        return GroupVerdict(truth=Truth.UNKNOWN, reason=Reason.EMPTY_FRAME)
    surely = _witness(correlation, own, favourable=False)
    if surely is not None:
        return GroupVerdict(truth=Truth.TRUE, frames=tuple(surely))
    if _witness(correlation, own, favourable=True) is None:
        return GroupVerdict(truth=Truth.FALSE)
    open_reasons = [f.reason for f in own if f.reason is not None]
    return GroupVerdict(truth=Truth.UNKNOWN, reason=min(open_reasons, key=lambda r: r.rank))


Held = Mapping[str, Sequence[MemberFrame]]
Witness = list[MemberFrame]


def _witness(
    correlation: LockedCorrelation, frames: Sequence[MemberFrame], *, favourable: bool
) -> Witness | None:
    """The frames that make a correlation hold; None where it does not hold."""
    absent = {m.rule for m in correlation.members if m.absent}
    held: dict[str, list[MemberFrame]] = {rule: [] for rule in correlation.rules}
    for f in frames:
        counts = favourable != (f.rule in absent) if f.truth is Truth.UNKNOWN else None
        if f.truth is Truth.TRUE or counts:
            held[f.rule].append(f)
    if correlation.type is CorrelationType.POPULATION:
        return _population(correlation, held, frames)
    if correlation.type is CorrelationType.SEQUENCE:
        return _sequence(correlation, held)
    if any(held[rule] for rule in absent):
        return None
    return _windowed(correlation, held)


def _windowed(correlation: LockedCorrelation, held: Held) -> Witness | None:
    """Some stretch of the group, of the length allowed, in which enough of the members lie."""
    enough = _together if correlation.type is CorrelationType.CO_OCCURRENCE else _counted
    within = correlation.within
    if within is None:
        return enough(correlation, held)
    starts = sorted({f.ends(within.unit)[0] for r in correlation.present for f in held[r]})
    for start in starts:
        inside = {
            rule: [f for f in found if _lies_in(f.ends(within.unit), start, within.count)]
            for rule, found in held.items()
        }
        witness = enough(correlation, inside)
        if witness is not None:
            return witness
    return None


def _lies_in(ends: Ends, start: int, count: int) -> bool:
    return ends[0] >= start and ends[1] < start + count


def _together(correlation: LockedCorrelation, held: Held) -> Witness | None:
    found = [held[rule] for rule in correlation.present]
    return [frames[0] for frames in found] if all(found) else None


def _counted(correlation: LockedCorrelation, held: Held) -> Witness | None:
    found = [f for rule in correlation.present for f in held[rule]]
    keys: Mapping[Distinct | None, Callable[[MemberFrame], object]] = {
        None: lambda f: (f.rule, f.prompt, f.frame),
        Distinct.RULE: lambda f: f.rule,
        Distinct.PROMPT: lambda f: f.prompt,
    }
    key = keys[correlation.distinct]
    counted = {key(f): f for f in reversed(found)}
    assert correlation.at_least is not None
    if len(counted) < correlation.at_least:
        return None
    return [f for f in found if counted[key(f)] is f]


def _population(
    correlation: LockedCorrelation, held: Held, frames: Iterable[MemberFrame]
) -> Witness | None:
    """Prompts in which every present member matches and no absent one does, of those in which
    every present member has a frame."""
    seen = _by_prompt({rule: [f for f in frames if f.rule == rule] for rule in correlation.rules})
    matched = _by_prompt(held)
    asked = [p for p, own in seen.items() if all(r in own for r in correlation.present)]
    witness: Witness = []
    prompts = 0
    for prompt in asked:
        own = matched.get(prompt, {})
        if all(m.absent != (m.rule in own) for m in correlation.members):
            prompts += 1
            witness += [own[rule] for rule in correlation.present]
    wanted = correlation.at_least or 0
    if correlation.share is not None:
        wanted = max(wanted, ceil(Fraction(str(correlation.share)) * len(asked)))
    return witness if asked and prompts >= wanted else None


def _by_prompt(held: Held) -> dict[str, dict[str, MemberFrame]]:
    """For each prompt, the first frame of each rule."""
    prompts: dict[str, dict[str, MemberFrame]] = {}
    for rule, found in held.items():
        for f in found:
            prompts.setdefault(f.prompt, {}).setdefault(rule, f)
    return prompts


def _sequence(correlation: LockedCorrelation, held: Held) -> Witness | None:
    """A chain of frames of the present members, each wholly after the one before, with no match of
    an absent member between its neighbours; first to last within the stretch allowed."""
    gaps = _gaps(correlation)
    for first in held[correlation.present[0]]:
        chains: list[Witness] = [[first]]
        for number, rule in enumerate(correlation.present[1:], start=1):
            chains = _extended(chains, held[rule], [f for r in gaps[number] for f in held[r]])
        for chain in chains:
            if _fits(correlation, held, chain, before=gaps[0], after=gaps[-1]):
                return chain
    return None


def _gaps(correlation: LockedCorrelation) -> list[list[str]]:
    """The absent members before the first present one, between neighbours, and after the last."""
    gaps: list[list[str]] = [[]]
    for member in correlation.members:
        if member.absent:
            gaps[-1].append(member.rule)
        else:
            gaps.append([])
    return gaps


def _extended(
    chains: Sequence[Witness], found: Sequence[MemberFrame], absent: Sequence[MemberFrame]
) -> list[Witness]:
    """One chain for every frame that can come next: how it was reached makes no difference."""
    longer: list[Witness] = []
    for f in found:
        for chain in chains:
            last = chain[-1]
            between = any(_follows(g, last) and _follows(f, g) for g in absent)
            if _follows(f, last) and not between:
                longer.append([*chain, f])
                break
    return longer


def _follows(later: MemberFrame, earlier: MemberFrame) -> bool:
    return later.ends(SpanUnit.TOKENS)[0] > earlier.ends(SpanUnit.TOKENS)[1]


def _fits(
    correlation: LockedCorrelation,
    held: Held,
    chain: Witness,
    *,
    before: Sequence[str],
    after: Sequence[str],
) -> bool:
    first, last = chain[0], chain[-1]
    if not _near(correlation, first, last):
        return False
    earlier = (f for r in before for f in held[r] if _follows(first, f))
    later = (f for r in after for f in held[r] if _follows(f, last))
    return not any(_near(correlation, f, last) for f in earlier) and not any(
        _near(correlation, first, f) for f in later
    )


def _near(correlation: LockedCorrelation, first: MemberFrame, last: MemberFrame) -> bool:
    within = correlation.within
    if within is None:
        return True
    return last.ends(within.unit)[1] - first.ends(within.unit)[0] < within.count
