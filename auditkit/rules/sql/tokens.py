"""Token tests in SQL: aggregate number j has at each token its truth `b{j}` (NULL: unknown) and,
where that is unknown, the rank of the first reason `q{j}`. The two tests of a `then` have `x{j}`,
`k{j}x` and `y{j}`, `k{j}y`.
"""

from __future__ import annotations

from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.plan import (
    Cut,
    Plan,
    PlanSignal,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
)
from auditkit.rules.sql.parts import Parameters, at_least, compare, least


def token_levels(plan: Plan, given: Parameters) -> list[tuple[str, list[str]]]:
    """The steps that judge every token test at every token: leaves first, then what is above."""
    writer = _TokenColumns(plan, given)
    for number, aggregate in enumerate(plan.aggregates):
        if aggregate.test is None:
            continue
        if aggregate.second is None:
            writer.write(aggregate.test, f"b{number}", f"q{number}")
            continue
        writer.write(aggregate.test, f"x{number}", f"k{number}x")
        writer.write(aggregate.second, f"y{number}", f"k{number}y")
    return [(f"tested_{i}", made) for i, made in enumerate(writer.levels)]


class _TokenColumns:
    """Writes token tests level by level: DuckDB copies the text of a column that is named in its
    own SELECT, which would grow exponentially with depth."""

    def __init__(self, plan: Plan, given: Parameters) -> None:
        self.plan, self.given = plan, given
        self.levels: list[list[str]] = []
        self.nodes = 0

    def write(self, node: TokenNode, truth: str, rank: str) -> int:
        """Add a node's columns under the given names; return its level."""
        match node:
            case TokenCut(signal=signal, cut=cut):
                level = 0
                value, reason = self.leaf(signal, cut)
            case TokenNot(operand=operand):
                level, names = self.parts((operand,))
                value, reason = f"NOT {names[0][0]}", names[0][1]
            case TokenAtLeast(k=k, operands=operands):
                level, names = self.parts(operands)
                value, reason = at_least(k, [t for t, _ in names]), least([r for _, r in names])
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(f"{value} AS {truth}")
        self.levels[level].append(f"CASE WHEN {truth} IS NULL THEN {reason} END AS {rank}")
        return level

    def parts(self, operands: tuple[TokenNode, ...]) -> tuple[int, list[tuple[str, str]]]:
        """Write the operands; return the level above them and their columns' names."""
        names: list[tuple[str, str]] = []
        level = 0
        for operand in operands:
            names.append((f"t{self.nodes}", f"k{self.nodes}"))
            self.nodes += 1
            level = max(level, self.write(operand, *names[-1]) + 1)
        return level, names

    def leaf(self, number: int, cut: Cut) -> tuple[str, str]:
        signal = self.plan.signals[number]
        ranks = [] if signal.resolved else [Reason.UNRESOLVED.rank]
        if cut.threshold is None:
            ranks.append(cut.missing.rank)
        rank = str(min([*ranks, Reason.NOT_COVERED.rank]))
        if cut.threshold is None or not signal.resolved:
            return "CAST(NULL AS BOOLEAN)", rank
        low = low_of(number, signal, self.given)
        return compare(cut.op, low, f"v{number}", self.given.integer(cut.threshold)), rank


def low_of(number: int, signal: PlanSignal, given: Parameters) -> str:
    """The least that a signal can be at a token."""
    if signal.floor is None:
        return f"v{number}"
    return f"coalesce(v{number}, {given.integer(signal.floor)})"
