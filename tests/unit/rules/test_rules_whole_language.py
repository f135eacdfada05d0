"""Windows, sequences, order statistics, percentiles: verdicts whose right answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from auditkit.core.locks import LockedLatent, Scope
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules import StreamEvaluator, lower_rule, parse_condition
from auditkit.rules.language.words import in_words
from tests.locked import make_rule, make_signal
from tests.unit.rules.rules_reference import reference_rows
from tests.unit.rules.rules_worlds import Token, World, as_float32, load_worlds, run_sql, run_stream

U, A, T = Role.USER, Role.ASSISTANT, Role.TOOL
TWO = (make_signal("a", LockedLatent(latent=0)), make_signal("b", LockedLatent(latent=1)))
SIGNED = (make_signal("a", LockedLatent(latent=0, weight=-1.0)), TWO[1])
EMPTY = ("unknown", "empty frame")


def turns(*tokens: tuple[Role, float | None, float]) -> World:
    """One prompt of (role, a, b); a is None: not covered."""
    made = [
        Token(
            i, "p", role, 0, 0, a is not None, {k: as_float32(v) for k, v in ((0, a), (1, b)) if v}
        )
        for i, (role, a, b) in enumerate(tokens)
    ]
    return World("r", {"p": made})


def said(text: str) -> World:
    """`0.1 0.5 _`: user tokens; `u:0.1 t:0.4`: of other roles; `0.1/0.9`: a and b."""
    roles = {"u": U, "a": A, "t": T}
    tokens: list[tuple[Role, float | None, float]] = []
    for item in text.split():
        role, _, values = item.rpartition(":")
        a, _, b = values.partition("/")
        tokens.append((roles[role or "u"], None if a == "_" else float(a), float(b or 0)))
    return turns(*tokens)


def one(condition: str, text: str, **keys) -> tuple[object, ...]:
    """(truth, reason or place), the same from SQL, stream and reference."""
    keys.setdefault("signals", TWO)
    rule, world, masked = make_rule(condition, **keys), said(text), TokenMask(31)
    by_stream = run_stream(rule, world, masked)
    assert run_sql(load_worlds([world]), rule, world, masked) == by_stream
    assert reference_rows(rule, world, masked) == [row[:6] for row in by_stream]
    ((_, _, truth, reason, at, _, _),) = by_stream
    return (truth, reason if truth == "unknown" else at)


@pytest.mark.parametrize(
    ("condition", "text", "verdict"),
    [
        # a window is some N neighbouring tokens; what stands in it is judged by itself
        ("window 2 (max(a) >= 0.5 and max(b) >= 0.5)", "0.5 0 0/0.5 0", ("false", None)),
        ("window 3 (max(a) >= 0.5 and max(b) >= 0.5)", "0.5 0 0/0.5 0", ("true", 2)),
        ("window 3 (mean(a) >= 0.5)", "0 0.5 0.5 0.5 0", ("true", 3)),
        ("window 3 (not max(a) >= 0.1)", "0.5 0 0 0 0.5", ("true", 3)),
        ("not window 2 (max(a) < 0.1)", "0.5 0 0.5", ("true", 2)),
        # a frame shorter than the window is one; that is known at its end
        ("window 9 (count(a >= 0.5) >= 2)", "0.5 0 0.5 0", ("true", 3)),
        ("max(b) >= 0.5 or window 9 (max(a) >= 0.5)", "0.5 0/0.5 0", ("true", 1)),
        ("max(b) >= 0.5 and window 9 (max(a) >= 0.5)", "0.5 0/0.5 0", ("true", 2)),
        # all roles make up a window; an aggregate sees only its own
        ("window 2 (max(a @tool) >= 0.5)", "t:0 0.5 0.5 t:0.5", ("true", 3)),
        ("window 2 (max(a @tool) >= 0.5 or max(b) >= 0)", "0.5 0.5", EMPTY),
        ("window 2 (max(a @tool) < 0.5)", "t:0.5 0.1 0.1 0.1", ("false", None)),
        ("window 1 (max(a) >= 0.5 or max(b @tool) >= 0.5)", "0.5 t:0/0", ("false", None)),
        # a window that is open leaves the frame open, unless another holds
        ("window 2 (sum(a) >= 0.9)", "0.4 _ 0.1", ("unknown", "not covered")),
        ("window 2 (sum(a) >= 0.9)", "0.4 _ 0.1 0.5 0.5", ("true", 4)),
        ("window 2 (sum(a) < 0.3)", "0.4 _ 0.4", ("false", None)),
    ],
)
def test_windows(condition: str, text: str, verdict: tuple[object, ...]) -> None:
    assert one(condition, text) == verdict


@pytest.mark.parametrize(
    ("condition", "text", "verdict"),
    [
        ("(a >= 0.5) then (b >= 0.5) within 1 tokens", "0.5 0/0.5", ("true", 1)),
        ("(a >= 0.5) then (b >= 0.5) within 1 tokens", "0.5 0 0/0.5", ("false", None)),
        ("(a >= 0.5) then (b >= 0.5) within 2 tokens", "0.5 0 0/0.5 0", ("true", 2)),
        ("(a >= 0.5) then (b >= 0.5) within 5 tokens", "0/0.5 0.5 0", ("false", None)),
        ("(a >= 0.5) then (a >= 0.5) within 5 tokens", "0.5 0 0", ("false", None)),
        ("(a @user >= 0.5) then (a @tool >= 0.5) within 2 tokens", "0.5 0 t:0.5", ("true", 2)),
        (
            "(a @user >= 0.5) then (a @tool >= 0.5) within 2 tokens",
            "t:0.5 0.5 t:0",
            ("false", None),
        ),
        ("(a @user >= 0.5) then (a @tool >= 0.5) within 2 tokens", "0.5 0 0.5", EMPTY),
        ("(a >= 0.5) then (b >= 0.5) within 1 tokens", "_ 0/0.5", ("unknown", "not covered")),
        ("(a >= 0.5) then (b >= 0.5) within 1 tokens", "_ 0", ("false", None)),
        ("(a >= 0.5) then (b >= 0.5) within 1 tokens", "_ 0.5/0.5 0/0.5", ("true", 2)),
        ("window 2 ((a >= 0.5) then (b >= 0.5) within 9 tokens)", "0.5 0 0/0.5", ("false", None)),
    ],
)
def test_one_token_after_another(condition: str, text: str, verdict: tuple[object, ...]) -> None:
    assert one(condition, text) == verdict


@pytest.mark.parametrize(
    ("condition", "text", "truth"),
    [
        ("quantile(a, 0.5) == 0.25", "0 0.25 0.5 1", "true"),  # ⌈0.5·4⌉ = 2nd smallest
        ("quantile(a, 0.51) == 0.5", "0 0.25 0.5 1", "true"),
        ("quantile(a, 1) == 1", "0 0.25 0.5 1", "true"),
        ("quantile(a, 0.000001) == 0", "0 0.25 0.5 1", "true"),
        ("quantile(a, 0.1) == 0.5", "1 1 1 1 1 1 1 1 1 0.5", "true"),  # 0.1·10 is 1, not more
        ("quantile(a, 0.5) <= 0.25", "0 0.25 _ 1", "true"),
        ("quantile(a, 0.5) < 0.25", "0 0.25 _ 1", "unknown"),
        ("quantile(a, 0.75) <= 1", "0 0.25 _ 1", "true"),
        ("quantile(a, 1) <= 9", "0 0.25 _ 1", "unknown"),
        ("topk_mean(a, 2) == 0.75", "0.5 0.25 1", "true"),
        ("topk_mean(a, 9) == 0.5", "0.5 0.25 0.75", "true"),
        ("topk_mean(a, 2) >= 0.75", "0.5 _ 1", "true"),
        ("topk_mean(a, 2) >= 0.8", "0.5 _ 1", "unknown"),
        ("topk_mean(a, 2) <= 0.7", "0.5 _ 1", "false"),
        ("first(a >= 0.5) == 1", "0 0.5 0.5", "true"),
        ("first(a >= 0.5) > 10 tokens", "0 0 0", "true"),
        ("first(a >= 0.5) <= 10", "0 0 0", "false"),
        ("first(a @tool >= 0.5) == 0", "0.5 t:0.5", "true"),
        ("first(a >= 0.5) <= 2", "0 _ 0.5", "true"),
        ("first(a >= 0.5) <= 1", "0 _ 0.5", "unknown"),
        ("first(a >= 0.5) < 1", "0 _ 0.5", "false"),
        ("last(a >= 0.5) == 2", "0 0.5 0.5 0", "true"),
        ("last(a >= 0.5) < 0", "0 0 0", "true"),
        ("last(a >= 0.5) >= 1", "0 0.5 _", "true"),
        ("last(a >= 0.5) >= 2", "0 0.5 _", "unknown"),
        ("rolling_mean_max(a, 2) == 0.75", "0 0.5 1 0.25", "true"),
        ("rolling_mean_max(a, 9) == 0.5", "0 0.5 1", "true"),
        ("rolling_mean_max(a @tool, 2) == 0.75", "t:0.5 0 0 t:1", "true"),
        ("rolling_mean_max(a, 2) >= 0.5", "0.5 0.5 _", "true"),
        ("rolling_mean_max(a, 2) >= 0.6", "0.5 0.5 _", "unknown"),
        ("rolling_mean_max(a, 2) < 0.5", "0.5 0.5 _", "false"),
        ("max(a) in [0.25, 0.5]", "0.25 0.5", "true"),
        ("max(a) in [0.25, 0.5]", "0.25 0.75", "false"),
        ("mean(a) in [0, 0.2]", "0.25 _", "unknown"),
        ("sum(a) in [0, 0.2]", "0.25 _", "false"),
    ],
)
def test_statistics_of_order_and_of_neighbours(condition: str, text: str, truth: str) -> None:
    assert one(condition, text)[0] == truth


@pytest.mark.parametrize(
    ("condition", "text", "truth"),
    [
        ("quantile(a, 0.5) >= -0.5", "0.5 _ 0.25", "true"),  # second of three, whatever it is
        ("quantile(a, 0.3) >= -9", "0.5 _ 0.25", "unknown"),
        ("topk_mean(a, 2) >= -9", "0.5 _ 0.25", "true"),
        ("topk_mean(a, 3) >= -9", "0.5 _ 0.25", "unknown"),
        ("rolling_mean_max(a, 1) >= -0.25", "0.5 _ 0.25", "true"),
        ("rolling_mean_max(a, 2) >= -9", "0.5 _ 0.25", "unknown"),
    ],
)
def test_signed_signals_have_no_floor(condition: str, text: str, truth: str) -> None:
    assert one(condition, text, signals=SIGNED)[0] == truth


@pytest.mark.parametrize(
    ("condition", "at"),
    [
        ("rolling_mean_max(a, 2) >= 0.5", 2),
        ("rolling_mean_max(a, 9) >= 0.1", 4),
        ("first(a >= 0.5) <= 1", 1),
        ("window 3 (max(a) >= 0.5)", 2),
        ("(a >= 0.5) then (a >= 0.5) within 1 tokens", 2),
        ("quantile(a, 0.5) >= 0", 4),
        ("last(a >= 0.5) >= 2", 4),
        ("topk_mean(a, 1) >= 0.5", 4),
    ],
)
def test_where_it_fires_and_what_latches(condition: str, at: int) -> None:
    assert one(condition, "0 0.5 0.5 0 0") == ("true", at)
    latching = ("rolling", "first", "window", "(a")
    assert lower_rule(make_rule(condition)).latching == condition.startswith(latching)


def test_a_short_frame_fires_a_latching_rule_only_at_its_end() -> None:
    for condition in ("window 9 (max(a) >= 0.5)", "rolling_mean_max(a, 9) >= 0.5"):
        evaluator = StreamEvaluator(make_rule(condition))
        assert evaluator.latching
        assert one(condition, "0.5 0.5 0.5") == ("true", 2)


def test_what_is_resolved_is_known_beforehand() -> None:
    lost = (TWO[0], make_signal("b", unresolved="no latent reaches min_score"))
    assert one("defined(a) and max(a) >= 0.5", "0.5 0") == ("true", 0)
    assert one("defined(b) and max(b) >= 0.5", "0.5 0", signals=lost) == ("false", None)
    assert one("not defined(b) or max(b) >= 0.5", "0.5 0", signals=lost) == ("true", 1)
    empty = one("not defined(b) or max(b) >= 1", "0.5", signals=lost, scope=Scope(skip_first=9))
    assert empty == ("unknown", "unresolved selector")
    assert one("defined(a) or max(a) >= 1", "0.5", scope=Scope(skip_first=9)) == EMPTY


def test_a_percentile_is_a_threshold_of_the_lock() -> None:
    measured = (replace(TWO[0], percentiles=((99.0, 0.25),)), TWO[1])
    assert one("max(a) >= a.p99", "0.25", signals=measured) == ("true", 0)
    assert one("max(b) > a.p99", "0.25/0.25", signals=measured) == ("false", None)
    assert one("count(b > a.p99) >= 1", "0/0.5", signals=measured) == ("true", 0)
    missing = ("unknown", "not calibrated")
    assert one("max(a) >= a.p98", "0.25", signals=measured) == missing
    lost = (make_signal("a", unresolved="below min_score"), TWO[1])
    assert one("max(b) >= a.p99", "0.25", signals=lost) == ("unknown", "unresolved selector")


def test_patterns_name_what_stands_under_let() -> None:
    let = (("low_a", "max(a) >= 0.2"), ("low_b", "max(b) >= 0.2"), ("high", "max(a) >= 0.9"))
    assert one("2 of low_*", "0.2/0.2", let=let) == ("true", 0)
    assert one("all of *", "0.2/0.2", let=let) == ("false", None)
    assert one("none of h*", "0.2/0.2", let=let) == ("true", 0)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("max(a) in [0, 0.5]", "the largest value of “a” is at least 0 and at most 0.5"),
        ("2 of ask_*", "at least 2 of the expressions under let named “ask_*”"),
        ("defined(a)", "“a” could be resolved for this model"),
        (
            "window 8 (max(a) >= 1 or max(b) >= 1)",
            "on some 8 neighbouring tokens (the largest value of “a” is at least 1, or the largest "
            "value of “b” is at least 1)",
        ),
        (
            "(a > 1) then (b @tool > 2) within 5 tokens",
            "some token has “a” above 1, and one of the next 5 tokens has “b” on tool tokens "
            "above 2",
        ),
        ("quantile(a, 0.9) > 1", "the 0.9 quantile of “a” is above 1"),
        (
            "topk_mean(a, 3) > a.p99",
            "the mean of the 3 largest values of “a” is above the 99th percentile of “a”",
        ),
        (
            "rolling_mean_max(a, 16) >= calibrated",
            "the largest mean over 16 neighbouring tokens of “a” is at least the calibrated "
            "threshold",
        ),
        ("first(a > 1) < 10", "the place (from 0) of the first token with “a” above 1 is below 10"),
        ("last(a > 1) > 2", "the place (from 0) of the last token with “a” above 1 is above 2"),
    ],
)
def test_in_plain_words(condition: str, words: str) -> None:
    assert in_words(parse_condition(condition)) == words
