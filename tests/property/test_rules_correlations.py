"""A correlation's verdict is the one that holds whatever its unknown members are: against a naive
reference that tries every way in which they could turn out."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise, product

from auditkit.core.correlations import (
    CorrelationMember,
    CorrelationType,
    Distinct,
    GroupBy,
    LockedCorrelation,
    SpanUnit,
    Within,
)
from auditkit.core.standing import Severity, Status
from auditkit.core.verdicts import Reason, Truth
from auditkit.rules import MemberFrame, judge_group

CASES = int(os.environ.get("AUDITKIT_CORRELATION_CASES", "2500"))
RULES = ("a", "b", "c")
UNITS = tuple(SpanUnit)


def correlation(members: Sequence[tuple[str, bool]], **given: object) -> LockedCorrelation:
    made = LockedCorrelation(
        id="x", rev=1, digest="d", title="t", description="", severity=Severity.LOW,
        status=Status.TEST, tags=(), false_positives=(), type=CorrelationType.COUNT,
        members=tuple(CorrelationMember(rule=r, absent=absent) for r, absent in members),
        group_by=GroupBy.CONVERSATION,
    )  # fmt: skip
    return replace(made, **given)


def random_correlation(rng: random.Random) -> LockedCorrelation:
    kind = rng.choice(list(CorrelationType))
    absent = rng.sample(RULES, rng.choice([0, 0, 1, 1, 2]))
    present = [r for r in RULES if r not in absent]
    members = [(r, False) for r in rng.sample(present, rng.randint(1, len(present)))]
    if kind is CorrelationType.SEQUENCE and rng.random() < 0.4:
        members.append((rng.choice(present), False))
    for rule in absent:
        members.insert(rng.randint(0, len(members)), (rule, True))
    given: dict[str, object] = {"type": kind}
    if kind is CorrelationType.POPULATION:
        given["at_least"] = rng.choice([None, 1, 2])
        given["share"] = rng.choice([0.3, 0.5, 1.0]) if given["at_least"] is None else None
        given["group_by"] = GroupBy.SUITE
    elif rng.random() < 0.5:
        given["within"] = Within(count=rng.randint(1, 6), unit=rng.choice(UNITS))
    if kind is CorrelationType.COUNT:
        given |= {"at_least": rng.randint(1, 4), "distinct": rng.choice([None, *Distinct])}
    return correlation(members, **given)


def random_frames(rng: random.Random, *, prompts: int) -> list[MemberFrame]:
    frames: list[MemberFrame] = []
    for rule in RULES:
        for prompt in range(prompts):
            for number in range(rng.randint(0, 2 if prompts > 1 else 3)):
                first = rng.randint(0, 9)
                last = first + rng.randint(0, 3)
                truth = rng.choice([Truth.TRUE, Truth.FALSE, Truth.UNKNOWN])
                frames.append(
                    MemberFrame(
                        rule=rule,
                        prompt=str(prompt),
                        frame=number,
                        truth=truth,
                        reason=rng.choice(list(Reason)) if truth is Truth.UNKNOWN else None,
                        extent={
                            SpanUnit.TOKENS: (first, last),
                            SpanUnit.MESSAGES: (first // 2, last // 2),
                            SpanUnit.EXCHANGES: (first // 4, last // 4),
                            SpanUnit.FRAMES: (number, number),
                        },
                    )
                )
    return frames


def holds(c: LockedCorrelation, held: list[MemberFrame], every: list[MemberFrame]) -> bool:
    """The definition, tried out on every choice of frames."""
    own = {r: [f for f in held if f.rule == r] for r in c.rules}
    absent = [m.rule for m in c.members if m.absent]
    if c.type is CorrelationType.POPULATION:
        return population_holds(c, held, every, absent)
    if c.type is CorrelationType.SEQUENCE:
        chains = product(*(own[r] for r in c.present))
        return any(is_sequence(c, chain, own) for chain in chains)
    if any(own[r] for r in absent):
        return False
    if c.type is CorrelationType.CO_OCCURRENCE:
        return any(is_near(c, choice) for choice in product(*(own[r] for r in c.present)))
    pool = [f for r in dict.fromkeys(c.present) for f in own[r]]
    choices = (s for n in range(1, len(pool) + 1) for s in combinations(pool, n))
    return any(is_near(c, s) and number(c, s) >= (c.at_least or 0) for s in choices)


def number(c: LockedCorrelation, frames: Sequence[MemberFrame]) -> int:
    if c.distinct is Distinct.RULE:
        return len({f.rule for f in frames})
    return len({f.prompt for f in frames}) if c.distinct is Distinct.PROMPT else len(frames)


def is_near(c: LockedCorrelation, frames: Sequence[MemberFrame]) -> bool:
    if c.within is None:
        return True
    ends = [f.extent[c.within.unit] for f in frames]
    return max(e[1] for e in ends) - min(e[0] for e in ends) + 1 <= c.within.count


def after(later: MemberFrame, earlier: MemberFrame) -> bool:
    return later.extent[SpanUnit.TOKENS][0] > earlier.extent[SpanUnit.TOKENS][1]


def is_sequence(
    c: LockedCorrelation, chain: Sequence[MemberFrame], own: dict[str, list[MemberFrame]]
) -> bool:
    if not all(after(b, a) for a, b in pairwise(chain)):
        return False
    first, last = chain[0], chain[-1]
    if (
        c.within
        and last.extent[c.within.unit][1] - first.extent[c.within.unit][0] >= c.within.count
    ):
        return False
    place = 0
    for member in c.members:
        if not member.absent:
            place += 1
            continue
        for g in own[member.rule]:
            if place == 0:
                wrong = after(first, g) and ends_near(c, g, last)
            elif place == len(chain):
                wrong = after(g, last) and ends_near(c, first, g)
            else:
                wrong = after(g, chain[place - 1]) and after(chain[place], g)
            if wrong:
                return False
    return True


def ends_near(c: LockedCorrelation, first: MemberFrame, last: MemberFrame) -> bool:
    if c.within is None:
        return True
    return last.extent[c.within.unit][1] - first.extent[c.within.unit][0] + 1 <= c.within.count


def population_holds(
    c: LockedCorrelation, held: list[MemberFrame], every: list[MemberFrame], absent: list[str]
) -> bool:
    def having(frames: list[MemberFrame], rule: str) -> set[str]:
        return {f.prompt for f in frames if f.rule == rule}

    asked = set.intersection(*(having(every, r) for r in c.present))
    yes = {
        p
        for p in asked
        if all(p in having(held, r) for r in c.present)
        and not any(p in having(held, r) for r in absent)
    }
    enough = c.share is None or Fraction(len(yes)) >= Fraction(str(c.share)) * len(asked)
    return bool(asked) and enough and len(yes) >= (c.at_least or 0)


def outcomes(c: LockedCorrelation, frames: list[MemberFrame]) -> Iterator[bool]:
    """What every way of filling the unknown frames gives."""
    own = [f for f in frames if f.rule in c.rules]
    true = [f for f in own if f.truth is Truth.TRUE]
    unknown = [f for f in own if f.truth is Truth.UNKNOWN]
    for choice in product([False, True], repeat=len(unknown)):
        filled = [f for f, yes in zip(unknown, choice, strict=True) if yes]
        yield holds(c, [f for f in own if f in true or f in filled], own)


def test_the_verdict_is_that_of_every_way_to_fill_the_unknown_frames() -> None:
    rng = random.Random(20261)
    seen: dict[tuple[CorrelationType, Truth], int] = {}
    done = 0
    while done < CASES:
        c = random_correlation(rng)
        frames = random_frames(rng, prompts=1 if c.group_by is GroupBy.CONVERSATION else 3)
        own = [f for f in frames if f.rule in c.rules]
        if sum(f.truth is Truth.UNKNOWN for f in own) > 5 or len(own) > 9:
            continue
        done += 1
        found = judge_group(c, frames)
        seen[c.type, found.truth] = seen.get((c.type, found.truth), 0) + 1
        if not any(f.rule in c.present for f in own):
            assert found.reason is Reason.EMPTY_FRAME
            continue
        possible = set(outcomes(c, frames))
        expected = Truth.UNKNOWN if len(possible) == 2 else Truth(str(possible.pop()).lower())
        assert found.truth is expected, (c, frames)
        if found.truth is Truth.UNKNOWN:
            reasons = [f.reason for f in own if f.reason is not None]
            assert found.reason is min(reasons, key=lambda r: r.rank)
        if found.truth is Truth.TRUE:
            assert all(f.truth is Truth.TRUE and f.rule in c.present for f in found.frames)
            present = set(c.present)
            assert c.type is CorrelationType.COUNT or {f.rule for f in found.frames} == present
            lone = [f for f in own if f.truth is not Truth.TRUE or f.rule not in present]
            falsified = [replace(f, truth=Truth.FALSE, reason=None) for f in lone]
            if c.type is not CorrelationType.POPULATION:
                assert judge_group(c, [*found.frames, *falsified]).truth is Truth.TRUE
    assert len(seen) == len(CorrelationType) * len(Truth)
    assert min(seen.values()) >= CASES // 100, seen


def test_a_group_in_which_no_member_has_a_frame_is_unknown() -> None:
    found = judge_group(correlation([("a", False)], at_least=1), [])
    assert (found.truth, found.reason) == (Truth.UNKNOWN, Reason.EMPTY_FRAME)
