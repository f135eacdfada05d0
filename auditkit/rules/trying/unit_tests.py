"""The unit tests that a rule carries: synthetic series through the stream and the compiled SQL."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from auditkit.core.locks import Frame
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.rules.documents.rule_documents import RuleDocument, UnitTest
from auditkit.rules.documents.series import LaidOut, SeriesToken, default_role, lay_out_pair
from auditkit.rules.documents.signals import draft_rule
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import Plan
from auditkit.rules.lowered.pooling import SignalPool
from auditkit.rules.sql.statement import CompiledSql, compile_sql
from auditkit.rules.streaming.frames import RuleWatcher, split_frames
from auditkit.rules.streaming.stream import TokenSignals

Columns = Mapping[str, list[Any]]
SERIES = "series"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTables:
    """A series as rows of the tables that compiled SQL reads, column by column."""

    tokens: Columns
    activations: Columns
    coverage: Columns
    prompts: Columns


RunSql = Callable[[CompiledSql, SeriesTables], Sequence[Mapping[str, Any]]]
"""Runs a statement over tables and returns its rows; only a room with a database can."""


class Outcome(StrEnum):
    """How a test came out. An unexpected pass is a failure; unresolved is not a pass."""

    PASS = "pass"
    FAIL = "fail"
    EXPECTED_FAILURE = "expected failure"
    UNEXPECTED_PASS = "unexpected pass"
    UNRESOLVED = "unresolved"

    @property
    def good(self) -> bool:
        """Does the test count as passed?"""
        return self in (Outcome.PASS, Outcome.EXPECTED_FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """One unit test of one rule; `message` says what was expected and what came, if they differ."""

    rule_id: str
    name: str
    outcome: Outcome
    verdict: Verdict
    message: str


def run_unit_tests(rule: RuleDocument, *, run_sql: RunSql | None = None) -> list[UnitResult]:
    """Run a rule's unit tests on the stream and, given `run_sql`, on the compiled SQL too.

    The two must agree as well as give what the test expects. Raises InvalidInput where a series
    or the rule cannot be read (`rules lint` says where).
    """
    return [_run(rule, test, run_sql) for test in rule.tests.unit]


def judge_example(truth: Truth, *, should_match: bool, todo: str | None) -> Outcome:
    """How an example prompt came out, given the rule's verdict on it."""
    if truth is Truth.UNKNOWN:
        return Outcome.UNRESOLVED
    return _outcome((truth is Truth.TRUE) == should_match, todo)


def _outcome(passed: bool, todo: str | None) -> Outcome:
    if todo is None:
        return Outcome.PASS if passed else Outcome.FAIL
    return Outcome.UNEXPECTED_PASS if passed else Outcome.EXPECTED_FAILURE


def _run(rule: RuleDocument, test: UnitTest, run_sql: RunSql | None) -> UnitResult:
    locked = draft_rule(rule, calibrated=test.given.calibrated, percentiles=test.given.percentiles)
    signals = [s.name for s in locked.signals]
    laid = lay_out_test(rule, test)
    verdict = stream_verdict(lower_rule(locked), laid)
    problems = _against(test, verdict)
    if run_sql is not None:
        compiled = compile_sql(locked, SERIES, masked=TokenMask.NONE)
        by_sql = sql_verdict(run_sql(compiled, series_tables(laid, signals)), rule.frame)
        if by_sql != verdict:
            told = f"the stream says {_tell(verdict)}, the SQL {_tell(by_sql)}"
            return _result(rule, test, Outcome.FAIL, verdict, f"evaluators disagree: {told}")
    outcome = _outcome(not problems, test.todo)
    message = "; ".join(problems)
    if outcome is Outcome.UNEXPECTED_PASS:
        message = f"passes although marked todo: {test.todo}"
    return _result(rule, test, outcome, verdict, message)


def _result(
    rule: RuleDocument, test: UnitTest, outcome: Outcome, verdict: Verdict, message: str
) -> UnitResult:
    return UnitResult(
        rule_id=rule.id, name=test.name, outcome=outcome, verdict=verdict, message=message
    )


def _against(test: UnitTest, verdict: Verdict) -> list[str]:
    expected = Truth.UNKNOWN if test.fires == "unknown" else Truth(str(test.fires).lower())
    if verdict.truth is not expected:
        return [f"expected {expected.value}, got {_tell(verdict)}"]
    if test.at is not None and verdict.at != test.at:
        return [f"expected to fire at {test.at}, fired at {verdict.at}"]
    return []


def _tell(verdict: Verdict) -> str:
    if verdict.reason is not None:
        return f"unknown ({verdict.reason.value})"
    return verdict.truth.value + (f" at {verdict.at}" if verdict.at is not None else "")


def lay_out_test(rule: RuleDocument, test: UnitTest) -> LaidOut:
    """The tokens of a test. A series shows what the rule sees: the tokens that its scope skips
    come before it."""
    signals, role = list(rule.signals), default_role(rule.scope.roles)
    skipped = (SeriesToken(role=role, values=dict.fromkeys(signals, None)),) * rule.scope.skip_first
    laid = lay_out_pair(test.series, signals, role)
    twin = None if laid.twin is None else skipped + laid.twin
    return LaidOut(tokens=skipped + laid.tokens, twin=twin)


def _stored(value: float) -> float:
    """A value as a FLOAT column gives it back."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def stream_verdict(plan: Plan, laid: LaidOut) -> Verdict:
    """The stream's verdict on a series."""
    watcher = RuleWatcher(plan, TokenMask.NONE)
    seen, twin = _signals(plan, laid.tokens), _signals(plan, laid.twin or ())
    placed = [(t.role, 0, 0) for t in twin]
    frames = split_frames(plan.frame, plan.scope, TokenMask.NONE, placed)
    watcher.reset([[twin[i] for i in members] for members in frames])
    outcomes = [o for t in seen for o in watcher.push(t.role, 0, 0, t.values)]
    found = [*outcomes, *watcher.finish()]
    return _of_frames([(o.frame, o.verdict) for o in found if o.final], plan.frame)


def _signals(plan: Plan, tokens: Sequence[SeriesToken]) -> list[TokenSignals]:
    pools = {s.name: (i, SignalPool(s)) for i, s in enumerate(plan.signals)}
    return [
        TokenSignals(
            role=token.role,
            values={
                name: None if value is None else pool.value([latent], [_stored(value)])
                for name, (latent, pool) in pools.items()
                for value in (token.values[name],)
            },
        )
        for token in tokens
    ]


def _of_frames(found: Sequence[tuple[int, Verdict]], frame: Frame) -> Verdict:
    """The verdict on a series: it is one frame, or, where tokens are frames, as many as its tokens.

    Of those the first that fires counts; where none does, the first reason of those unknown.
    """
    if frame is not Frame.TOKEN or not found:
        return found[0][1] if found else Verdict(truth=Truth.UNKNOWN, reason=Reason.EMPTY_FRAME)
    for number, verdict in found:
        if verdict.truth is Truth.TRUE:
            return replace(verdict, at=number)
    unknown = [verdict for _, verdict in found if verdict.reason is not None]
    ranked = sorted(unknown, key=lambda v: v.reason.rank if v.reason else 0)
    return next(iter(ranked), found[0][1])


def series_tables(laid: LaidOut, signals: Sequence[str]) -> SeriesTables:
    """The rows of a series: one recording, a prompt of one message, and its twin if it has one;
    signal i on latent i."""
    tokens = [*laid.tokens, *(laid.twin or ())]
    names = [SERIES] * len(laid.tokens) + ["twin"] * len(laid.twin or ())
    prompts = list(dict.fromkeys([SERIES, *names]))
    count = len(tokens)
    cells = [
        (number, latent, token.values[name])
        for number, token in enumerate(tokens)
        for latent, name in enumerate(signals)
    ]
    active = [(t, latent, _stored(v)) for t, latent, v in cells if v]
    covered = [i for i, t in enumerate(tokens) if None not in t.values.values()]
    return SeriesTables(
        tokens={
            "recording": [SERIES] * count,
            "token": list(range(count)),
            "prompt": names,
            "position": list(range(count)),
            "token_id": [0] * count,
            "text": [""] * count,
            "role": [t.role.value for t in tokens],
            "message": [0] * count,
            "mask": [0] * count,
            "generated": [False] * count,
        },
        activations={
            "recording": [SERIES] * len(active),
            "token": [t for t, _, _ in active],
            "latent": [latent for _, latent, _ in active],
            "value": [v for _, _, v in active],
        },
        coverage={
            "recording": [SERIES] * len(covered),
            "sae": [SERIES] * len(covered),
            "first_token": covered,
            "last_token": covered,
        },
        prompts={
            "recording": [SERIES] * len(prompts),
            "prompt": prompts,
            "tags": ['["pair:series"]'] * len(prompts),
        },
    )


def sql_verdict(rows: Sequence[Mapping[str, Any]], frame: Frame) -> Verdict:
    """The verdict in the rows that compiled SQL gave for a series."""
    found = [
        (
            int(row["frame"]),
            Verdict(
                truth=Truth(row["verdict"]),
                reason=Reason(row["reason"]) if row["reason"] is not None else None,
                at=row["at"],
            ),
        )
        for row in rows
        if row["prompt"] == SERIES
    ]
    return _of_frames(found, frame)
