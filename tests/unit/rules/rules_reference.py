"""The rule language a third time: slow, from its definitions, straight from the syntax tree.

It shares no code with the two evaluators beyond the parser and the frames. What is not known is
tried at both ends; every window and every pair of tokens is written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from auditkit.core.fixed_point import lower
from auditkit.core.locks import Calibration, LockedRule, Unit
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Reason
from auditkit.rules import parse_condition as parse_anew
from auditkit.rules import split_frames
from auditkit.rules.language import ast
from tests.unit.rules.rules_worlds import World, token_values, twin_frames

parse_condition = lru_cache(maxsize=64)(parse_anew)
KNOWN = 99
Judged = tuple[bool | None, int]
Seen = tuple[Role, dict[str, int | None]]
UNRESOLVED, NOT_CALIBRATED, NOT_COVERED, EMPTY, NO_TWIN = (
    Reason.UNRESOLVED.rank,
    Reason.NOT_CALIBRATED.rank,
    Reason.NOT_COVERED.rank,
    Reason.EMPTY_FRAME.rank,
    Reason.NO_TWIN.rank,
)


@dataclass(frozen=True)
class Frame:
    """Tokens that are looked at together; `open`: more may come."""

    rule: LockedRule
    tokens: Sequence[Seen]
    open: bool = False
    twin: Sequence[Seen] | None = None

    def seen(self, roles: Sequence[Role]) -> list[Seen]:
        return [t for t in self.tokens if not roles or t[0] in roles]

    def signal(self, name: str):
        return next(s for s in self.rule.signals if s.name == name)

    def floor(self, name: str) -> float:
        s = self.signal(name)
        bounded = s.unit in (Unit.RAW, Unit.FMAX) and all(x.weight >= 0 for x in s.latents)
        return 0 if bounded else -math.inf

    def threshold(self, quantity: ast.Quantity) -> tuple[int | None, int]:
        """The threshold, or why there is none."""
        if isinstance(quantity, ast.Number):
            return lower(quantity.value), KNOWN
        if isinstance(quantity, ast.Calibrated):
            found = self.rule.calibration
            known = isinstance(found, Calibration)
            return (lower(found.threshold) if known else None), NOT_CALIBRATED
        signal = self.signal(quantity.signal)
        if signal.unresolved is not None:
            return None, UNRESOLVED
        found = dict(signal.percentiles).get(quantity.percent)
        return (None if found is None else lower(found)), NOT_CALIBRATED


def holds(op: ast.Op, x: float, t: float) -> bool:
    return {
        ast.Op.GE: x >= t,
        ast.Op.GT: x > t,
        ast.Op.LE: x <= t,
        ast.Op.LT: x < t,
        ast.Op.EQ: x == t,
        ast.Op.NE: x != t,
    }[op]


def over_interval(op: ast.Op, low: float, high: float, t: float) -> bool | None:
    """Do all numbers of [low, high] agree? Its ends and the threshold stand for all of them."""
    points = {low, high, *([t] if low <= t <= high else [])}
    found = {holds(op, x, t) for x in points}
    if low < t < high or (low != high and t in (low, high)):
        found |= {holds(op, x, t) for x in (t, (t - 0.5 if low < t else t + 0.5))}
    return found.pop() if len(found) == 1 else None


def both(parts: Sequence[Judged]) -> Judged:
    return at_least(len(parts), parts)


def flip(judged: Judged) -> Judged:
    return (None if judged[0] is None else not judged[0]), judged[1]


def at_least(k: int, parts: Sequence[Judged]) -> Judged:
    """Try every way in which the unknown parts may come out."""
    true = sum(t is True for t, _ in parts)
    unknown = [r for t, r in parts if t is None]
    ways = {true + more >= k for more in range(len(unknown) + 1)}
    return (ways.pop(), KNOWN) if len(ways) == 1 else (None, min(unknown))


def needed(k: ast.Count, n: int) -> int:
    return {"any": 1, "all": n, "none": 1}[k] if isinstance(k, str) else k


def of(k: ast.Count, parts: Sequence[Judged]) -> Judged:
    found = at_least(needed(k, len(parts)), parts)
    return flip(found) if k == "none" else found


def test_at(test: ast.TokenTest, token: Seen, frame: Frame) -> Judged:
    match test:
        case ast.TokenCompare(signal=ref, op=op, quantity=quantity):
            t, why = frame.threshold(quantity)
            value, unresolved = token[1][ref.name], frame.signal(ref.name).unresolved is not None
            reasons = [UNRESOLVED] if unresolved else [NOT_COVERED] if value is None else []
            if t is None:
                return None, min([why, *reasons])
            if unresolved:
                return None, UNRESOLVED
            low, high = (value, value) if value is not None else (lower_floor(frame, ref), math.inf)
            truth = over_interval(op, low, high, t)
            return truth, KNOWN if truth is not None else NOT_COVERED
        case ast.TokenNot(operand=operand):
            return flip(test_at(operand, token, frame))
        case ast.TokenAnd(operands=operands):
            return both([test_at(o, token, frame) for o in operands])
        case ast.TokenOr(operands=operands):
            return at_least(1, [test_at(o, token, frame) for o in operands])
        case ast.TokenOf(k=k, operands=operands):
            return of(k, [test_at(o, token, frame) for o in operands])


def lower_floor(frame: Frame, ref: ast.SignalRef) -> float:
    return frame.floor(ref.name)


def signal_statistic(function: str, argument: float | None, values: Sequence[float]) -> float:
    """A statistic of plain numbers, by its definition."""
    n = len(values)
    match function:
        case "max":
            return max(values)
        case "sum":
            return sum(values)
        case "mean":
            return mean(values)
        case "quantile":
            return sorted(values)[math.ceil(Fraction(str(argument)) * n) - 1]
        case "topk_mean":
            return mean(sorted(values, reverse=True)[: int(argument or 0)])
        case _:
            w = int(argument or 0)
            return max(mean(values[i : i + w]) for i in range(max(1, n - w + 1)))


def mean(values: Sequence[float]) -> float:
    total = sum(values)
    return total if math.isinf(total) else Fraction(total, len(values))


def test_statistic(function: str, truths: Sequence[bool]) -> float:
    """A statistic of tokens that satisfy a test or do not, by its definition, × 2²⁰."""
    places = [i for i, t in enumerate(truths) if t]
    match function:
        case "count":
            found: float = len(places)
        case "frac":
            found = Fraction(len(places), len(truths))
        case "run":
            lengths = [
                j - i
                for i in range(len(truths) + 1)
                for j in range(i, len(truths) + 1)
                if all(truths[i:j])
            ]
            found = max(lengths)
        case "first":
            found = min(places, default=math.inf)
        case _:
            found = max(places, default=-math.inf)
    return found * 2**20


def roles_of(test: ast.TokenTest) -> tuple[Role, ...]:
    return next(n.roles for n in ast.walk(test) if isinstance(n, ast.SignalRef))


def static(tests: Sequence[ast.TokenTest], frame: Frame) -> list[int]:
    """Reasons that hold whatever the tokens are."""
    found: list[int] = []
    for n in (n for test in tests for n in ast.walk(test) if isinstance(n, ast.TokenCompare)):
        if frame.signal(n.signal.name).unresolved is not None:
            found.append(UNRESOLVED)
        t, why = frame.threshold(n.quantity)
        if t is None:
            found.append(why)
    return found


def bounds(node: ast.Statistic, frame: Frame) -> tuple[float, float, int] | int:
    """(least, greatest, reason for their distance), or the reason why there is no value."""
    if isinstance(node, ast.Difference):
        return between(node.aggregate, frame)
    if isinstance(node, ast.SignalStatistic):
        ref = node.signal
        if frame.signal(ref.name).unresolved is not None:
            return UNRESOLVED
        values = [t[1][ref.name] for t in frame.seen(ref.roles)]
        if not values or (
            frame.open and node.function == "rolling_mean_max" and len(values) < node.argument
        ):
            return EMPTY
        ends = [
            signal_statistic(node.function, node.argument, [x if v is None else v for v in values])
            for x in (frame.floor(ref.name), math.inf)
        ]
        return ends[0], ends[1], NOT_COVERED if None in values else KNOWN
    assert isinstance(node, ast.TokenStatistic)
    judged = [test_at(node.test, t, frame) for t in frame.seen(roles_of(node.test))]
    if not judged:
        return min([EMPTY, *static([node.test], frame)])
    ends = [
        test_statistic(node.function, [x if t is None else t for t, _ in judged])
        for x in (False, True)
    ]
    return min(ends), max(ends), min(r for _, r in judged)


def between(node: ast.Aggregate, frame: Frame) -> tuple[float, float, int] | int:
    """The message's statistic less its twin's: every value of one less every value of the other."""
    own = bounds(node, frame)
    twin = NO_TWIN if frame.twin is None else bounds(node, replace(frame, tokens=frame.twin))
    reasons = [
        side if isinstance(side, int) else side[2]
        for side in (own, twin)
        if isinstance(side, int) or side[0] != side[1]
    ]
    if isinstance(own, int) or isinstance(twin, int):
        return min(reasons)
    found = [less(x, y) for x in own[:2] for y in twin[:2]]
    return min(found), max(found), min(reasons, default=KNOWN)


def less(x: float, y: float) -> float:
    """x − y; of two places that are both beyond every place: 0."""
    if math.isinf(x) or math.isinf(y):
        return 0 if x == y else x - y
    return x - y


def compared(node: ast.Statistic, op: ast.Op, quantity: ast.Quantity, frame: Frame) -> Judged:
    found = bounds(node, frame)
    t, why = frame.threshold(quantity)
    if isinstance(found, int):
        return None, min(found, KNOWN if t is not None else why)
    if t is None:
        return None, min(why, found[2])
    truth = over_interval(op, found[0], found[1], t)
    return truth, KNOWN if truth is not None else found[2]


def judge(node: ast.Expr, frame: Frame) -> Judged:
    let = {name: parse_condition(text) for name, text in frame.rule.let}
    match node:
        case ast.And(operands=operands):
            return both([judge(o, frame) for o in operands])
        case ast.Or(operands=operands):
            return at_least(1, [judge(o, frame) for o in operands])
        case ast.Not(operand=operand):
            return flip(judge(operand, frame))
        case ast.Of(k=k, operands=operands):
            return of(k, [judge(o, frame) for o in operands])
        case ast.OfNames(k=k, pattern=pattern):
            start = pattern.rstrip("*")
            names = [n for n in let if pattern == "them" or n.startswith(start)]
            return of(k, [judge(let[n], frame) for n in names])
        case ast.LetRef(name=name):
            return judge(let[name], frame)
        case ast.Quantified(quantifier="any", test=test):
            return existence(
                [test_at(test, t, frame) for t in frame.seen(roles_of(test))], [test], frame
            )
        case ast.Quantified(test=test):
            judged = [test_at(test, t, frame) for t in frame.seen(roles_of(test))]
            return flip(existence([flip(j) for j in judged], [test], frame))
        case ast.Compare(statistic=statistic, op=op, quantity=quantity):
            return compared(statistic, op, quantity, frame)
        case ast.InRange(statistic=statistic, low=low, high=high):
            ends = ((ast.Op.GE, low), (ast.Op.LE, high))
            return both([compared(statistic, op, q, frame) for op, q in ends])
        case ast.Defined(name=name):
            resolved = frame.signal(name).unresolved is None
            return (resolved, KNOWN) if frame.tokens else (None, EMPTY)
        case ast.Then():
            return then(node, frame)
        case ast.Window():
            return window(node, frame)


def existence(judged: Sequence[Judged], tests: Sequence[ast.TokenTest], frame: Frame) -> Judged:
    if not judged:
        return None, min([EMPTY, *static(tests, frame)])
    found = at_least(1, judged)
    if found[0] is not None or len(tests) > 1:
        return found
    return None, min(r for _, r in judged)


def then(node: ast.Then, frame: Frame) -> Judged:
    tests = [node.first, node.second]
    sides = [roles_of(t) for t in tests]
    if not all(frame.seen(roles) for roles in sides):
        return None, min([EMPTY, *static(tests, frame)])

    def at(side: int, token: Seen) -> Judged:
        outside = sides[side] and token[0] not in sides[side]
        return (False, KNOWN) if outside else test_at(tests[side], token, frame)

    pairs = [
        both([at(0, a), at(1, b)])
        for i, a in enumerate(frame.tokens)
        for j, b in enumerate(frame.tokens)
        if 0 < j - i <= node.within
    ]
    return at_least(1, pairs or [(False, KNOWN)])


def parts(node: ast.Expr, let: dict[str, ast.Expr]) -> list[ast.Expr]:
    """The comparisons that an expression comes to."""
    if isinstance(node, ast.LetRef):
        return parts(let[node.name], let)
    if isinstance(node, ast.OfNames):
        start = node.pattern.rstrip("*")
        names = [n for n in let if node.pattern == "them" or n.startswith(start)]
        return [p for n in names for p in parts(let[n], let)]
    if isinstance(node, ast.And | ast.Or | ast.Of):
        return [p for o in node.operands for p in parts(o, let)]
    if isinstance(node, ast.Not):
        return parts(node.operand, let)
    return [] if isinstance(node, ast.Defined) else [node]


def sees_none(part: ast.Expr, frame: Frame) -> bool:
    if isinstance(part, ast.Then):
        sides = [roles_of(part.first), roles_of(part.second)]
    elif isinstance(part, ast.Quantified):
        sides = [roles_of(part.test)]
    elif isinstance(part.statistic, ast.SignalStatistic):
        sides = [part.statistic.signal.roles]
    else:
        sides = [roles_of(part.statistic.test)]
    return any(not frame.seen(roles) for roles in sides)


def window(node: ast.Window, frame: Frame) -> Judged:
    let = {name: parse_condition(text) for name, text in frame.rule.let}
    own = parts(node.operand, let)
    blind = [judge(p, frame)[1] for p in own if sees_none(p, frame)]
    if blind:
        return None, min(blind)
    n = len(frame.tokens)
    if n < node.size and frame.open:
        return None, EMPTY
    found: list[Judged] = []
    for start in range(max(1, n - node.size + 1)):
        piece = Frame(frame.rule, frame.tokens[start : start + node.size])
        blank = any(sees_none(p, piece) for p in own)
        found.append((False, KNOWN) if blank else judge(node.operand, piece))
    return at_least(1, found)


def latches(node: ast.Expr, let: dict[str, ast.Expr]) -> bool:
    """Once true, is it true of whatever follows?"""
    match node:
        case ast.And(operands=operands) | ast.Or(operands=operands):
            return all(latches(o, let) for o in operands)
        case ast.Of(k=k, operands=operands):
            return k != "none" and all(latches(o, let) for o in operands)
        case ast.OfNames(k=k):
            names = [n for n in let if node.pattern == "them" or n.startswith(node.pattern[:-1])]
            return k != "none" and all(latches(let[n], let) for n in names)
        case ast.LetRef(name=name):
            return latches(let[name], let)
        case ast.Quantified(quantifier=quantifier):
            return quantifier == "any"
        case ast.Compare(statistic=statistic, op=op):
            if isinstance(statistic, ast.Difference):
                return False
            if statistic.function == "first":
                return op in (ast.Op.LE, ast.Op.LT)
            rising = ("max", "count", "run", "rolling_mean_max")
            return op in (ast.Op.GE, ast.Op.GT) and statistic.function in rising
        case ast.Then() | ast.Window() | ast.Defined():
            return True
        case _:
            return False


def reference_rows(rule: LockedRule, world: World, masked: TokenMask) -> list[tuple[object, ...]]:
    """(prompt, frame, verdict, reason, at, token) of every frame."""
    rows: list[tuple[object, ...]] = []
    tree, let = parse_condition(rule.condition), {n: parse_condition(t) for n, t in rule.let}
    early = latches(tree, let)
    for prompt, tokens in world.prompts.items():
        twins = [
            [(t.role, t.values) for t in found]
            for found in twin_frames(rule, world, prompt, masked)
        ]
        places = [(t.role, t.message, t.mask) for t in tokens]
        for number, members in enumerate(split_frames(rule.frame, rule.scope, masked, places)):
            seen = [(tokens[i].role, token_values(rule, tokens[i])) for i in members]
            frame = Frame(rule, seen, twin=twins[number] if number < len(twins) else None)
            truth, rank = judge(tree, frame)
            at = None
            if truth:
                at = next((t for t in range(len(seen)) if early and _by(tree, frame, t)), None)
                at = len(seen) - 1 if at is None else at
            reason = list(Reason)[rank].value if truth is None else None
            verdict = "unknown" if truth is None else str(truth).lower()
            token = None if at is None else tokens[members[at]].token
            rows.append((prompt, number, verdict, reason, at, token))
    return rows


def _by(tree: ast.Expr, frame: Frame, t: int) -> bool:
    return judge(tree, replace(frame, tokens=frame.tokens[: t + 1], open=True))[0] is True
