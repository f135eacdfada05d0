"""The smallest change that turns a verdict over: applied it does, and no cheaper one does."""

from __future__ import annotations

import itertools
import random

import pytest

from auditkit.core.measured import NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Truth
from auditkit.rules import TokenSignals, lower_rule
from auditkit.rules.explaining.flip import Flip, FrameState, Move, find_flip
from auditkit.rules.explaining.verdict_tree import explain_frame, frame_state
from auditkit.rules.lowered.plan import FAR, FrameAtLeast, FrameCut, FrameNode, FrameNot
from tests.locked import latents_of, make_rule, make_signal

SIGNALS = tuple(make_signal(name, *latents_of([n])) for n, name in enumerate("abcd"))


def tokens_of(*rows: tuple[float | None, ...]) -> list[TokenSignals]:
    return [
        TokenSignals(
            role=Role.USER,
            values={
                name: None if v is None else round(v * 2**20)
                for name, v in itertools.zip_longest("abcd", row, fillvalue=0.0)
            },
        )
        for row in rows
    ]


def state_of(condition: str, tokens: list[TokenSignals]) -> FrameState:
    return frame_state(lower_rule(make_rule(condition, signals=SIGNALS)), tokens)


def flip_of(condition: str, *rows: tuple[float | None, ...]) -> Flip:
    found = find_flip(state_of(condition, tokens_of(*rows)))
    assert isinstance(found, Flip), found
    return found


def after(state: FrameState, moves: tuple[Move, ...]) -> bool | None:
    return state.judge({m.aggregate: m.to for m in moves}).truth


def test_a_maximum_reaches_its_threshold() -> None:
    found = flip_of("max(a) >= 0.5", (0.4,), (0.1,))
    assert found.truth is True
    assert [(m.before, m.after) for m in found.moves] == [(pytest.approx(0.4), 0.5)]
    assert found.cost == pytest.approx(0.2, abs=1e-5)


def test_a_true_maximum_falls_one_step_below() -> None:
    found = flip_of("max(a) >= 0.5", (0.6,))
    assert found.moves[0].to == 2**19 - 1


def test_and_costs_the_sum_and_or_the_least() -> None:
    rows = ((0.4, 0.25),)
    both, either = "max(a) >= 0.5 and max(b) >= 0.5", "max(a) >= 0.5 or max(b) >= 0.5"
    assert flip_of(both, *rows).cost == pytest.approx(0.2 + 0.5, abs=1e-5)
    assert flip_of(either, *rows).cost == pytest.approx(0.2, abs=1e-5)
    high = ((0.55, 0.75),)
    assert flip_of(both, *high).cost == pytest.approx(0.1, abs=1e-5)
    assert flip_of(either, *high).cost == pytest.approx(0.1 + 0.5, abs=1e-5)


def test_of_k_the_cheapest_are_turned() -> None:
    condition = "2 of (max(a) >= 0.5, max(b) >= 0.5, max(c) >= 0.5)"
    found = flip_of(condition, (0.45, 0.3, 0.1))
    assert [m.aggregate for m in found.moves] == [0, 1]
    assert found.cost == pytest.approx(0.1 + 0.4, abs=1e-5)


def test_counts_move_by_whole_tokens() -> None:
    found = flip_of("count(a >= 0.5) >= 3", (0.6,), (0.7,), (0.1,))
    assert [(m.before, m.after, m.cost) for m in found.moves] == [(2.0, 3.0, pytest.approx(1 / 3))]


def test_a_count_cannot_exceed_its_tokens() -> None:
    found = find_flip(state_of("count(a >= 0.5) >= 4", tokens_of((0.6,), (0.7,))))
    assert found == NotMeasured("no change of these statistics turns it over")


def test_activations_do_not_fall_below_their_floor() -> None:
    found = find_flip(state_of("sum(a) <= 0", tokens_of((0.0,))))
    assert isinstance(found, Flip)
    assert found.moves[0].to == 1
    assert isinstance(find_flip(state_of("max(a) >= 0", tokens_of((0.3,)))), NotMeasured)


def test_a_share_moves_by_a_token_of_those_seen() -> None:
    found = flip_of("frac(a >= 0.5) > 0.5", (0.6,), (0.6,), (0.1,), (0.1,))
    assert [(m.before, m.after) for m in found.moves] == [(0.5, 0.75)]


def test_first_without_any_token_is_brought_in_from_beyond_the_end() -> None:
    found = flip_of("first(a >= 0.5) <= 1", (0.1,), (0.1,), (0.1,))
    assert [(m.before, m.after) for m in found.moves] == [(float("inf"), 1.0)]
    assert found.cost == 2.0
    away = flip_of("first(a >= 0.5) <= 5", (0.1,), (0.9,), (0.1,))
    assert away.moves[0].to == FAR


def test_a_mean_in_two_comparisons_has_one_value() -> None:
    found = flip_of("mean(a) in [0.4, 0.6]", (0.5,))
    assert len(found.moves) == 1
    outside = flip_of("mean(a) in [0.4, 0.6]", (0.3,))
    assert outside.moves[0].after == pytest.approx(0.4)
    never = find_flip(state_of("mean(a) >= 0.6 and mean(a) <= 0.4", tokens_of((0.5,))))
    assert never == NotMeasured("no change of these statistics turns it over")


def test_an_unknown_verdict_is_not_turned_over() -> None:
    found = find_flip(state_of("max(a) >= 0.5", tokens_of((None,))))
    assert found == NotMeasured("the verdict is unknown")


def test_a_window_is_left_as_it_was_judged() -> None:
    rows = ((0.4, 0.1), (0.4, 0.1))
    found = flip_of("window 2 (mean(a) >= 0.3) and max(b) >= 0.2", *rows)
    assert [m.before for m in found.moves] == [pytest.approx(0.1, abs=1e-5)]
    alone = find_flip(state_of("window 2 (mean(a) >= 0.3)", tokens_of(*rows)))
    assert isinstance(alone, NotMeasured)


def random_condition(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.25:
        if rng.random() < 0.3:
            test = f"{rng.choice('abcd')} >= {rng.choice((0.2, 0.5))}"
            return f"count({test}) {rng.choice(('>=', '<', '==', '!='))} {rng.randint(0, 3)}"
        op = rng.choice((">=", ">", "<=", "<", "==", "!="))
        statistic = f"{rng.choice(('max', 'mean', 'sum'))}({rng.choice('abcd')})"
        return f"{statistic} {op} {rng.choice((0.0, 0.2, 0.3, 0.5))}"
    parts = [random_condition(rng, depth - 1) for _ in range(rng.randint(2, 3))]
    kind = rng.choice(("and", "or", "not", "of"))
    if kind == "not":
        return f"not ({parts[0]})"
    if kind == "of":
        return f"{rng.randint(1, len(parts))} of ({', '.join(parts)})"
    return "(" + f" {kind} ".join(parts) + ")"


def cuts_of(node: FrameNode) -> list[FrameCut]:
    match node:
        case FrameCut():
            return [node]
        case FrameNot(operand=operand):
            return cuts_of(operand)
        case FrameAtLeast(operands=operands):
            return [c for o in operands for c in cuts_of(o)]
        case _:
            return []


def brute_force(state: FrameState) -> float | None:
    """The least cost over every set of new values on a grid around all thresholds."""
    grid: dict[int, dict[int, float]] = {}
    for cut in cuts_of(state.plan.root):
        held, part = state.held[cut.aggregate], state.plan.aggregates[cut.aggregate]
        counting = part.signal is None
        step = 2**20 if counting else 1
        assert cut.cut.threshold is not None
        assert held.low is not None
        border = cut.cut.threshold * held.share
        around = {(border // step + d) * step for d in (-2, -1, 0, 1, 2)} | {border}
        top = state.seen[cut.aggregate] * 2**20
        for to in around:
            if to < 0 or to == held.low or to % step or (counting and to > top):
                continue
            unit = (abs(cut.cut.threshold) or 2**20) * held.share
            cost = abs(to - held.low) / unit
            own = grid.setdefault(cut.aggregate, {})
            own[to] = min(cost, own.get(to, cost))
    now, least = state.judge().truth, None
    choices = [[(None, 0.0), *own.items()] for own in grid.values()]
    for chosen in itertools.product(*choices):
        values = {a: to for a, (to, _) in zip(grid, chosen, strict=True) if to is not None}
        cost = sum(c for _, c in chosen)
        turned = state.judge(values).truth is (not now)
        if turned and (least is None or cost < least):
            least = cost
    return least


@pytest.mark.parametrize("seed", range(8))
def test_no_cheaper_change_turns_it_over(seed: int) -> None:
    rng = random.Random(seed)
    tried = 0
    while tried < 40:
        rows = [
            tuple(rng.choice((0.0, 0.1, 0.2, 0.3, 0.5, 0.8)) for _ in range(4))
            for _ in range(rng.randint(1, 3))
        ]
        state = state_of(random_condition(rng, rng.randint(0, 2)), tokens_of(*rows))
        if len({c.aggregate for c in cuts_of(state.plan.root)}) > 4:
            continue
        tried += 1
        found, least = find_flip(state), brute_force(state)
        if least is None:
            assert isinstance(found, NotMeasured)
            continue
        assert isinstance(found, Flip)
        assert after(state, found.moves) is (not state.judge().truth)
        assert found.cost == pytest.approx(least, rel=1e-9)
        for left_out in found.moves:
            fewer = tuple(m for m in found.moves if m is not left_out)
            assert after(state, fewer) is not found.truth


def test_what_decides_an_unknown_verdict_is_named() -> None:
    rule = make_rule("max(a) >= calibrated and max(b) >= 0.5", signals=SIGNALS)
    told = explain_frame(rule, tokens_of((0.9, 0.9)))
    assert told.verdict.truth is Truth.UNKNOWN
    (part,) = told.missing
    assert part.text == "max(a) >= calibrated"
    assert (part.if_true, part.if_false, part.decides) == (Truth.TRUE, Truth.FALSE, True)


def test_of_two_unknown_parts_of_an_or_each_can_only_make_it_true() -> None:
    rule = make_rule("max(a) >= 0.5 or max(b) >= 0.5", signals=SIGNALS)
    told = explain_frame(rule, tokens_of((None, None), (0.1, 0.1)))
    assert [(m.if_true, m.if_false) for m in told.missing] == [(Truth.TRUE, Truth.UNKNOWN)] * 2
