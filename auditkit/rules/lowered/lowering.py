"""Locked rule → plan: names resolved, thresholds lowered to integers, sugar removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import SCALE
from auditkit.core.locks import Frame, LockedRule
from auditkit.core.prompts import Role
from auditkit.rules.language import ast
from auditkit.rules.language.condition import parse_condition
from auditkit.rules.lowered.monotone import is_latching
from auditkit.rules.lowered.plan import (
    Cut,
    FrameAtLeast,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    PlanAggregate,
    Statistic,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
    frame_cuts,
)
from auditkit.rules.lowered.pooling import lower_signal
from auditkit.rules.lowered.quantities import Quantities

AT_LEAST_ONE = Cut(op=ast.Op.GE, threshold=SCALE)


def names_like(pattern: str, names: Sequence[str]) -> list[str]:
    """The names under `let` that `k of PATTERN` means, in their order (`them`: all)."""
    return [n for n in names if pattern == "them" or fnmatchcase(n, pattern)]


def lower_rule(rule: LockedRule | Plan) -> Plan:
    """Lower a locked rule; a plan is returned as it is.

    Raises InvalidInput where a name or unit does not fit, or a part of the language stands where
    it means nothing.
    """
    return rule if isinstance(rule, Plan) else _Lowering(rule).plan()


class _Lowering:
    def __init__(self, rule: LockedRule) -> None:
        self.rule = rule
        self.quantities = Quantities(rule)
        self.numbers = {signal.name: i for i, signal in enumerate(rule.signals)}
        self.let = {name: parse_condition(text) for name, text in rule.let}
        self.open: list[str] = []
        self.window = 0
        self.aggregates: dict[PlanAggregate, int] = {}

    def plan(self) -> Plan:
        root = self.frame(parse_condition(self.rule.condition))
        if not list(frame_cuts(root)):
            raise self.invalid("the condition looks at no token")
        aggregates = tuple(self.aggregates)
        scored = _scored(root, aggregates)
        return Plan(
            signals=tuple(lower_signal(s) for s in self.rule.signals),
            aggregates=aggregates,
            root=root,
            latching=is_latching(root, aggregates),
            score=_outside(scored.aggregate, aggregates),
            frame=self.rule.frame,
            scope=self.rule.scope,
            score_paired=scored.paired,
        )

    def invalid(self, message: str) -> InvalidInput:
        return self.quantities.invalid(message)

    def frame(self, node: ast.Expr) -> FrameNode:
        match node:
            case ast.And(operands=operands):
                return FrameAtLeast(k=len(operands), operands=self.frames(operands))
            case ast.Or(operands=operands):
                return FrameAtLeast(k=1, operands=self.frames(operands))
            case ast.Not(operand=operand):
                return FrameNot(operand=self.frame(operand))
            case ast.Of(k=k, operands=operands):
                return self.at_least(k, self.frames(operands))
            case ast.OfNames(k=k, pattern=pattern):
                names = names_like(pattern, list(self.let))
                return self.at_least(k, tuple(self.named(name) for name in names))
            case ast.LetRef(name=name):
                return self.named(name)
            case ast.Quantified(quantifier="any", test=test):
                return self.any_token(test)
            case ast.Quantified(test=test):
                return FrameCut(aggregate=self.over_tokens(Statistic.FRAC, test), cut=AT_LEAST_ONE)
            case ast.Compare(statistic=statistic, op=op, quantity=quantity):
                return self.compare(statistic, op, quantity)
            case ast.InRange(statistic=statistic, low=low, high=high):
                above = self.compare(statistic, ast.Op.GE, low)
                below = self.compare(statistic, ast.Op.LE, high)
                return FrameAtLeast(k=2, operands=(above, below))
            case ast.Defined(name=name):
                resolved = self.rule.signals[self.signal(name)].unresolved is None
                return FrameKnown(truth=resolved)
            case ast.Window():
                return self.in_window(node)
            case ast.Then():
                return self.then(node)

    def frames(self, nodes: tuple[ast.Expr, ...]) -> tuple[FrameNode, ...]:
        return tuple(self.frame(n) for n in nodes)

    def at_least(self, k: ast.Count, operands: tuple[FrameNode, ...]) -> FrameNode:
        if k == "none":
            return FrameNot(operand=FrameAtLeast(k=1, operands=operands))
        return FrameAtLeast(k=self.needed(k, len(operands)), operands=operands)

    def needed(self, k: ast.Count, n: int) -> int:
        number = {"any": 1, "all": n, "none": 1}[k] if isinstance(k, str) else k
        if not 1 <= number <= n:
            raise self.invalid(f"'{k} of' {n} operands does not depend on them")
        return number

    def named(self, name: str) -> FrameNode:
        if name not in self.let:
            raise self.invalid(f"unknown name {name!r} in the condition")
        if name in self.open:
            raise self.invalid(f"let: {' → '.join([*self.open, name])} is circular")
        self.open.append(name)
        node = self.frame(self.let[name])
        self.open.pop()
        return node

    def in_window(self, node: ast.Window) -> FrameNode:
        if self.window:
            raise self.invalid("a window inside a window")
        self.window = self.quantities.near("window", node.size)
        operand = self.frame(node.operand)
        self.window = 0
        if not list(frame_cuts(operand)):
            raise self.invalid("a window over an expression that looks at no token")
        return FrameWindow(size=node.size, operand=operand)

    def then(self, node: ast.Then) -> FrameNode:
        pair = PlanAggregate(
            statistic=Statistic.THEN,
            roles=self.roles_of(node.first),
            test=self.token(node.first),
            argument=self.quantities.near("within", node.within),
            second=self.token(node.second),
            second_roles=self.roles_of(node.second),
            window=self.window,
        )
        return FrameCut(aggregate=self.number(pair), cut=AT_LEAST_ONE)

    def any_token(self, test: ast.TokenTest) -> FrameNode:
        """`any(sig >= x)` is `max(sig) >= x`, which has a value worth reporting as a score."""
        if isinstance(test, ast.TokenCompare) and test.op in (ast.Op.GE, ast.Op.GT):
            maximum = ast.SignalStatistic("max", test.signal)
            return self.compare(maximum, test.op, test.quantity)
        return FrameCut(aggregate=self.over_tokens(Statistic.COUNT, test), cut=AT_LEAST_ONE)

    def compare(self, statistic: ast.Statistic, op: ast.Op, quantity: ast.Quantity) -> FrameCut:
        if isinstance(statistic, ast.Difference):
            return self.difference(statistic, op, quantity)
        function = Statistic(statistic.function)
        if isinstance(statistic, ast.TokenStatistic):
            aggregate = self.over_tokens(function, statistic.test)
            units: set[str | None] = {None} if function is Statistic.FRAC else {None, "tokens"}
        else:
            number, roles = self.signal(statistic.signal.name), statistic.signal.roles
            argument = self.quantities.argument(function, statistic.argument)
            aggregate = self.number(
                PlanAggregate(
                    statistic=function,
                    roles=roles,
                    signal=number,
                    argument=argument,
                    window=self.window,
                )
            )
            units = {None, self.rule.signals[number].unit.value}
        return FrameCut(aggregate=aggregate, cut=self.quantities.cut(op, quantity, units))

    def difference(self, node: ast.Difference, op: ast.Op, quantity: ast.Quantity) -> FrameCut:
        if self.rule.frame is not Frame.PAIRED_MESSAGE:
            raise self.invalid("diff(…) compares with a twin's message: frame: paired_message")
        if self.window:
            raise self.invalid("diff(…) inside a window: it compares whole messages")
        return replace(self.compare(node.aggregate, op, quantity), paired=True)

    def roles_of(self, test: ast.TokenTest) -> tuple[Role, ...]:
        roles = {n.roles for n in ast.walk(test) if isinstance(n, ast.SignalRef)}
        if len({frozenset(r) for r in roles}) > 1:
            raise self.invalid("the signals of one aggregate look at different roles")
        return _sorted_roles(*roles)

    def over_tokens(self, function: Statistic, test: ast.TokenTest) -> int:
        roles, node = self.roles_of(test), self.token(test)
        return self.number(
            PlanAggregate(statistic=function, roles=roles, test=node, window=self.window)
        )

    def number(self, aggregate: PlanAggregate) -> int:
        return self.aggregates.setdefault(aggregate, len(self.aggregates))

    def token(self, node: ast.TokenTest) -> TokenNode:
        match node:
            case ast.TokenAnd(operands=operands):
                return TokenAtLeast(k=len(operands), operands=self.tokens(operands))
            case ast.TokenOr(operands=operands):
                return TokenAtLeast(k=1, operands=self.tokens(operands))
            case ast.TokenNot(operand=operand):
                return TokenNot(operand=self.token(operand))
            case ast.TokenOf(k="none", operands=operands):
                return TokenNot(operand=TokenAtLeast(k=1, operands=self.tokens(operands)))
            case ast.TokenOf(k=k, operands=operands):
                needed = self.needed(k, len(operands))
                return TokenAtLeast(k=needed, operands=self.tokens(operands))
            case ast.TokenCompare(signal=signal, op=op, quantity=quantity):
                number = self.signal(signal.name)
                units = {None, self.rule.signals[number].unit.value}
                return TokenCut(signal=number, cut=self.quantities.cut(op, quantity, units))

    def tokens(self, nodes: tuple[ast.TokenTest, ...]) -> tuple[TokenNode, ...]:
        return tuple(self.token(n) for n in nodes)

    def signal(self, name: str) -> int:
        if name not in self.numbers:
            raise self.invalid(f"unknown signal {name!r} in the condition")
        return self.numbers[name]


def _sorted_roles(*roles: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(r for r in Role if roles and r in roles[0])


def _scored(root: FrameNode, aggregates: tuple[PlanAggregate, ...]) -> FrameCut:
    """The comparison with `calibrated` (or around it), else the first."""
    cuts = list(frame_cuts(root))
    for cut in cuts:
        if cut.cut.calibrated:
            return cut
    for cut in cuts:
        if any(c.cut.calibrated for c in aggregates[cut.aggregate].cuts()):
            return cut
    return cuts[0]


def _outside(number: int, aggregates: tuple[PlanAggregate, ...]) -> int | None:
    """Inside a window a statistic has a value per window, none for the frame."""
    return None if aggregates[number].window else number
