"""The compiled SQL, the stream and the reference are one language: same verdict, reason, token."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from auditkit.core.fixed_point import SCALE
from auditkit.core.locks import LockedLatent, LockedRule, Scope
from auditkit.core.measured import NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Truth
from auditkit.rules import (
    FrameOutcome,
    Plan,
    RuleWatcher,
    StreamEvaluator,
    TokenSignals,
    compile_sql,
    lower_rule,
)
from auditkit.rules.lowered.plan import FAR
from tests.locked import make_rule, make_signal
from tests.unit.rules.rules_reference import reference_rows
from tests.unit.rules.rules_worlds import (
    Bench,
    Row,
    Token,
    World,
    load_worlds,
    make_bench,
    run_sql,
    run_stream,
    token_values,
)

CONDITIONS = int(os.environ.get("AUDITKIT_RULE_CONDITIONS", "180"))
"""Random conditions, each on one of six recordings of a dozen prompts: ten frames and more each.
benchmarks/rule_equality.py runs many more."""

SEED = 20


@pytest.fixture(scope="module")
def bench() -> Bench:
    return make_bench(SEED)


def test_sql_stream_and_reference_agree_on_verdict_reason_and_token(bench: Bench) -> None:
    seen: dict[tuple[str, str | None], int] = {}
    pairs = 0
    for rule, world, masked in bench.cases(CONDITIONS):
        by_stream = run_stream(rule, world, masked)
        by_sql = run_sql(bench.connection, rule, world, masked)
        assert by_sql == by_stream, f"{rule.condition} where {rule.let}"
        by_reference = reference_rows(rule, world, masked)
        assert [row[:6] for row in by_sql] == by_reference, f"{rule.condition} where {rule.let}"
        pairs += len(by_sql)
        for row in by_sql:
            seen[row[2], row[3]] = seen.get((row[2], row[3]), 0) + 1
    assert pairs >= 2_000
    wanted = {"unresolved selector", "not calibrated", "not covered", "empty frame", "no twin"}
    assert {reason for truth, reason in seen if truth == "unknown"} == wanted
    assert seen["true", None] > pairs / 20
    assert seen["false", None] > pairs / 20


def _swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


def _change(pattern: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, new, text)


def _reach(by: int) -> Callable[[str], str]:
    """Moves how far back a `then` looks."""
    pattern = r"BETWEEN (\d+) PRECEDING AND 1 PRECEDING"
    return lambda text: re.sub(
        pattern, lambda m: f"BETWEEN {max(1, int(m[1]) + by)} PRECEDING AND 1 PRECEDING", text
    )


def _longer(by: int) -> Callable[[str], str]:
    """Changes how many tokens a window has."""
    return lambda text: re.sub(
        r"least\(epos \+ (\d+), total\)",
        lambda m: f"least(epos + {max(1, int(m[1]) + by)}, total)",
        text,
    )


FAULTS: dict[str, Callable[[str], str]] = {
    "masked tokens are let in": _swap(") = 0 AS eligible", ") >= 0 AS eligible"),
    "coverage is ignored": _swap("p.token <= r.last_token", "TRUE"),
    "only the latest range covers": _swap(
        "max(last_token) OVER (ORDER BY first_token)", "last_token"
    ),
    "roles inside a condition are ignored": _swap(
        "FILTER (WHERE role IN", "FILTER (WHERE TRUE OR role IN"
    ),
    "values are truncated instead of rounded": _swap("+ 0.5::DOUBLE", "+ 0.0::DOUBLE"),
    "values are computed in single precision": _swap(
        "CAST(a.value AS DOUBLE)", "CAST(CAST(a.value * 0.9999999 AS FLOAT) AS DOUBLE)"
    ),
    "the silence of latents is not taken off": _swap("- w.silence AS share", "AS share"),
    "the first tokens are not skipped": lambda text: re.sub(
        r"- 1 - CAST\(\$3 AS BIGINT\) AS epos", "- 1 - 0 * CAST($3 AS BIGINT) AS epos", text
    ),
    "strict and loose comparisons are confused": _swap(" >= CAST(", " > CAST("),
    "means are not taken over their tokens": lambda text: re.sub(
        r"AS HUGEINT\) \* n(\d+)", r"AS HUGEINT) * least(n\1, 1)", text
    ),
    "runs never break": _swap("IS NOT TRUE THEN i", "IS NOT NULL AND FALSE THEN i"),
    "the last reason wins": _swap("least(", "greatest("),
    "the latest place wins": _swap("min(epos)", "max(epos)"),
    "what stands before the first user is an exchange": _swap(
        "PRECEDING) - 1, 0)", "PRECEDING), 0)"
    ),
    "empty frames are dropped": _swap("FROM frames f LEFT JOIN", "FROM frames f JOIN"),
    "unknown tokens count as false": _swap(" IS NOT FALSE)", ")"),
    "what is not covered is silent": _change(
        r"(CASE WHEN p\.token.*) END AS v", r"\1 ELSE 0 END AS v"
    ),
    "tokens come in the wrong order": _swap("ORDER BY epos", "ORDER BY -epos"),
    "a window is a token too long": _longer(1),
    "a window is a token too short": _longer(-1),
    "a short frame has no window": _change(
        r"greatest\(epos, least\((\d+), total\) - 1\)", r"greatest(epos, \1 - 1)"
    ),
    "short windows count at the start of a frame": _change(
        r"greatest\(epos, least\((\d+), total\) - 1\)", "epos"
    ),
    "windows reach over the edge of a frame": _swap(
        "OVER (PARTITION BY prompt, frame) AS total", "OVER (PARTITION BY prompt) AS total"
    ),
    "a window that shows an aggregate nothing is judged": _change(r"n\d+ > 0 AND", "TRUE AND"),
    "a frame that shows a window nothing is judged": _change(r"max\((n\d+)\) = 0", r"max(\1) < 0"),
    "a window fires where it last holds": _swap("min(wend)", "max(wend)"),
    "windows that are open count as false": _swap(
        " IS NULL) THEN NULL ELSE FALSE", " IS NULL AND FALSE) THEN NULL ELSE FALSE"
    ),
    "within reaches a token too far": _reach(1),
    "within reaches a token too near": _reach(-1),
    "a token follows itself": _swap("PRECEDING AND 1 PRECEDING", "PRECEDING AND CURRENT ROW"),
    "the second comes first": _change(
        r"BETWEEN (\d+) PRECEDING AND 1 PRECEDING", r"BETWEEN 1 FOLLOWING AND \1 FOLLOWING"
    ),
    "a sequence forgets whose tokens they are": _change(
        r"CASE WHEN role IN \([^)]*\) THEN ([xy]\d+) ELSE", r"CASE WHEN TRUE THEN \1 ELSE"
    ),
    "an unknown first is none": _change(r"\(dt(\d+) OR dn\d+\)", r"dt\1"),
    "a rolling mean is a token short": _change(
        r"BETWEEN ([1-9]\d*) PRECEDING AND CURRENT ROW", "BETWEEN 0 PRECEDING AND CURRENT ROW"
    ),
    "a frame too short to roll has no mean": _change(
        r"(n\d+) >= \d+ THEN max", r"\1 >= 0 THEN max"
    ),
    "a rolling mean overlooks what is not covered": _change(
        r"(CURRENT ROW\)) = \d+ THEN", r"\1 >= 0 THEN"
    ),
    "the rank of a quantile is rounded down": _swap("+ 999999) // ", "+ 0) // "),
    "a quantile is a value too low": _swap("// 1000000)]", "// 1000000) - 1]"),
    "the k smallest are taken": _swap("list_sum(max(", "list_sum(min("),
    "the k largest are spread over all": _change(
        r"AS HUGEINT\) \* least\((n\d+), \d+\)", r"AS HUGEINT) * \1"
    ),
    "places are counted from 1": _change(r"min\((i\d+) - 1\)", r"min(\1)"),
    "the last is the first": _change(r"max\((i\d+ - 1)\)", r"min(\1)"),
    "where none is found it is the first token": _swap(f", {FAR})", ", 0)"),
    "three may be twins": _swap("HAVING count(*) = 1", "HAVING count(*) >= 1"),
    "any tag makes twins": _swap("lambda t: starts_with(t, 'pair:')", "lambda t: TRUE"),
    "the last tag of a pair counts": _swap("t, 'pair:'))[1]", "t, 'pair:'))[-1]"),
    "a prompt is its own twin": _swap(" AND a.prompt <> b.prompt", ""),
    "every message is compared with the twin's first": _swap("t.frame = c.frame", "t.frame = 0"),
    "the twin is added": _change(r" - (CAST\(t(?:lo|hi)\d+ AS HUGEINT\))", r" + \1"),
    "what is not known of the twin lies at its other end": lambda text: re.sub(
        r"CAST\(t(lo|hi)(\d+) AS HUGEINT\)",
        lambda m: f"CAST(t{'hi' if m[1] == 'lo' else 'lo'}{m[2]} AS HUGEINT)",
        text,
    ),
    "means over different lengths are subtracted as sums": _change(
        r"(CAST\(t?(?:lo|hi)\d+ AS HUGEINT\)) \* t?(?:n\d+|least\(t?n\d+, \d+\))", r"\1"
    ),
    "a missing twin is an empty one": _swap("NOT twinned THEN 5", "NOT twinned THEN 4"),
    "a side that is known gives a reason": _change(
        r"CASE WHEN t?lo\d+ = t?hi\d+ THEN NULL ELSE", "CASE WHEN FALSE THEN NULL ELSE"
    ),
    "active latents count as silent too": _swap("lambda p, i: p = i", "lambda p, i: FALSE"),
    "the loudest silence is passed over": _swap("[1 + len(", "[2 + len("),
    "only active latents are pooled by max": _swap("[1 + len(", "[5000 + len("),
    "tokens' frames begin anew with every message": _swap(
        "(PARTITION BY prompt ORDER BY token) - 1 - CAST",
        "(PARTITION BY prompt, message ORDER BY token) - 1 - CAST",
    ),
    "masked tokens are frames": _change(
        r"(FROM spoken\n  )WHERE eligible(\n  QUALIFY)", r"\1WHERE TRUE\2"
    ),
    "what is settled holds of an empty frame": _swap(
        "CASE WHEN eligible > 0 THEN", "CASE WHEN TRUE THEN"
    ),
}


@dataclass(frozen=True)
class Case:
    """A rule whose SQL is to be broken, and what it should say."""

    rule: LockedRule
    world: World
    masked: TokenMask
    text: str
    rows: list[Row]


CASES = 500
TRIED = 100
"""A fault is tried on at most so many of the rules whose SQL it changes."""


SELDOM = (
    "window 2 (max(a @user) < 0.5)",
    "window 3 (max(a @assistant) >= 0.9 or mean(b) >= 0.9)",
    "window 2 (mean(c) >= -5)",
    "rolling_mean_max(c, 2) >= -5",
    "rolling_mean_max(c, 3) >= -0.3",
    "(a >= 0.1) then (b >= 0.1) within 2 tokens",
    "(a >= 0.5) then (c < -0.3) within 3 tokens",
)
"""Conditions whose like comes up too seldom at random; `c` has a negative weight."""


@pytest.fixture(scope="module")
def cases(bench: Bench) -> list[Case]:
    signals = tuple(
        make_signal(name, LockedLatent(latent=i, weight=weight))
        for i, (name, weight) in enumerate((("a", 1.0), ("b", 1.0), ("c", -1.0)))
    )
    planted = [
        (make_rule(condition, signals=signals), world, TokenMask(31))
        for condition in SELDOM
        for world in bench.worlds
    ]
    return [
        Case(
            rule,
            world,
            masked,
            compile_sql(rule, world.recording, masked=masked).text,
            run_stream(rule, world, masked),
        )
        for rule, world, masked in (*planted, *replace_bench(bench).cases(CASES))
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_sql_fault_is_caught(bench: Bench, cases: list[Case], fault: str) -> None:
    changed = [c for c in cases if FAULTS[fault](c.text) != c.text][:TRIED]
    assert any(
        run_sql(bench.connection, c.rule, c.world, c.masked, FAULTS[fault]) != c.rows
        for c in changed
    ), f"not caught on {len(changed)} rules: {fault}"


def test_there_are_faults_of_every_kind() -> None:
    assert len(FAULTS) >= 40


def replace_bench(bench: Bench) -> Bench:
    """The same worlds, with a fresh source of random rules."""
    return replace(bench, rng=random.Random(SEED + 1))


def test_chunks_of_any_size_give_the_same_verdict(bench: Bench) -> None:
    rng = random.Random(3)
    for rule, world, _ in replace_bench(bench).cases(60):
        tokens = _signals(rule, next(iter(world.prompts.values())))
        whole, parts = StreamEvaluator(rule), StreamEvaluator(rule)
        whole.push(tokens)
        start = 0
        while start < len(tokens):
            stop = start + rng.randint(0, 4)
            parts.push(tokens[start:stop])
            start = stop
        assert parts.finish() == whole.finish()
        assert parts.score() == whole.score()
        assert parts.snapshot() == whole.snapshot()


def test_a_latching_rule_that_has_fired_stays_true(bench: Bench) -> None:
    early = 0
    for rule, world, _ in replace_bench(bench).cases(120):
        evaluator = StreamEvaluator(rule)
        if not evaluator.latching:
            continue
        for prompt in world.prompts.values():
            evaluator.reset()
            tokens = _signals(rule, prompt)
            first = None
            for token in tokens:
                evaluator.push([token])
                if first is None and evaluator.fired is not None:
                    first = evaluator.verdict()
                    early += evaluator.tokens < len(tokens)
                assert first is None or evaluator.verdict() == first
            assert first is None or evaluator.finish() == first
    assert early > 50


def test_tokens_that_are_alike_may_be_taken_at_once(bench: Bench) -> None:
    rng = random.Random(8)
    for rule, world, masked in replace_bench(bench).cases(60):
        once, each = RuleWatcher(rule, masked), RuleWatcher(rule, masked)
        for token in next(iter(world.prompts.values())):
            n = rng.choice((1, 1, 2, 3, 7))
            values = token_values(rule, token)
            at_once = once.push_run(token.role, token.message, token.mask, values, n)
            one_by_one = [o for _ in range(n) for o in _push(each, rule, token)]
            assert [_settled(o) for o in at_once] == [_settled(o) for o in one_by_one]
            assert once.evaluator.snapshot() == each.evaluator.snapshot()
        assert once.finish() == each.finish()


def _settled(outcome: FrameOutcome) -> FrameOutcome:
    """The score of an early firing may be read a few tokens later."""
    return outcome if outcome.final else replace(outcome, score=NotMeasured("early"))


def test_a_decided_verdict_holds_in_every_possible_world(bench: Bench) -> None:
    """Whatever stands where nothing was recorded, it could not have come out otherwise."""
    rng = random.Random(9)
    decided = 0
    for rule, world, _ in replace_bench(bench).cases(150):
        plan = lower_rule(rule)
        for prompt in world.prompts.values():
            tokens = _signals(rule, prompt)
            if all(t.covered for t in prompt):
                continue
            evaluator = StreamEvaluator(plan)
            evaluator.push(tokens)
            verdict = evaluator.finish()
            if verdict.truth is Truth.UNKNOWN:
                continue
            decided += 1
            for _ in range(4):
                whole = StreamEvaluator(plan)
                whole.push([_completed(t, plan, rng) for t in tokens])
                assert whole.finish().truth is verdict.truth, rule.condition
    assert decided > 60


def _completed(token: TokenSignals, plan: Plan, rng: random.Random) -> TokenSignals:
    """The token with some value wherever it has none."""
    values = dict(token.values)
    for signal in plan.signals:
        if signal.resolved and values[signal.name] is None:
            least = -SCALE if signal.floor is None else signal.floor
            values[signal.name] = least + rng.choice((0, rng.randrange(SCALE), 3 * SCALE))
    return replace(token, values=values)


def test_rolling_back_to_a_snapshot_forgets_what_came_after(bench: Bench) -> None:
    for rule, world, masked in replace_bench(bench).cases(60):
        prompts = list(world.prompts.values())
        watcher, twin = RuleWatcher(rule, masked), RuleWatcher(rule, masked)
        for token in prompts[0]:
            _push(watcher, rule, token)
            _push(twin, rule, token)
        saved = watcher.snapshot()
        for token in prompts[1]:
            _push(watcher, rule, token)
        watcher.restore(saved)
        for token in prompts[2]:
            assert _push(watcher, rule, token) == _push(twin, rule, token)
        assert watcher.finish() == twin.finish()


def test_padding_changes_nothing(bench: Bench) -> None:
    for rule, world, _ in replace_bench(bench).cases(40):
        masked = TokenMask.PADDING | TokenMask.BOS
        padded = _padded_world(world, world.recording)
        plain = [(*row[:5], row[6]) for row in run_stream(rule, world, masked)]
        assert [(*row[:5], row[6]) for row in run_stream(rule, padded, masked)] == plain


def test_padding_changes_nothing_in_sql() -> None:
    bench = make_bench(5, worlds=1, prompts=6)
    world = bench.worlds[0]
    padded = _padded_world(world, "padded")
    connection = load_worlds([world, padded])
    masked = TokenMask.PADDING | TokenMask.BOS
    for rule, _, _ in bench.cases(25):
        plain = [(*row[:5], row[6]) for row in run_sql(connection, rule, world, masked)]
        assert [(*row[:5], row[6]) for row in run_sql(connection, rule, padded, masked)] == plain


def _signals(rule, tokens: list[Token]) -> list[TokenSignals]:
    return [TokenSignals(role=t.role, values=token_values(rule, t)) for t in tokens]


def _push(watcher: RuleWatcher, rule, token: Token):
    return watcher.push(token.role, token.message, token.mask, token_values(rule, token))


def _padded_world(world: World, recording: str) -> World:
    return World(recording, {n: _padded(p) for n, p in world.prompts.items()}, world.tags)


def _padded(tokens: list[Token]) -> list[Token]:
    """Left and right padding: masked tokens that fire every signal."""
    first, last = tokens[0], tokens[-1]
    loud = dict.fromkeys(range(8), 100.0)

    def pad(near: Token, number: int) -> Token:
        return Token(
            number, near.prompt, near.role, near.message, int(TokenMask.PADDING), True, loud
        )

    moved = [replace(t, token=t.token + 4) for t in tokens]
    return [
        *(pad(first, first.token + i) for i in range(4)),
        *moved,
        *(pad(last, last.token + 5 + i) for i in range(3)),
    ]


def test_scope_and_roles_are_part_of_what_is_tried(bench: Bench) -> None:
    rules = [rule for rule, _, _ in replace_bench(bench).cases(150)]
    assert any(r.scope != Scope() for r in rules)
    assert any("@" + Role.USER.value in r.condition for r in rules)
    assert any(len(s.latents) > 1 for r in rules for s in r.signals)
    assert sum(StreamEvaluator(r).latching for r in rules) > 20
