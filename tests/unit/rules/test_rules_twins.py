"""Frames of one token, messages beside their twins, and the largest of z-scores: known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import lower
from auditkit.core.locks import Frame, LockedLatent, LockedRule, Pool, Scope, Unit
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules import (
    RuleWatcher,
    StreamEvaluator,
    TokenSignals,
    critical_threshold,
    explain_rule,
    find_twins,
    lower_rule,
    offline_parts,
    pool_signal,
    split_frames,
)
from auditkit.rules.explaining.flip import Flip
from auditkit.rules.explaining.verdict_tree import explain_frame
from tests.locked import make_rule, make_signal
from tests.report_sample import sample_audit
from tests.unit.rules.rules_worlds import (
    Token,
    World,
    as_float32,
    calibrated_at,
    load_worlds,
    run_sql,
    run_stream,
)

U, A, S = Role.USER, Role.ASSISTANT, Role.SYSTEM
TWO = (make_signal("a", LockedLatent(latent=0)), make_signal("b", LockedLatent(latent=1)))
PAIRED = Frame.PAIRED_MESSAGE

Said = Sequence[tuple[Role, Sequence[float | None]]]


def pair(own: Said, twin: Said | None, *, third: Said | None = None) -> World:
    """The prompts p, q and r: of each the messages as (role, values of `a`); all of one pair."""
    made: dict[str, list[Token]] = {}
    for ordinal, (name, said) in enumerate((("p", own), ("q", twin), ("r", third))):
        values = [(m, r, v) for m, (r, some) in enumerate(said or ()) for v in some]
        made[name] = [
            Token(ordinal * 64 + i, name, r, m, 0, v is not None, {0: as_float32(v)} if v else {})
            for i, (m, r, v) in enumerate(values)
        ]
    world = World("r", {name: tokens for name, tokens in made.items() if tokens})
    world.tags = dict.fromkeys(world.prompts, ("kind:x", "pair:001"))
    return world


def verdicts(rule: LockedRule, world: World) -> dict[tuple[str, int], tuple[object, ...]]:
    """(verdict, reason, at, score) of every frame, the same from SQL and stream."""
    by_stream = run_stream(rule, world, TokenMask.NONE)
    assert run_sql(load_worlds([world]), rule, world, TokenMask.NONE) == by_stream
    return {row[:2]: (*row[2:5], row[6]) for row in by_stream}


def paired(condition: str, **keys) -> LockedRule:
    return make_rule(condition, signals=TWO, frame=PAIRED, **keys)


def signals_of(*values: float | None) -> list[TokenSignals]:
    return [
        TokenSignals(role=U, values={"a": None if v is None else lower(v), "b": 0}) for v in values
    ]


def test_a_difference_is_the_message_less_its_twins() -> None:
    world = pair([(U, [0.5, 0.75])], [(U, [0.25, 0.0, 0.125])])
    found = verdicts(paired("diff(mean(a)) >= 0.5"), world)
    assert found["p", 0] == ("true", None, 1, 0.625 - 0.125)
    assert found["q", 0] == ("false", None, None, 0.125 - 0.625)


@pytest.mark.parametrize(
    ("condition", "p", "q"),
    [
        ("diff(max(a)) > 0.4", "true", "false"),
        ("diff(sum(a)) == 1", "true", "false"),
        ("diff(count(a >= 0.25)) >= 1", "true", "false"),
        ("diff(frac(a >= 0.25)) >= 0.5", "true", "false"),
        ("diff(run(a >= 0.25)) in [-1, 1]", "true", "true"),
        ("diff(first(a >= 0.25)) <= 0", "true", "true"),
        ("diff(last(a >= 0.25)) == 1", "true", "false"),
        ("diff(first(a >= 9)) == 0", "true", "true"),  # neither has such a token
        ("diff(first(a >= 0.5)) < -1000", "true", "false"),  # only one has
        ("diff(quantile(a, 0.5)) >= 0.5", "true", "false"),
        ("diff(topk_mean(a, 2)) >= 0.4", "true", "false"),
        ("diff(rolling_mean_max(a, 2)) >= 0.4", "true", "false"),
        ("not diff(max(a)) >= 0.5 and max(a) < 0.3", "false", "true"),
    ],
)
def test_every_statistic_has_a_difference(condition: str, p: str, q: str) -> None:
    found = verdicts(paired(condition), pair([(U, [0.5, 0.75])], [(U, [0.25, 0.0])]))
    assert (found["p", 0][0], found["q", 0][0]) == (p, q)


def test_the_nth_message_in_scope_is_compared_with_the_nth() -> None:
    own = [(S, [9.0]), (U, [0.1]), (A, [0.9])]
    twin = [(U, [0.1]), (A, [0.2]), (A, [0.3])]
    found = verdicts(paired("diff(max(a)) >= 0.5", scope=Scope(roles=(U, A))), pair(own, twin))
    assert [found["p", n][0] for n in (0, 1)] == ["false", "true"]
    assert found["q", 2][:2] == ("unknown", "no twin")  # the twin has no third message


def test_without_just_one_twin_a_difference_is_unknown() -> None:
    said = [(U, [0.5])]
    rule = paired("diff(max(a)) >= 0.5")
    assert verdicts(rule, pair(said, None))["p", 0][:2] == ("unknown", "no twin")
    three = verdicts(rule, pair(said, said, third=said))
    assert {v[:2] for v in three.values()} == {("unknown", "no twin")}
    untagged = replace(pair(said, said), tags={})
    assert verdicts(rule, untagged)["p", 0][:2] == ("unknown", "no twin")


def test_what_needs_no_twin_is_decided_without_one() -> None:
    alone = pair([(U, [0.5])], None)
    assert verdicts(paired("diff(max(a)) >= 0.5 or max(a) >= 0.5"), alone)["p", 0][0] == "true"
    assert verdicts(paired("diff(max(a)) >= 0.5 and max(a) > 0.5"), alone)["p", 0][0] == "false"
    assert verdicts(paired("diff(max(a)) >= 0.5"), alone)["p", 0][3] is None


def test_both_sides_may_leave_a_difference_open() -> None:
    rule = paired("diff(max(a)) >= 0.25")
    assert verdicts(rule, pair([(U, [0.5, None])], [(U, [0.25])]))["p", 0][0] == "true"
    assert verdicts(rule, pair([(U, [0.5])], [(U, [0.5, None])]))["p", 0][0] == "false"
    open_ = verdicts(rule, pair([(U, [0.5])], [(U, [0.0, None])]))["p", 0]
    assert open_[:2] == ("unknown", "not covered")


def test_a_difference_is_decided_at_the_end_of_the_message() -> None:
    rule = paired("diff(max(a)) >= 0.25")
    assert not StreamEvaluator(rule).latching
    found = verdicts(rule, pair([(U, [0.9, 0.0, 0.0])], [(U, [0.0])]))
    assert found["p", 0][2] == 2


def test_a_snapshot_remembers_the_twin() -> None:
    evaluator = StreamEvaluator(paired("diff(max(a)) >= 0.25"))
    evaluator.compare_with(signals_of(0.25))
    evaluator.push(signals_of(0.25))
    saved = evaluator.snapshot()
    other = StreamEvaluator(evaluator.plan)
    other.restore(saved)
    other.push(signals_of(0.5))
    assert other.finish().truth == "true"
    other.restore(StreamEvaluator(evaluator.plan).snapshot())
    other.push(signals_of(0.5))
    assert other.finish().reason == "no twin"


def test_the_largest_certifiable_threshold_of_a_difference() -> None:
    rule = paired("diff(mean(a)) >= calibrated", calibration=calibrated_at(0.1))
    frame, twin = signals_of(0.5, 0.75), signals_of(0.25)
    critical = critical_threshold(rule, frame, twin)
    assert critical == 0.375
    for threshold, truth in ((critical, "true"), (critical + 2**-20, "false")):
        evaluator = StreamEvaluator(replace(rule, calibration=calibrated_at(threshold)))
        evaluator.compare_with(twin)
        evaluator.push(frame)
        assert evaluator.finish().truth == truth
    assert critical_threshold(rule, frame) is None
    anywhere = paired("diff(mean(a)) >= calibrated or max(a) > 0", calibration=calibrated_at(0.1))
    assert critical_threshold(anywhere, frame) == math.inf


def test_a_difference_of_counts_does_not_fall_with_what_it_counts() -> None:
    rule = paired("diff(count(a >= calibrated)) >= 1", calibration=calibrated_at(0.1))
    with pytest.raises(InvalidInput, match="no certified threshold"):
        critical_threshold(rule, signals_of(0.5), signals_of(0.25))


def test_an_explanation_shows_both_sides_and_moves_the_messages_own() -> None:
    rule = paired("diff(mean(a)) >= 0.5")
    told = explain_frame(rule, signals_of(0.5, 0.5), signals_of(0.25))
    comparison = told.root.comparison
    assert comparison is not None
    assert (comparison.statistic, comparison.value, comparison.twin) == (
        "diff(mean(a))",
        0.25,
        0.25,
    )
    assert isinstance(told.flip, Flip)
    assert told.flip.moves[0].after == 0.75
    alone = explain_frame(rule, signals_of(0.5))
    assert isinstance(alone.flip, NotMeasured)
    assert alone.missing[0].reason == "no twin"


def test_twins_are_named_by_their_first_tag_of_a_pair() -> None:
    tags = {"a": ["x", "pair:1"], "b": ["pair:1", "pair:2"], "c": ["pair:2"], "d": [], "e": []}
    assert find_twins(tags) == {"a": "b", "b": "a"}
    assert find_twins({"a": ["pair:1"], "b": ["pair:1"], "c": ["pair:1"]}) == {}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (make_rule("diff(max(a)) > 1"), "frame: paired_message"),
        (make_rule("window 2 (diff(max(a)) > 1)", frame=PAIRED), "inside a window"),
    ],
)
def test_a_difference_where_it_means_nothing_is_refused(rule: LockedRule, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        lower_rule(rule)


def test_every_eligible_token_is_a_frame() -> None:
    tokens = [(U, 0.5), (A, 0.5), (U, 0.75), (U, 0.1), (U, None)]
    world = World(
        "r",
        {
            "p": [
                Token(i, "p", r, i, 2 * (i == 3), v is not None, {0: as_float32(v)} if v else {})
                for i, (r, v) in enumerate(tokens)
            ]
        },
    )
    rule = make_rule("max(a) >= 0.6", frame=Frame.TOKEN, scope=Scope(roles=(U,), skip_first=1))
    rows = run_stream(rule, world, TokenMask.TEMPLATE)
    assert run_sql(load_worlds([world]), rule, world, TokenMask.TEMPLATE) == rows
    assert [row[1:6] for row in rows] == [
        (0, "true", None, 0, 2),
        (1, "unknown", "not covered", None, None),
    ]


def test_over_one_token_all_statistics_are_its_value() -> None:
    world = pair([(U, [0.5, 0.25])], None)
    for statistic in ("max(a)", "sum(a)", "mean(a)", "quantile(a, 0.1)", "topk_mean(a, 3)"):
        rule = make_rule(f"{statistic} >= 0.5", frame=Frame.TOKEN)
        assert [v[0] for v in verdicts(rule, world).values()] == ["true", "false"]


def test_tokens_that_are_alike_are_as_many_frames() -> None:
    rule = make_rule("max(a) >= 0.5", frame=Frame.TOKEN, scope=Scope(skip_first=2))
    watcher = RuleWatcher(rule, TokenMask.NONE)
    outcomes = watcher.push_run(U, 0, 0, {"a": lower(0.5)}, 4)
    outcomes += watcher.finish()
    assert [(o.frame, o.token, o.final) for o in outcomes] == [
        (0, 2, False),
        (0, 2, True),
        (1, 3, False),
        (1, 3, True),
    ]
    assert split_frames(Frame.TOKEN, Scope(skip_first=2), TokenMask.NONE, [(U, 0, 0)] * 4) == [
        [2],
        [3],
    ]


Z = make_signal(
    "a",
    LockedLatent(latent=1, offset=0.5),  # silent: −0.5
    LockedLatent(latent=2, offset=0.5, scale=2.0),  # silent: −0.25
    LockedLatent(latent=3, weight=-1.0, offset=0.25),  # silent: 0.25, active: less
    pool=Pool.MAX,
    unit=Unit.Z,
)


@pytest.mark.parametrize(
    ("active", "value"),
    [
        ({}, 0.25),
        ({1: 1.0}, 0.5),
        ({1: 0.6}, 0.25),
        ({3: 1.0}, -0.25),  # the loudest silence is gone, the next one stays
        ({3: 1.0, 2: 0.25}, -0.125),
        ({3: 1.0, 2: 0.25, 1: 0.125}, -0.125),
        ({3: 0.125, 1: 0.25}, 0.125),
    ],
)
def test_the_largest_z_score_counts_silent_latents_too(
    active: dict[int, float], value: float
) -> None:
    assert pool_signal(Z, list(active), list(active.values())) == lower(value)
    rule = make_rule(f"max(a) == {value}", signals=(Z,))
    world = World("r", {"p": [Token(0, "p", U, 0, 0, True, active)]})
    assert verdicts(rule, world)["p", 0][0] == "true"


def test_of_an_uncovered_token_the_largest_z_score_may_be_anything() -> None:
    world = World("r", {"p": [Token(0, "p", U, 0, 0, False, {})]})
    assert verdicts(make_rule("max(a) >= -9", signals=(Z,)), world)["p", 0][0] == "unknown"


def test_an_explanation_says_what_the_frames_are() -> None:
    assert "diff(mean(a)) >= 0.5" in explain_rule(paired("diff(mean(a)) >= 0.5"))
    assert "the prompt's twin" in explain_rule(paired("diff(mean(a)) >= 0.5"))
    assert "at one token" in explain_rule(make_rule("max(a) > 1", frame=Frame.TOKEN))


def test_a_monitor_is_told_what_it_cannot_compare() -> None:
    told = offline_parts(replace(sample_audit().lock, rules=(paired("diff(max(a)) > 1"),)))
    assert [line for line in told if "sees no twin" in line] == list(told)
    assert len(told) == 1


def test_a_score_of_a_difference_is_the_difference() -> None:
    evaluator = StreamEvaluator(paired("diff(max(a)) >= 0.5"))
    evaluator.compare_with(signals_of(0.25))
    evaluator.push(signals_of(0.5))
    assert evaluator.score() == Measured(value=0.25, n=1)
