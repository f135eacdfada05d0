"""Condition text and syntax trees."""

from __future__ import annotations

import random

import pytest

from auditkit.core.prompts import Role
from auditkit.rules import ConditionError, parse_condition, render_condition
from auditkit.rules.language.ast import (
    And,
    Calibrated,
    Compare,
    LetRef,
    Not,
    Number,
    Of,
    OfNames,
    Op,
    Or,
    Quantified,
    SignalRef,
    SignalStatistic,
    Then,
    TokenCompare,
    TokenOf,
    TokenStatistic,
    Window,
    walk,
)
from tests.unit.rules.rules_worlds import RandomRules

MAX_A = Compare(SignalStatistic("max", SignalRef("a")), Op.GE, Number(1.0))


def test_and_binds_tighter_than_or_and_not_tighter_than_and() -> None:
    tree = parse_condition("a or not b and c")
    assert tree == Or((LetRef("a"), And((Not(LetRef("b")), LetRef("c")))))


def test_parentheses_change_the_grouping_and_leave_no_node() -> None:
    tree = parse_condition("((a or b)) and (c)")
    assert tree == And((Or((LetRef("a"), LetRef("b"))), LetRef("c")))


def test_roles_units_and_calibrated_are_read() -> None:
    assert parse_condition("mean(refuse @user @tool) >= calibrated") == Compare(
        SignalStatistic("mean", SignalRef("refuse", (Role.USER, Role.TOOL))), Op.GE, Calibrated()
    )
    assert parse_condition("max(a)<-1.5e-2 fmax") == Compare(
        SignalStatistic("max", SignalRef("a")), Op.LT, Number(-0.015, "fmax")
    )


def test_k_of_takes_expressions_outside_and_token_tests_inside_an_aggregate() -> None:
    low = TokenCompare(SignalRef("a"), Op.GE, Number(1.0))
    assert parse_condition("2 of (x, y, max(a) >= 1)") == Of(2, (LetRef("x"), LetRef("y"), MAX_A))
    assert parse_condition("count(none of (a >= 1)) == 3 tokens") == Compare(
        TokenStatistic("count", TokenOf("none", (low,))), Op.EQ, Number(3.0, "tokens")
    )
    assert parse_condition("all of them") == OfNames("all", "them")
    assert parse_condition("all (a >= 1)") == Quantified("all", low)


def test_the_parts_that_wait_are_part_of_the_grammar() -> None:
    a = TokenCompare(SignalRef("a"), Op.GE, Number(1.0))
    b = TokenCompare(SignalRef("b"), Op.GE, Number(2.0))
    assert parse_condition("window 8 (max(a) >= 1)") == Window(8, MAX_A)
    assert parse_condition("((a >= 1)) then (b >= 2) within 5 tokens") == Then(a, b, 5)
    for text in (
        "quantile(a, 0.9) >= 1",
        "diff(mean(a)) in [0, 1]",
        "first(a >= 1) < 10",
        "defined(a)",
        "2 of ask_*",
        "max(a) >= a.p99.9",
    ):
        assert render_condition(parse_condition(text)) == text


def test_words_that_begin_with_a_keyword_are_names() -> None:
    tree = parse_condition("order or notable and max(maximum) >= 1")
    names = [n.name for n in walk(tree) if isinstance(n, LetRef | SignalRef)]
    assert names == ["order", "notable", "maximum"]


def test_every_node_knows_its_place() -> None:
    text = "asked  and\n not max( refuse @user ) >= 0.3"
    places = {
        type(n).__name__: text[n.place.start : n.place.end] for n in walk(parse_condition(text))
    }
    assert places["LetRef"] == "asked"
    assert places["Not"] == "not max( refuse @user ) >= 0.3"
    assert places["SignalRef"] == "refuse @user"
    assert places["Number"] == "0.3"


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("", "the condition is empty", 0),
        ("max(a", "ends too early", 5),
        ("max(a) >= 1 foo", "unexpected 'foo'", 12),
        ("max(a) => 1", "unexpected '='", 7),
        ("a >= 1", "unexpected '>='", 2),
        ("avg(a) >= 1", "unknown function 'avg'", 0),
        ("max(a @bob) >= 1", "unexpected 'bob'", 7),
        ("max(a) >= $", r"unexpected '\$'", 10),
        ("1.5 of (a, b)", "expected a whole number, not 1.5", 0),
        ("-1 of (a, b)", "expected a whole number, not -1", 0),
        ("not " * 60 + "a", "nested more than 40 deep", 41 * 4),
        ("a or " * 2000 + "a", "at most 8000 are read", 0),
    ],
)
def test_a_syntax_error_names_its_place(text: str, message: str, at: int) -> None:
    with pytest.raises(ConditionError, match=message) as caught:
        parse_condition(text)
    assert caught.value.place.start == at


def test_a_misspelt_function_is_guessed() -> None:
    with pytest.raises(ConditionError, match="did you mean 'mean'"):
        parse_condition("meen(a) >= 1")


def test_rendering_and_parsing_are_inverse() -> None:
    made = RandomRules(random.Random(0))
    for _ in range(400):
        text = made.rule().condition
        tree = parse_condition(text)
        assert render_condition(tree) == text
        assert parse_condition(render_condition(tree)) == tree
