"""Coverage of a rule's comparisons by its unit tests: which were seen true, which false.

An atom is a comparison of a condition: of a statistic with a threshold, or of a signal with one at
a token. Whether a test shows it true is asked as a rule of its own, so that both evaluators are
asked in the way that they are asked for a verdict. Parts settled when a rule is bound are no atoms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from auditkit.core.fixed_point import SCALE
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Truth
from auditkit.rules.documents.rule_documents import RuleDocument
from auditkit.rules.documents.series import LaidOut
from auditkit.rules.documents.signals import draft_rule
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import (
    Cut,
    FrameAtLeast,
    FrameCut,
    FrameNode,
    FrameNot,
    FrameWindow,
    Plan,
    PlanAggregate,
    Statistic,
    TokenNode,
    TokenNot,
    token_cuts,
)
from auditkit.rules.lowered.spelling import spell_frame, spell_token
from auditkit.rules.sql.statement import compile_sql
from auditkit.rules.trying.unit_tests import (
    SERIES,
    RunSql,
    lay_out_test,
    series_tables,
    sql_verdict,
    stream_verdict,
)

_SOME = Cut(op=Op.GE, threshold=SCALE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """A comparison with the names of the tests that showed it true, and false."""

    text: str
    seen_true: tuple[str, ...]
    seen_false: tuple[str, ...]

    @property
    def seen(self) -> int:
        """How many of its two truths were seen."""
        return bool(self.seen_true) + bool(self.seen_false)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCoverage:
    """The atoms of one rule; `disagreements` are the tests on which the evaluators saw an atom
    differently."""

    rule_id: str
    atoms: tuple[Atom, ...]
    disagreements: tuple[str, ...]

    @property
    def share(self) -> float:
        """Truths seen, of two for each atom (1 where there is none)."""
        return sum(a.seen for a in self.atoms) / (2 * len(self.atoms)) if self.atoms else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """An atom, and the two rules that are true of a frame that shows it true, and false."""

    text: str
    when_true: Plan
    when_false: Plan


def measure_coverage(rule: RuleDocument, *, run_sql: RunSql | None = None) -> RuleCoverage:
    """Which atoms a rule's unit tests show true and false, on the stream and, given `run_sql`, on
    the compiled SQL too: a truth counts as seen where both see it."""
    texts = [p.text for p in _probes(lower_rule(draft_rule(rule)))]
    seen: list[tuple[list[str], list[str]]] = [([], []) for _ in texts]
    disagreements: list[str] = []
    for test in rule.tests.unit:
        laid = lay_out_test(rule, test)
        plan = lower_rule(draft_rule(rule, calibrated=test.given.calibrated))
        for text, truths, probe in zip(texts, seen, _probes(plan), strict=True):
            asked = (probe.when_true, probe.when_false)
            for tests, question in zip(truths, asked, strict=True):
                answers = _answers(question, laid, list(rule.signals), run_sql)
                if len(answers) > 1:
                    disagreements.append(f"{test.name}: {text}")
                elif answers == {True}:
                    tests.append(test.name)
    return RuleCoverage(
        rule_id=rule.id,
        atoms=tuple(
            Atom(text=text, seen_true=tuple(true), seen_false=tuple(false))
            for text, (true, false) in zip(texts, seen, strict=True)
        ),
        disagreements=tuple(disagreements),
    )


def _answers(
    plan: Plan, laid: LaidOut, signals: Sequence[str], run_sql: RunSql | None
) -> set[bool]:
    """Is the plan true of these tokens? One answer, or two where the evaluators differ."""
    answers = {stream_verdict(plan, laid).truth is Truth.TRUE}
    if run_sql is not None:
        compiled = compile_sql(plan, SERIES, masked=TokenMask.NONE)
        rows = run_sql(compiled, series_tables(laid, signals))
        answers.add(sql_verdict(rows, plan.frame).truth is Truth.TRUE)
    return answers


def _probes(plan: Plan) -> list[_Probe]:
    """A probe for each comparison, once, in the order written."""
    found: dict[tuple[object, ...], _Probe] = {}
    for node, size in _cuts(plan.root):
        window = f"window {size}: " if size else ""
        found.setdefault(
            (node, size),
            _Probe(
                text=window + spell_frame(node, plan),
                when_true=_asking(plan, node, size),
                when_false=_asking(plan, FrameNot(operand=node), size),
            ),
        )
        aggregate = plan.aggregates[node.aggregate]
        for test, roles in (
            (aggregate.test, aggregate.roles),
            (aggregate.second, aggregate.second_roles),
        ):
            for leaf in () if test is None else token_cuts(test):
                probe = _Probe(
                    text="at a token: " + spell_token(leaf, plan, roles),
                    when_true=_asking_tokens(plan, leaf, roles),
                    when_false=_asking_tokens(plan, TokenNot(operand=leaf), roles),
                )
                found.setdefault((leaf, roles), probe)
    return list(found.values())


def _cuts(node: FrameNode, size: int = 0) -> Iterator[tuple[FrameCut, int]]:
    """Every comparison with the size of the window that it stands in (0: none)."""
    match node:
        case FrameCut():
            yield node, size
        case FrameNot(operand=operand):
            yield from _cuts(operand, size)
        case FrameAtLeast(operands=operands):
            for operand in operands:
                yield from _cuts(operand, size)
        case FrameWindow(size=inner, operand=operand):
            yield from _cuts(operand, inner)
        case _:
            return


def _asking(plan: Plan, node: FrameNode, size: int) -> Plan:
    root = FrameWindow(size=size, operand=node) if size else node
    return replace(plan, root=root, latching=False)


def _asking_tokens(plan: Plan, test: TokenNode, roles: tuple[Role, ...]) -> Plan:
    """Does some token satisfy a test?"""
    some = PlanAggregate(statistic=Statistic.COUNT, roles=roles, test=test)
    root = FrameCut(aggregate=0, cut=_SOME)
    return replace(plan, aggregates=(some,), root=root, latching=False, score=0)
