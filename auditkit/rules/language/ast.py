"""The typed syntax tree of conditions: what a rule author wrote, with the place of every part.

Two strata: token predicates (`Token…`) say something about one token and live only inside
aggregates; expressions say something about a frame. Places are offsets into the condition's text
and take no part in equality.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from auditkit.core.prompts import Role


class Op(StrEnum):
    """A comparison."""

    GE = ">="
    LE = "<="
    GT = ">"
    LT = "<"
    EQ = "=="
    NE = "!="


@dataclass(frozen=True, slots=True)
class Place:
    """Characters [start, end) of a condition's text."""

    start: int
    end: int


NOWHERE = Place(0, 0)


@dataclass(frozen=True, slots=True)
class SignalRef:
    """A signal's value per token, on the tokens of `roles` (empty: on every eligible token)."""

    name: str
    roles: tuple[Role, ...] = ()
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A number with the unit written behind it (raw, fmax, z, tokens), if any."""

    value: float
    unit: str | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The threshold that calibration certifies."""

    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Percentile:
    """`NAME.pN`: a signal's percentile on the reference suite."""

    signal: str
    percent: float
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Quantity = Number | Calibrated | Percentile
Count = int | Literal["any", "all", "none"]


@dataclass(frozen=True, slots=True)
class TokenCompare:
    """`sig OP qty` at one token."""

    signal: SignalRef
    op: Op
    quantity: Quantity
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenNot:
    operand: TokenTest
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnd:
    operands: tuple[TokenTest, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenOr:
    operands: tuple[TokenTest, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenOf:
    """`k of (tok, …)`: at least k hold; `none`: none does."""

    k: Count
    operands: tuple[TokenTest, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


TokenTest = TokenCompare | TokenNot | TokenAnd | TokenOr | TokenOf


@dataclass(frozen=True, slots=True)
class SignalStatistic:
    """`max mean sum quantile topk_mean rolling_mean_max` of a signal over a frame."""

    function: str
    signal: SignalRef
    argument: float | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenStatistic:
    """`count frac run first last` of the tokens that satisfy a predicate."""

    function: str
    test: TokenTest
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Aggregate = SignalStatistic | TokenStatistic


@dataclass(frozen=True, slots=True)
class Difference:
    """`diff(agg)`: against the paired message."""

    aggregate: Aggregate
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Statistic = SignalStatistic | TokenStatistic | Difference


@dataclass(frozen=True, slots=True)
class Compare:
    """`stat OP qty` over a frame."""

    statistic: Statistic
    op: Op
    quantity: Quantity
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class InRange:
    """`stat in [low, high]`."""

    statistic: Statistic
    low: Quantity
    high: Quantity
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Quantified:
    """`any(tok)` or `all(tok)` over a frame's tokens."""

    quantifier: Literal["any", "all"]
    test: TokenTest
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expr
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Expr, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Expr, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Of:
    """`k of (expr, …)`: at least k hold; `none`: none does."""

    k: Count
    operands: tuple[Expr, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class OfNames:
    """`k of them` (every `let` of the rule) or `k of GLOB`."""

    k: Count
    pattern: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LetRef:
    """The name of an expression under `let`."""

    name: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Window:
    """`window N (expr)`: within some N neighbouring tokens."""

    size: int
    operand: Expr
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Then:
    """`(tok) then (tok) within N tokens`."""

    first: TokenTest
    second: TokenTest
    within: int
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Defined:
    """`defined(NAME)`: the signal is resolved."""

    name: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Expr = (
    Compare
    | InRange
    | Quantified
    | Not
    | And
    | Or
    | Of
    | OfNames
    | LetRef
    | Window
    | Then
    | Defined
)

Node = Expr | TokenTest | Statistic | Quantity | SignalRef


def operands(node: Node) -> tuple[Node, ...]:
    """The parts that a node is made of, in the order written."""
    match node:
        case TokenCompare(signal=signal, quantity=quantity):
            return (signal, quantity)
        case SignalStatistic(signal=signal):
            return (signal,)
        case TokenStatistic(test=test) | Quantified(test=test):
            return (test,)
        case Difference(aggregate=aggregate):
            return (aggregate,)
        case Compare(statistic=statistic, quantity=quantity):
            return (statistic, quantity)
        case InRange(statistic=statistic, low=low, high=high):
            return (statistic, low, high)
        case TokenNot(operand=operand) | Not(operand=operand) | Window(operand=operand):
            return (operand,)
        case Then(first=first, second=second):
            return (first, second)
        case And() | Or() | Of() | TokenAnd() | TokenOr() | TokenOf():
            return node.operands
        case _:
            return ()


def walk(node: Node) -> tuple[Node, ...]:
    """A node and everything inside it, outermost first."""
    return (node, *(inner for part in operands(node) for inner in walk(part)))
