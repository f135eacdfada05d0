"""The whole causal test on planted latents: the right verdicts, and nothing run twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from auditkit.confirm import (
    ConfirmSettings,
    ControlPool,
    RawConfirmation,
    confirm_rule,
    finish_verdicts,
    plan_controls,
)
from auditkit.core.confirmations import Arm, CausalVerdict, Confirmation, Trial
from auditkit.core.errors import InvalidInput
from auditkit.core.locks import LockedRule, Unit
from auditkit.core.measured import Measured, NotMeasured
from auditkit.suites import Lexicon
from tests.planted import BROAD, CAUSAL, INERT, PLANTED, SMALL, Planted, plan, planted, rule_on

TINY = replace(
    SMALL,
    prompts=10,
    control_prompts=10,
    ablation_prompts=8,
    latent_controls=30,
    isotropic_controls=20,
    covariance_controls=10,
    damage_controls=8,
)

SHARED = ControlPool()
"""Most tests below ask other questions than what is shared, so they share."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted(0)


def _confirm(
    world: Planted,
    rule: LockedRule,
    settings: ConfirmSettings = TINY,
    *,
    pool: ControlPool | None = None,
    done: list[Trial] | None = None,
) -> tuple[RawConfirmation, list[Trial]]:
    trials: list[Trial] = []
    raw = confirm_rule(
        world.model,
        world.sae,
        rule,
        rule.confirm[0],
        world.inputs,
        settings=settings,
        pool=pool or SHARED,
        trial_sink=trials.extend,
        done_trials=done or (),
    )
    return raw, trials


def _verdict(world: Planted, rule: LockedRule, settings: ConfirmSettings = TINY) -> Confirmation:
    return finish_verdicts([_confirm(world, rule, settings)[0]])[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_latents_get_their_verdicts(seed: int) -> None:
    world, pool = planted(seed), ControlPool()
    raws = [_confirm(world, rule_on(k), SMALL, pool=pool)[0] for k in (CAUSAL, INERT, BROAD)]
    verdicts = [c.verdict for c in finish_verdicts(raws)]
    assert verdicts == [
        CausalVerdict.CONFIRMED,
        CausalVerdict.DETECTOR_ONLY,
        CausalVerdict.NONSPECIFIC,
    ]


def test_random_latents_are_not_confirmed(world: Planted) -> None:
    live = np.flatnonzero(world.inputs.latents.q99 > 0)
    picked = np.random.default_rng(0).choice(live[live >= PLANTED], size=6, replace=False)
    raws = [_confirm(world, rule_on(int(k)))[0] for k in picked]
    assert CausalVerdict.CONFIRMED not in {c.verdict for c in finish_verdicts(raws)}


def test_an_interrupted_run_goes_on_and_ends_the_same(world: Planted) -> None:
    rule = rule_on(CAUSAL)
    whole, trials = _confirm(world, rule)
    stored = trials[: len(trials) // 2]
    again, fresh = _confirm(world, rule, done=stored)
    keys = [(t.arm, t.control, t.op, t.dose, t.prompt_id, t.metric) for t in stored + fresh]
    assert len(keys) == len(set(keys)) == len(trials)
    assert finish_verdicts([again])[0].verdict is finish_verdicts([whole])[0].verdict
    assert again.steering is not None
    assert whole.steering is not None
    assert again.steering.effect == whole.steering.effect


def test_a_finished_run_runs_nothing_again(world: Planted) -> None:
    rule = rule_on(CAUSAL)
    first, trials = _confirm(world, rule)
    second, fresh = _confirm(world, rule, done=trials)
    assert fresh == []
    assert second == first


def test_effects_are_recomputable_from_trials(world: Planted) -> None:
    raw, trials = _confirm(world, rule_on(CAUSAL))
    assert raw.steering is not None
    dose = round(raw.steering.dose or 0.0, 9)
    own = [
        t.outcome
        for t in trials
        if (t.arm, t.op, t.dose, t.metric) == (Arm.TARGET, "steer", dose, "lexicon_logodds")
    ]
    assert isinstance(raw.steering.effect, Measured)
    assert raw.steering.effect.value == pytest.approx(np.mean(own))
    gone = [t.outcome for t in trials if (t.arm, t.op) == (Arm.TARGET, "ablate")]
    assert raw.ablation is not None
    assert isinstance(raw.ablation.effect, Measured)
    assert raw.ablation.effect.value == pytest.approx(np.mean(gone))


def test_dose_zero_and_the_gate_are_exact(world: Planted) -> None:
    raw, trials = _confirm(world, rule_on(CAUSAL))
    assert isinstance(raw.identity_gate, Measured)
    assert raw.identity_gate.value <= 1e-5
    untouched = [t.outcome for t in trials if t.op == "steer" and t.dose == 0.0]
    assert untouched
    assert max(map(abs, untouched)) < 1e-5


def test_controls_have_the_targets_norm(world: Planted) -> None:
    _, trials = _confirm(world, rule_on(CAUSAL))
    for op in ("steer", "ablate"):
        norms: dict[tuple[float, str], set[float]] = {}
        for t in trials:
            if t.op == op and t.metric == "lexicon_logodds":
                norms.setdefault((t.dose, t.prompt_id), set()).add(t.relative_norm)
        assert all(len(values) == 1 for values in norms.values())


def test_rules_of_one_run_share_controls(world: Planted) -> None:
    pool = ControlPool()
    # Without a look at the damage both are pushed as far as the plan says, by the same norm.
    settings = replace(TINY, damage_texts=0)
    _confirm(world, rule_on(CAUSAL), settings, pool=pool)
    before = pool.passes_saved
    _confirm(world, rule_on(BROAD), settings, pool=pool)
    assert pool.passes_saved - before >= TINY.isotropic_controls


def test_a_weighted_sum_of_latents_is_pushed_along_its_shares(world: Planted) -> None:
    rule = rule_on(CAUSAL, INERT, weights=(3.0, 1.0))
    confirmation = _verdict(world, rule, replace(TINY, latent_controls=60))
    assert confirmation.steering is not None
    assert isinstance(confirmation.steering.effect, Measured)
    assert confirmation.steering.effect.value > 1.0
    assert dict(confirmation.control_counts)["matched latent"] == 60


def test_a_negative_weight_turns_the_effect_round(world: Planted) -> None:
    plus, _ = _confirm(world, rule_on(CAUSAL, weights=(1.0,)))
    minus, _ = _confirm(world, rule_on(CAUSAL, weights=(-1.0,)))
    assert plus.steering is not None
    assert minus.steering is not None
    assert isinstance(plus.steering.effect, Measured)
    assert isinstance(minus.steering.effect, Measured)
    assert plus.steering.effect.value > 0.5 > -0.5 > minus.steering.effect.value


def test_clamping_brings_the_words_as_well(world: Planted) -> None:
    confirmation = _verdict(world, rule_on(CAUSAL, op="clamp"))
    assert confirmation.steering is not None
    assert confirmation.steering.op == "clamp"
    assert isinstance(confirmation.steering.effect, Measured)
    assert confirmation.steering.effect.value > 1.0


def test_replies_are_written_untouched_steered_and_under_a_control(world: Planted) -> None:
    settings = replace(TINY, generation=True, reply_prompts=6, reply_tokens=6, reply_controls=2)
    confirmation = _verdict(world, rule_on(CAUSAL), settings)
    assert [t.metric for t in confirmation.other_tests] == ["lexeme_rate"]
    assert isinstance(confirmation.other_tests[0].effect, Measured)
    assert confirmation.other_tests[0].effect.value > 0
    assert any(r.base != r.steered for r in confirmation.replies)


def test_a_dead_latent_is_invalid(world: Planted) -> None:
    table = world.inputs.latents
    q99 = table.q99.copy()
    q99[CAUSAL] = 0.0
    dead = replace(world, inputs=replace(world.inputs, latents=replace(table, q99=q99)))
    confirmation = _verdict(dead, rule_on(CAUSAL))
    assert confirmation.verdict is CausalVerdict.INVALID
    assert "dead" in confirmation.why


def test_a_lexicon_of_unknown_words_is_invalid(world: Planted) -> None:
    lexicon = Lexicon(
        name="odd",
        target=("zyx", "qwv", "cat", "dog", "bird", "boy"),
        contrast=world.inputs.lexicon.contrast,
        source="test",
        licence="CC0-1.0",
    )
    odd = replace(world, inputs=replace(world.inputs, lexicon=lexicon))
    confirmation = _verdict(odd, rule_on(CAUSAL))
    assert confirmation.verdict is CausalVerdict.INVALID
    assert "4 target" in confirmation.why


def test_without_negative_examples_an_absence_cannot_be_shown(world: Planted) -> None:
    bare = replace(world, inputs=replace(world.inputs, negative=()))
    confirmation = _verdict(bare, rule_on(INERT))
    assert isinstance(confirmation.positive_control, NotMeasured)
    assert confirmation.verdict is CausalVerdict.INCONCLUSIVE
    assert "positive control" in confirmation.why


def test_an_unknown_operation_or_signal_raises(world: Planted) -> None:
    rule = rule_on(CAUSAL)
    with pytest.raises(InvalidInput, match="unknown operation 'melt'"):
        confirm_rule(world.model, world.sae, rule, plan("melt"), world.inputs)
    other = replace(plan(), intervene=replace(plan().intervene, signal="nobody"))
    with pytest.raises(InvalidInput, match="no signal 'nobody'"):
        confirm_rule(world.model, world.sae, rule, other, world.inputs)
    with pytest.raises(InvalidInput, match="no neutral prompts"):
        confirm_rule(world.model, world.sae, rule, plan(), replace(world.inputs, neutral=()))


def test_a_cause_that_a_family_hides_is_told_to_ask_for_controls(world: Planted) -> None:
    few = replace(TINY, latent_controls=20, isotropic_controls=10, covariance_controls=0)
    latents = (CAUSAL, *range(PLANTED, PLANTED + 2))
    raws = [_confirm(world, rule_on(k), few)[0] for k in latents]
    hidden = finish_verdicts(raws)[0]
    assert hidden.verdict is CausalVerdict.INCONCLUSIVE
    assert hidden.more_controls is not None
    latent, isotropic, covariance = plan_controls(2 * len(latents), 0.05)
    enough = replace(
        few,
        latent_controls=latent,
        isotropic_controls=isotropic,
        covariance_controls=covariance,
    )
    raw, trials = _confirm(world, rule_on(CAUSAL), few)
    more, new = _confirm(world, rule_on(CAUSAL), enough, done=trials)
    assert more.id == raw.id
    again = {replace(t, outcome=0.0) for t in trials} & {replace(t, outcome=0.0) for t in new}
    assert new
    assert not again
    shown = finish_verdicts([more, *raws[1:]])[0]
    assert shown.verdict is CausalVerdict.CONFIRMED


def _asked(rule: LockedRule, **changes: object) -> LockedRule:
    intervene = replace(rule.confirm[0].intervene, **changes)
    return replace(rule, confirm=(replace(rule.confirm[0], intervene=intervene),))


def test_doses_in_raw_units_are_the_same_pushes(world: Planted) -> None:
    scale = float(world.inputs.latents.q99[CAUSAL])
    rule = rule_on(CAUSAL)
    raw = _asked(rule, unit=Unit.RAW, doses=(0.5 * scale, scale, 2 * scale))
    ours, theirs = _confirm(world, raw)[0], _confirm(world, rule)[0]
    assert ours.doses == theirs.doses
    assert ours.steering == theirs.steering


def test_a_dose_below_zero_is_shown_and_not_tested(world: Planted) -> None:
    plain, _ = _confirm(world, rule_on(CAUSAL))
    turned, _ = _confirm(world, _asked(rule_on(CAUSAL), doses=(-1.0, 0.5, 1.0, 2.0)))
    back, *others = turned.doses
    assert back.dose < 0
    assert isinstance(back.effect, Measured)
    assert back.effect.value < -0.5
    assert back.control_low < back.control_high
    assert tuple(others) == plain.doses
    assert (turned.steering, turned.trend_p) == (plain.steering, plain.trend_p)
