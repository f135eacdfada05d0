"""Drawing controls one after another, and ending early without a p-value that is too small."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auditkit.confirm import ControlPool, RawConfirmation, confirm_rule
from auditkit.confirm.analysis import sequential_rank_p
from auditkit.confirm.controls import FIRST_DRAW, draws
from auditkit.confirm.sufficiency import damage_budget
from auditkit.core.confirmations import Arm, Trial
from auditkit.core.measured import Measured
from tests.planted import BROAD, CAUSAL, INERT, SMALL, Planted, planted, rule_on

SETTINGS = replace(
    SMALL,
    prompts=8,
    control_prompts=8,
    ablation_prompts=6,
    latent_controls=30,
    isotropic_controls=60,
    covariance_controls=10,
    damage_texts=2,
    damage_controls=9,
)


Found = dict[int, tuple[RawConfirmation, list[Trial]]]


@pytest.fixture(scope="module")
def found() -> Found:
    """Result and trials of the three planted latents, tested in one run."""
    torch.set_num_threads(1)
    world, pool = planted(0), ControlPool()
    return {latent: _confirm(world, latent, pool) for latent in (CAUSAL, INERT, BROAD)}


def _confirm(world: Planted, latent: int, pool: ControlPool) -> tuple[RawConfirmation, list[Trial]]:
    trials: list[Trial] = []
    rule = rule_on(latent)
    raw = confirm_rule(
        world.model,
        world.sae,
        rule,
        rule.confirm[0],
        world.inputs,
        settings=SETTINGS,
        pool=pool,
        trial_sink=trials.extend,
    )
    return raw, trials


def _damage_controls(trials: list[Trial]) -> set[tuple[float, int]]:
    return {(t.dose, t.control) for t in trials if t.arm is Arm.LATENT and t.metric == "kl"}


def test_the_sequential_p_value_counts_up_to_the_deciding_control() -> None:
    drawn = np.array([0.0, 2.0, 0.0, 2.0, 0.0, 0.0])
    assert sequential_rank_p(1.0, drawn, 2) == pytest.approx(2 / 4)
    assert sequential_rank_p(1.0, drawn, 3) is None
    assert sequential_rank_p(2.0, drawn, 2) == pytest.approx(2 / 4), "ties count as hits"


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=80), st.integers(1, 12), st.data())
def test_controls_beyond_the_deciding_one_change_nothing(
    values: list[float], hits: int, data: st.DataObject
) -> None:
    p = sequential_rank_p(0.5, np.array(values), hits)
    if p is not None:
        more = data.draw(st.lists(st.floats(-3, 3), max_size=20))
        assert sequential_rank_p(0.5, np.array([*values, *more]), hits) == p


@pytest.mark.parametrize("hits", [3, 10])
def test_the_sequential_p_value_keeps_its_level(hits: int) -> None:
    rng = np.random.default_rng(0)
    found: list[float] = []
    for _ in range(4000):
        own, *drawn = rng.normal(size=100)
        p = sequential_rank_p(own, np.array(drawn), hits)
        found.append((1 + np.count_nonzero(np.array(drawn) >= own)) / 100 if p is None else p)
    for level in (0.02, 0.05, 0.1, 0.3, 0.7):
        share = float(np.mean(np.array(found) <= level + 1e-12))
        assert share <= level + 3 * np.sqrt(level * (1 - level) / len(found))


def test_no_test_that_ends_early_could_have_been_significant() -> None:
    for n in (SMALL.latent_controls, 99, 100, 40):
        latest = np.full(n, -1.0)
        latest[-SMALL.futility_hits :] = 1.0
        p = sequential_rank_p(0.0, latest, SMALL.futility_hits)
        assert p is not None
        assert p >= SMALL.futility_hits / n >= 0.1


@given(st.integers(0, 400))
def test_every_control_is_drawn_once_and_in_order(n: int) -> None:
    batches = list(draws(n))
    assert [i for batch in batches for i in batch] == list(range(n))
    assert all(len(b) <= 2 * len(a) for a, b in pairwise(batches))


def test_a_target_without_effect_still_meets_every_matched_latent(found: Found) -> None:
    inert, causal = found[INERT][0], found[CAUSAL][0]
    assert inert.steering is not None
    assert causal.steering is not None
    assert causal.steering.controls == 30 + 60 + 10
    assert inert.steering.controls == 30 + FIRST_DRAW + 10
    assert inert.steering.p_rank >= 0.1
    assert any("so 60 of 100 controls were run" in note for note in inert.notes)
    drawn = {(t.arm, t.control) for t in found[INERT][1] if t.op == "steer" and t.metric != "kl"}
    assert len([arm for arm, _ in drawn if arm is Arm.LATENT]) == SETTINGS.latent_controls


def test_damage_ends_with_the_control_that_decides(found: Found) -> None:
    (inert, few), (broad, many) = found[INERT], found[BROAD]
    assert len(_damage_controls(few)) == 4
    assert len(_damage_controls(many)) >= SETTINGS.damage_controls
    for raw in (inert, broad):
        assert isinstance(raw.damage_kl, Measured)
        assert isinstance(raw.damage_budget, Measured)
    assert inert.damage_kl.value <= inert.damage_budget.value
    assert broad.damage_kl.value > broad.damage_budget.value
    assert broad.damage_budget.n == SETTINGS.damage_controls


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_an_early_end_says_the_same_of_the_budget_as_all_controls(
    controls: list[float], own: float
) -> None:
    n = len(controls)
    deciding = n - int(np.ceil(0.95 * (n - 1)))
    as_much = sum(c >= own for c in controls)
    assert (as_much >= deciding) == (own <= damage_budget(np.array(controls)))
