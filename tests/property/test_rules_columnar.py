"""Plain rules judged in columns say what SQL says, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from auditkit.core.locks import Frame, LockedLatent, LockedRule, Scope
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.findings.shared_rows import SharedRows
from auditkit.rules import compile_sql, lower_rule
from auditkit.rules.columnar import (
    COLUMNS_SQL,
    COVERED_SQL,
    ColumnLayout,
    TokenColumns,
    evaluate_columns,
    is_plain,
)
from auditkit.store import Store
from tests.locked import make_rule, make_signal
from tests.property.test_rules_shared_rows import Connected
from tests.unit.rules.rules_worlds import Bench, RandomRules, make_bench

RULES = 300


def covered_bench(seed: int) -> Bench:
    """Random recordings, every token of them covered."""
    bench = make_bench(seed)
    bench.connection.execute("DELETE FROM coverage")
    bench.connection.execute(
        "INSERT INTO coverage SELECT recording, 'sae', min(token), max(token) FROM tokens "
        "GROUP BY recording"
    )
    return bench


def plain_rules(bench: Bench) -> Iterator[LockedRule]:
    made = RandomRules(bench.rng, near=0.0)
    while True:
        rule = made.rule()
        if is_plain(lower_rule(rule)):
            yield rule


class Rows:
    """The activations of a recording, as SharedRows gathers them."""

    def __init__(self, bench: Bench, recording: str, columns: TokenColumns) -> None:
        self.found = bench.connection.execute(
            "SELECT latent, token, value FROM activations WHERE recording = ?", [recording]
        ).to_arrow_table()
        self.columns = columns

    def of_latents(
        self, latents: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        latent = self.found["latent"].to_numpy()
        at = [np.flatnonzero(latent == x) for x in latents]
        token = self.found["token"].to_numpy()[np.concatenate(at)]
        value = self.found["value"].to_numpy()[np.concatenate(at)]
        return self.columns.find(token), value, np.array([len(x) for x in at])


def judge(bench: Bench, rule: LockedRule, masked: TokenMask, world: int = 0) -> pa.Table | None:
    store = Connected(bench.connection)
    recording = bench.worlds[world].recording
    columns = TokenColumns.of(
        store.query(COLUMNS_SQL, [recording]), store.query(COVERED_SQL, [recording])
    )
    if columns is None:
        return None
    plan = lower_rule(rule)
    layout = ColumnLayout.of(columns, plan.frame, plan.scope, masked=masked)
    return evaluate_columns(plan, layout, Rows(bench, recording, columns))


def by_sql(bench: Bench, rule: LockedRule, masked: TokenMask, world: int = 0) -> pa.Table:
    alone = compile_sql(rule, bench.worlds[world].recording, masked=masked)
    return Connected(bench.connection).query(alone.text, alone.parameters)


def test_columns_say_what_sql_says_of_random_plain_rules() -> None:
    bench = covered_bench(11)
    rules = plain_rules(bench)
    seen: Counter[str] = Counter()
    for number in range(RULES):
        rule, world = next(rules), number % len(bench.worlds)
        masked = TokenMask(bench.rng.choice((31, 31, 3, 0)))
        found = judge(bench, rule, masked, world)
        assert found is not None
        said = by_sql(bench, rule, masked, world)
        assert found.equals(said), (rule.condition, rule.frame, found, said)
        plan = lower_rule(rule)
        seen.update(a.statistic.value for a in plan.aggregates)
        seen.update(found["verdict"].to_pylist())
        seen.update([plan.frame.value, f"latching {plan.latching}"])
        seen["scored"] += found["score"].null_count < len(found)
    wanted = "max mean sum rolling_mean_max count frac true false unknown conversation message"
    for kind in [*wanted.split(), "exchange", "latching True", "latching False", "scored"]:
        assert seen[kind] >= 12, (kind, seen)


def test_shared_rows_take_plain_rules_in_columns_and_others_in_sql() -> None:
    bench = covered_bench(12)
    recording = bench.worlds[0].recording
    plain = plain_rules(bench)
    rules = [next(plain) for _ in range(12)]
    rules += [r for r, _, _ in bench.cases(24)]
    together = SharedRows(cast(Store, Connected(bench.connection)), recording, TokenMask.BOS)
    for rule, found in together.verdicts(rules):
        assert found.equals(by_sql(bench, rule, TokenMask.BOS)), rule.condition
    assert 12 <= together.in_columns < len(rules)


def test_a_token_that_is_not_covered_sends_every_rule_to_sql() -> None:
    bench = covered_bench(13)
    recording = bench.worlds[0].recording
    bench.connection.execute(
        "UPDATE coverage SET last_token = last_token - 1 WHERE recording = ?", [recording]
    )
    rule = make_rule("max(a) >= 0.2")
    assert is_plain(lower_rule(rule))
    assert judge(bench, rule, TokenMask.BOS) is None
    together = SharedRows(cast(Store, Connected(bench.connection)), recording, TokenMask.BOS)
    ((_, found),) = together.verdicts([rule])
    assert found.equals(by_sql(bench, rule, TokenMask.BOS))
    assert together.in_columns == 0


@pytest.mark.parametrize(
    ("condition", "weight"),
    [("mean(a) >= 0.5", 1e12), ("max(a) >= 2e9", 1e10)],
)
def test_numbers_too_large_to_be_exact_are_left_to_sql(condition: str, weight: float) -> None:
    bench = covered_bench(14)
    signal = make_signal("a", LockedLatent(latent=0, weight=weight))
    assert judge(bench, make_rule(condition, signals=(signal,)), TokenMask.BOS) is None


@pytest.mark.parametrize("frame", [Frame.CONVERSATION, Frame.MESSAGE, Frame.EXCHANGE])
def test_frames_agree_where_roles_and_first_tokens_are_left_out(frame: Frame) -> None:
    bench = covered_bench(15)
    for roles in ((), (Role.USER,), (Role.USER, Role.TOOL)):
        for skip_first in (0, 1, 3, 50):
            scope = Scope(roles=roles, skip_first=skip_first)
            rule = make_rule("count(a > 0.1) >= 2", frame=frame, scope=scope)
            assert judge(bench, rule, TokenMask.BOS) == by_sql(bench, rule, TokenMask.BOS)


@pytest.mark.parametrize(
    "condition",
    [
        "window 3 (max(a) >= 0.2)",
        "(a > 0.1) then (a > 0.3) within 3 tokens",
        "run(a > 0.1) >= 2",
        "quantile(a, 0.5) >= 0.1",
        "first(a > 0.1) <= 2",
        "max(a) >= calibrated",
    ],
)
def test_what_is_not_plain_is_known_to_be_so(condition: str) -> None:
    assert not is_plain(lower_rule(make_rule(condition)))
