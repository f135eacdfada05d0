"""Small pieces of SQL text, and the parameters that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from auditkit.core.prompts import Role
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.plan import Plan, PlanAggregate


@dataclass(frozen=True, slots=True)
class Extent:
    """What a statistic is taken over: a frame (0), or every window of some size in it."""

    window: int = 0

    @property
    def keys(self) -> str:
        """The columns that tell one from another; a window is named by its last token's place."""
        return "prompt, frame, wend" if self.window else "prompt, frame"

    def aggregates(self, plan: Plan) -> Iterator[tuple[int, PlanAggregate]]:
        """The plan's aggregates over this extent, with their numbers."""
        return ((j, a) for j, a in enumerate(plan.aggregates) if a.window == self.window)


class Parameters:
    """Numbered parameters of one statement; `$1` is the recording."""

    def __init__(self, recording: str) -> None:
        self._values: list[object] = [recording]

    @property
    def recording(self) -> str:
        """The recording's id."""
        return "$1"

    def integer(self, value: int) -> str:
        """A 64-bit integer."""
        return self._add(value, "BIGINT")

    def huge(self, value: int) -> str:
        """A 128-bit integer: a threshold that is multiplied by a number of tokens."""
        return self._add(value, "HUGEINT")

    def unnest(self, values: Sequence[int] | Sequence[float], kind: str, name: str) -> str:
        """A column of values."""
        return f"unnest({self.array(values, kind)}) AS {name}"

    def array(self, values: Sequence[int] | Sequence[float], kind: str) -> str:
        """Values in order, counted from 1."""
        return self._add([*values], f"{kind}[]")

    def values(self) -> tuple[object, ...]:
        """All values, in the order of their numbers."""
        return tuple(self._values)

    def _add(self, value: object, kind: str) -> str:
        self._values.append(value)
        return f"CAST(${len(self._values)} AS {kind})"


def columns(expressions: Sequence[str]) -> str:
    """A select list, one expression a line."""
    return ",\n    ".join(expressions)


def role_in(column: str, roles: Sequence[Role]) -> list[str]:
    """A condition that the role is among `roles`; no condition if they are empty (any role)."""
    names = ", ".join(f"'{r.value}'" for r in roles)
    return [f"{column} IN ({names})"] if roles else []


def where(*conditions: str) -> str:
    """A filter on an aggregate's rows; nothing if there is no condition."""
    return f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""


def at_least(k: int, operands: Sequence[str]) -> str:
    """Kleene's "at least k of" over boolean columns."""
    if len(operands) == 1:
        return operands[0]
    if k == 1:
        return f"({' OR '.join(operands)})"
    if k == len(operands):
        return f"({' AND '.join(operands)})"
    true = " + ".join(f"CASE WHEN {o} THEN 1 ELSE 0 END" for o in operands)
    possible = " + ".join(f"CASE WHEN NOT {o} THEN 0 ELSE 1 END" for o in operands)
    return f"CASE WHEN {true} >= {k} THEN TRUE WHEN {possible} < {k} THEN FALSE END"


def least(ranks: Sequence[str]) -> str:
    """The smallest of some ranks, leaving out NULL."""
    return ranks[0] if len(ranks) == 1 else f"least({', '.join(ranks)})"


def compare(op: Op, low: str, high: str, threshold: str) -> str:
    """Compare an interval (NULL: unbounded) with a number: true, false or NULL."""
    match op:
        case Op.GE:
            true, false = f"{low} >= {threshold}", f"{high} < {threshold}"
        case Op.GT:
            true, false = f"{low} > {threshold}", f"{high} <= {threshold}"
        case Op.LE:
            true, false = f"{high} <= {threshold}", f"{low} > {threshold}"
        case Op.LT:
            true, false = f"{high} < {threshold}", f"{low} >= {threshold}"
        case Op.EQ:
            true = f"{low} = {threshold} AND {high} = {threshold}"
            false = f"{low} > {threshold} OR {high} < {threshold}"
        case Op.NE:
            true = f"{low} > {threshold} OR {high} < {threshold}"
            false = f"{low} = {threshold} AND {high} = {threshold}"
    return f"CASE WHEN {true} THEN TRUE WHEN {false} THEN FALSE END"
