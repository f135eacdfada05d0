"""Names, types and vacuity of conditions: what is wrong with a tree, and where in its text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.locks import Frame
from auditkit.core.prompts import Role
from auditkit.rules.documents.signals import SignalFacts
from auditkit.rules.language import ast
from auditkit.rules.language.ast import Place
from auditkit.rules.language.render import render_condition
from auditkit.rules.lowered.kleene import compare
from auditkit.rules.lowered.lowering import names_like
from auditkit.rules.lowered.quantities import LARGEST, NEIGHBOURS, argument_problem, is_near


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A diagnostic's code, message, place in a condition's text, and help."""

    code: str
    message: str
    place: Place
    help: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a condition may name. `them` is off inside `let`, which would be circular."""

    signals: Mapping[str, SignalFacts]
    lets: Sequence[str]
    roles: Sequence[Role]
    frame: Frame
    them: bool = True


def check_condition(tree: ast.Expr, names: Names) -> list[Problem]:
    """Every problem of one condition, in the order of its text."""
    checker = _Checker(names)
    checker.expr(tree)
    if names.them:
        checker.settled(tree, tree)
    return sorted(checker.problems, key=lambda p: p.place.start)


def suggest(name: str, known: Iterable[str]) -> str | None:
    """A spelling that may have been meant, as help."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}" if known else None


Bounds = tuple[int | None, int | None]
"""What a statistic lies between (None: unbounded)."""


class _Checker:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.problems: list[Problem] = []

    def report(self, code: str, message: str, node: ast.Node, help: str | None = None) -> None:
        self.problems.append(Problem(code=code, message=message, place=node.place, help=help))

    def expr(self, node: ast.Expr) -> None:
        """Check a node and what is inside it."""
        match node:
            case ast.And() | ast.Or():
                self.operands(node)
            case ast.Of():
                self.count(node, node.k, len(node.operands))
                self.operands(node)
            case ast.OfNames():
                self.of_names(node)
            case ast.Not(operand=operand):
                self.expr(operand)
            case ast.LetRef():
                self.let_ref(node)
            case ast.Quantified(test=test):
                self.test(test)
            case ast.Compare() | ast.InRange():
                self.compare(node)
            case ast.Window(size=size, operand=operand):
                self.near("a window", size, node)
                self.settled(node, operand)
                self.expr(operand)
            case ast.Then(first=first, second=second, within=within):
                self.near("within", within, node)
                self.test(first)
                self.test(second)
            case ast.Defined(name=name):
                self.named(name, node)

    def settled(self, node: ast.Expr, operand: ast.Expr) -> None:
        parts = ast.walk(operand)
        if not any(isinstance(n, _LOOKING) for n in parts):
            message = f"'{render_condition(node)}' is settled before any token is seen"
            self.report("AK033", message, node)

    def near(self, what: str, tokens: float | None, node: ast.Node) -> None:
        if not is_near(tokens):
            message = f"{what} takes a number of tokens from 1 to {NEIGHBOURS}"
            self.report("AK042", message, node)

    def operands(self, node: ast.And | ast.Or | ast.Of) -> None:
        self.repeated(node.operands)
        for operand in node.operands:
            self.expr(operand)

    def repeated(self, nodes: Sequence[ast.Node]) -> None:
        for index, node in enumerate(nodes):
            if node in nodes[:index]:
                text = render_condition(node)
                self.report("AK035", f"the operand '{text}' stands here twice", node)

    def count(self, node: ast.Node, k: ast.Count, n: int) -> None:
        if isinstance(k, int) and not 1 <= k <= n:
            always = "true" if k < 1 else "false"
            of = f"{n} operand" + "s" * (n != 1)
            self.report("AK030", f"'{k} of' {of} is always {always}", node)

    def of_names(self, node: ast.OfNames) -> None:
        names = names_like(node.pattern, self.names.lets)
        if node.pattern == "them" and not self.names.them:
            self.report("AK023", "'them' under let: would name itself", node)
        elif not self.names.lets:
            self.report("AK036", f"{node.pattern!r} matches nothing: the rule has no let:", node)
        elif not names:
            help = f"named are: {', '.join(self.names.lets)}"
            self.report("AK036", f"{node.pattern!r} matches no name under let:", node, help)
        else:
            self.count(node, node.k, len(names))

    def let_ref(self, node: ast.LetRef) -> None:
        if node.name in self.names.lets:
            return
        help = suggest(node.name, self.names.lets)
        if node.name in self.names.signals:
            help = f"a signal stands inside a statistic: max({node.name}), mean({node.name}), …"
        self.report("AK022", f"unknown name {node.name!r}", node, help)

    def compare(self, node: ast.Compare | ast.InRange) -> None:
        if isinstance(node.statistic, ast.Difference):
            statistic, least = node.statistic.aggregate, -1
            self.statistic(statistic)
            bounds: Bounds = (None, None)
        else:
            statistic, least = node.statistic, 0
            bounds = self.statistic(statistic)
        if isinstance(node, ast.Compare):
            self.quantity(statistic, node.quantity, least=least)
            self.vacuous(node, [(node.op, node.quantity)], bounds)
            return
        for end in (node.low, node.high):
            self.quantity(statistic, end, least=least)
        self.vacuous(node, [(ast.Op.GE, node.low), (ast.Op.LE, node.high)], bounds)
        low, high = node.low, node.high
        if isinstance(low, ast.Number) and isinstance(high, ast.Number) and low.value > high.value:
            text = render_condition(node)
            self.report("AK033", f"'{text}' is always false: the bounds are reversed", node)

    def statistic(self, node: ast.Aggregate) -> Bounds:
        """Check a statistic; return what it lies between, whatever the tokens are."""
        if isinstance(node, ast.TokenStatistic):
            self.test(node.test)
            if node.function == "last":
                return None, None
            once = self.names.frame is Frame.TOKEN and node.function in ("count", "run")
            return 0, 1 if once or node.function == "frac" else None
        self.signal(node.signal)
        self.argument(node)
        facts = self.names.signals.get(node.signal.name)
        return (0 if facts is not None and facts.non_negative else None), None

    def argument(self, node: ast.SignalStatistic) -> None:
        problem = argument_problem(node.function, node.argument)
        if problem is not None:
            self.report(*problem, node)

    def quantity(self, statistic: ast.Aggregate, quantity: ast.Quantity, *, least: int) -> None:
        if isinstance(statistic, ast.SignalStatistic):
            self.level(statistic.signal, quantity)
        elif isinstance(quantity, ast.Percentile):
            message = f"'{statistic.function}' is not in the unit of {quantity.signal!r}"
            self.report("AK041", message, quantity)
        else:
            self.tokens(statistic, quantity, least=least)

    def tokens(self, statistic: ast.TokenStatistic, quantity: ast.Quantity, *, least: int) -> None:
        if not isinstance(quantity, ast.Number):
            return
        self.size(quantity)
        if statistic.function == "frac":
            if quantity.unit is not None:
                self.report("AK041", f"a fraction has no unit, not {quantity.unit}", quantity)
            elif not least <= quantity.value <= 1:
                what = "a difference of fractions" if least else "a fraction"
                self.report("AK043", f"{what} lies between {least} and 1", quantity)
            return
        if quantity.unit not in (None, "tokens"):
            message = f"'{statistic.function}' counts tokens, not {quantity.unit}"
            self.report("AK041", message, quantity, "leave the unit out")
        elif not quantity.value.is_integer():
            message = f"'{statistic.function}' is a whole number of tokens"
            self.report("AK042", message, quantity, "for a share of the tokens there is frac(…)")

    def level(self, ref: ast.SignalRef, quantity: ast.Quantity) -> None:
        """Check what a signal is compared with."""
        facts = self.names.signals.get(ref.name)
        if isinstance(quantity, ast.Percentile):
            self.named(quantity.signal, quantity)
            other = self.names.signals.get(quantity.signal)
            if not 0 < quantity.percent <= 100:
                self.report("AK043", "a percentile lies above 0 and at most at 100", quantity)
            if facts is not None and other is not None and facts.unit != other.unit:
                units = f"{other.unit.value}, {ref.name!r} in {facts.unit.value}"
                self.report("AK040", f"{quantity.signal!r} is in {units}", quantity)
        if not isinstance(quantity, ast.Number):
            return
        self.size(quantity)
        if facts is not None and quantity.unit not in (None, facts.unit.value):
            own = "a bare number (fit: l1)" if facts.unit == "bare" else f"in {facts.unit.value}"
            message = f"a threshold in {quantity.unit}, but {ref.name!r} is {own}"
            self.report("AK040", message, quantity, "leave the unit out, or convert the number")

    def named(self, name: str, node: ast.Node) -> None:
        if name not in self.names.signals:
            help = suggest(name, self.names.signals)
            self.report("AK021", f"unknown signal {name!r}", node, help)

    def size(self, quantity: ast.Number) -> None:
        if abs(quantity.value) > LARGEST:
            self.report("AK045", "a threshold lies within ±2^31", quantity)

    def signal(self, ref: ast.SignalRef) -> None:
        self.named(ref.name, ref)
        for role in ref.roles:
            if self.names.roles and role not in self.names.roles:
                message = f"@{role.value} is outside the rule's scope, so it sees no token"
                self.report("AK034", message, ref, "widen scope.roles")

    def test(self, node: ast.TokenTest) -> None:
        """Check a token predicate, all of whose signals must look at the same tokens."""
        refs = [n for n in ast.walk(node) if isinstance(n, ast.SignalRef)]
        for ref in refs[1:]:
            if set(ref.roles) != set(refs[0].roles):
                message = "the signals of one aggregate look at the same tokens: write equal roles"
                self.report("AK044", message, ref)
        self.token(node)

    def token(self, node: ast.TokenTest) -> None:
        match node:
            case ast.TokenCompare(signal=signal, op=op, quantity=quantity):
                self.signal(signal)
                self.level(signal, quantity)
                facts = self.names.signals.get(signal.name)
                low = 0 if facts is not None and facts.non_negative else None
                self.vacuous(node, [(op, quantity)], (low, None))
            case ast.TokenNot(operand=operand):
                self.token(operand)
            case _:
                if isinstance(node, ast.TokenOf):
                    self.count(node, node.k, len(node.operands))
                self.repeated(node.operands)
                for operand in node.operands:
                    self.token(operand)

    def vacuous(
        self,
        node: ast.Compare | ast.InRange | ast.TokenCompare,
        cuts: Sequence[tuple[ast.Op, ast.Quantity]],
        bounds: Bounds,
    ) -> None:
        truths: list[bool | None] = []
        for op, quantity in cuts:
            number = quantity.value if isinstance(quantity, ast.Number) else None
            if number is None or (_is_share(node) and not 0 <= number <= 1):
                truths.append(None)
            else:
                truths.append(compare(op, *bounds, number))
        truth = False if False in truths else all(truths) or None
        if truth is not None:
            message = f"'{render_condition(node)}' is always {str(truth).lower()}"
            self.report("AK033", message, node)


def _is_share(node: ast.Node) -> bool:
    """Is a fraction compared? Beyond 0 to 1 it is reported as no fraction."""
    statistic = node.statistic if isinstance(node, ast.Compare | ast.InRange) else None
    return isinstance(statistic, ast.TokenStatistic) and statistic.function == "frac"


_LOOKING = (ast.SignalRef, ast.LetRef, ast.OfNames)
