"""The parts of a causal test: directions, doses, outcomes, the ledger, shared norms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auditkit.confirm import LatentTable, plan_controls
from auditkit.confirm.ablation import clamp_values, firing_prefixes, scoped_text, set_latents
from auditkit.confirm.directions import (
    TargetDirection,
    covariance_directions,
    isotropic_directions,
    matched_latents,
    target_direction,
)
from auditkit.confirm.ledger import TrialLedger, TrialSet
from auditkit.confirm.outcomes import lexeme_rate, log_odds, resolve_lexicon
from auditkit.confirm.pool import snap_norm
from auditkit.confirm.prepared import (
    PreparedPrompts,
    constant_push,
    measure_effects,
    own_push,
    prepare_prompts,
)
from auditkit.core.confirmations import Arm, Trial
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import Edit
from tests.planted import ANIMALS, CAUSAL, HOOK, INERT, PLANTED, Planted, planted, rule_on


@pytest.fixture(scope="module")
def world() -> Planted:
    torch.set_num_threads(1)
    return planted(0)


def _target(world: Planted, *latents: int, weights: tuple[float, ...] = ()) -> TargetDirection:
    signal = rule_on(*latents, weights=weights).signals[0]
    target = target_direction(world.sae, signal, world.inputs.latents)
    assert not isinstance(target, str)
    return target


def _prepared(world: Planted) -> PreparedPrompts:
    lexicon = resolve_lexicon(world.model, ANIMALS)
    rendered = [world.model.render(p) for p in world.inputs.positive[:9]]
    return prepare_prompts(world.model, HOOK, rendered, [lexicon])


def test_one_latent_is_pushed_along_its_decoder_by_its_99th_percentile(world: Planted) -> None:
    target = _target(world, CAUSAL)
    step = target.unit * target.norm_per_dose
    expected = world.sae.W_dec[CAUSAL] * world.inputs.latents.q99[CAUSAL]
    assert torch.allclose(step, expected, atol=1e-5)


def test_several_latents_are_brought_to_the_norm_of_one(world: Planted) -> None:
    one, other = _target(world, CAUSAL), _target(world, INERT)
    both = _target(world, CAUSAL, INERT)
    assert both.norm_per_dose == pytest.approx((one.norm_per_dose + other.norm_per_dose) / 2)
    assert float(both.unit.norm()) == pytest.approx(1.0)


def test_a_signal_without_live_latents_says_why(world: Planted) -> None:
    signal = rule_on(CAUSAL).signals[0]
    zeros = np.zeros_like(world.inputs.latents.q99)
    dead = replace(world.inputs.latents, q99=zeros)
    assert "dead" in str(target_direction(world.sae, signal, dead))
    unresolved = replace(signal, latents=(), unresolved="no example fits")
    assert "no example fits" in str(target_direction(world.sae, unresolved, world.inputs.latents))


def test_matched_controls_are_like_the_target_and_not_along_it(world: Planted) -> None:
    target, table = _target(world, CAUSAL), world.inputs.latents
    found = matched_latents(world.sae, target, table, n=40, seed=0)
    assert found.units.shape == (40, world.sae.config.d_in)
    assert torch.allclose(found.units.norm(dim=1), torch.ones(40), atol=1e-5)
    assert float((found.units @ target.unit).abs().max()) < 0.2
    rows = world.sae.W_dec / world.sae.W_dec.norm(dim=1, keepdim=True)
    picked = (found.units @ rows.T).argmax(dim=1).numpy()
    assert len(set(picked)) == 40
    assert CAUSAL not in picked
    apart = np.log10(table.density[picked]) - np.log10(table.density[CAUSAL])
    assert np.abs(apart).max() <= 0.25
    assert np.abs(table.mean[picked] / table.mean[CAUSAL] - 1).max() <= 0.2


def test_too_few_matches_widen_the_tolerance_and_say_so(world: Planted) -> None:
    table = world.inputs.latents
    apart = table.density.copy()
    apart[CAUSAL] *= 1000
    target, rare = _target(world, CAUSAL), replace(table, density=apart)
    found = matched_latents(world.sae, target, rare, n=10_000, seed=0)
    assert any("any live latent" in note for note in found.notes)
    assert any("only" in note for note in found.notes)


def test_controls_for_several_latents_are_distinct_combinations(world: Planted) -> None:
    target = _target(world, CAUSAL, INERT, weights=(2.0, -1.0))
    found = matched_latents(world.sae, target, world.inputs.latents, n=25, seed=0)
    assert len(found.units) == 25
    assert torch.unique(found.units, dim=0).shape[0] == 25
    assert float((found.units @ target.unit).abs().max()) < 0.2


def test_random_directions_follow_their_law_and_their_seed() -> None:
    x = torch.zeros(400, 6)
    x[:, 2] = torch.randn(400, generator=torch.Generator().manual_seed(0))
    lean = covariance_directions(x, n=50, seed=0).units
    assert torch.allclose(lean[:, 2].abs(), torch.ones(50), atol=1e-5)
    even = isotropic_directions(6, n=50, seed=0).units
    assert torch.equal(even, isotropic_directions(6, n=50, seed=0).units)
    assert float(even[:, 2].abs().mean()) < 0.7


def test_ablation_sets_the_latent_to_zero_and_keeps_the_error(world: Planted) -> None:
    prepared, target = _prepared(world), _target(world, CAUSAL)
    change = set_latents(world.sae, prepared, target, torch.zeros(1))
    for group, delta in zip(prepared.groups, change.deltas, strict=True):
        before = world.sae.encode(group.x.flatten(0, 1)).to_dense()
        after = world.sae.encode((group.x + delta).flatten(0, 1)).to_dense()
        touched = group.edited.flatten()
        assert float(after[touched, CAUSAL].abs().max()) < 1e-4
        others = [i for i in range(world.sae.config.d_sae) if i != CAUSAL]
        assert torch.allclose(before[:, others], after[:, others], atol=1e-4)
        assert torch.equal(delta[~group.edited], torch.zeros_like(delta[~group.edited]))


def test_clamping_sets_positive_latents_to_the_dose_and_negative_to_zero(world: Planted) -> None:
    values = clamp_values(_target(world, CAUSAL, INERT, weights=(1.0, -1.0)), 2.0)
    assert float(values[0]) == pytest.approx(2 * world.inputs.latents.q99[CAUSAL])
    assert float(values[1]) == 0.0


def test_prefixes_end_where_the_signal_fires_most(world: Planted) -> None:
    found = firing_prefixes(
        world.model,
        world.sae,
        (*world.inputs.negative[:5], *world.inputs.positive),
        _target(world, CAUSAL),
        HOOK,
        roles=(),
        n=12,
        max_tokens=32,
    )
    assert len(found) == 12
    assert all(p.prompt_id.startswith("positive") for p in found)
    triggers = {"bomb", "kill", "weapon", "poison", "steal", "hack"}
    assert {p.texts[-1].strip() for p in found} <= triggers


def test_a_trial_from_the_cache_equals_an_edited_full_forward(world: Planted) -> None:
    prepared, target = _prepared(world), _target(world, CAUSAL)
    push = constant_push(prepared, target.unit[None], 3.0)
    effects = measure_effects(world.model, prepared, push, 1)[0, :, 0]
    for group in prepared.groups:
        for row, place in enumerate(group.places):
            alone = group.batch.select([row])
            delta = 3.0 * group.edited[row, :, None] * target.unit
            edit = Edit(hook_point=HOOK, function=lambda x, _, d=delta: x + d)
            odds = log_odds(world.model.logits(alone, [edit])[:, -1], prepared.lexica)
            assert effects[place] == pytest.approx(odds[0, 0] - prepared.base[place, 0], abs=1e-4)


def test_batching_changes_no_effect(world: Planted) -> None:
    prepared = _prepared(world)
    units = isotropic_directions(world.sae.config.d_in, n=7, seed=3).units
    push = constant_push(prepared, units, 2.0)
    one = measure_effects(world.model, prepared, push, 7, batch_tokens=8)
    many = measure_effects(world.model, prepared, push, 7, batch_tokens=4096)
    assert np.allclose(one, many, atol=1e-4)
    some = measure_effects(world.model, prepared, push, 7, prompts=4)
    assert np.allclose(some, many[:, :4], atol=1e-4)


def test_bos_is_never_edited(world: Planted) -> None:
    prepared = _prepared(world)
    for group in prepared.groups:
        assert not bool(group.edited[group.batch.masks != 0].any())
        zeros = own_push([g.x * 0 for g in prepared.groups])
        assert not bool(zeros(0, torch.tensor([0]), torch.tensor([0])).any())


def test_log_odds_ignore_a_shift_of_all_logits(world: Planted) -> None:
    lexicon = resolve_lexicon(world.model, ANIMALS)
    logits = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
    assert np.allclose(log_odds(logits, [lexicon]), log_odds(logits + 7.0, [lexicon]), atol=1e-5)
    raised = logits.clone()
    raised[:, lexicon.target] += 1.0
    change = log_odds(raised, [lexicon]) - log_odds(logits, [lexicon])
    assert np.allclose(change, 1.0, atol=1e-5)


def test_the_lexeme_rate_counts_whole_words(world: Planted) -> None:
    lexicon = resolve_lexicon(world.model, ANIMALS)
    assert lexeme_rate("The Cat saw a dog, catalogue.", lexicon) == pytest.approx(2 / 6)
    assert lexeme_rate(" 12 !", lexicon) == 0.0


@given(st.floats(1e-4, 1e4), st.sampled_from([1.1, 1.25, 2.0]))
def test_norms_snap_to_the_nearest_rung(norm: float, ratio: float) -> None:
    snapped = snap_norm(norm, ratio)
    assert ratio**-0.5001 <= snapped / norm <= ratio**0.5001
    assert snap_norm(snapped, ratio) == pytest.approx(snapped)


def test_the_ledger_runs_only_what_is_missing_and_passes_over_strangers() -> None:
    asked: list[list[int]] = []
    stored: list[Trial] = []
    wanted = TrialSet(
        arm=Arm.LATENT,
        op="steer",
        dose=1.0,
        prompts=("a", "b"),
        metrics=("m",),
        relative_norms=(0.1, 0.2),
    )

    def compute(missing: list[int]) -> np.ndarray:
        asked.append(missing)
        return np.array([[[float(c)], [c + 0.5]] for c in missing])

    first = TrialLedger(confirmation="x", sink=stored.extend)
    first.run(wanted, [0, 1], compute)
    second = TrialLedger(confirmation="x", sink=stored.extend)
    second.restore([*stored[:3], replace(stored[3], confirmation="y")])
    second.run(wanted, [0, 1, 2], compute)
    assert asked == [[0, 1], [1, 2]]
    assert len(stored) == 4 + 3
    assert second.outcomes(wanted, [1, 2]).tolist() == [[1.0, 1.5], [2.0, 2.5]]


def test_a_latent_table_is_filled_from_the_rows_of_live_latents() -> None:
    rows = {"latent": [3, 1], "density": [0.1, 0.2], "mean": [1.0, 2.0], "q99": [4.0, 5.0]}
    table = LatentTable.from_rows(5, rows)
    assert table.q99.tolist() == [0.0, 5.0, 0.0, 4.0, 0.0]
    assert table.density[PLANTED] == 0.1


def test_a_chat_is_ablated_in_the_words_of_the_watched_role() -> None:
    def message(role: Role, content: str) -> Message:
        return Message(role=role, content=content)

    chat = Prompt(
        id="c", messages=(message(Role.USER, "question"), message(Role.ASSISTANT, "answer"))
    )
    for roles, expected in (((Role.USER,), "question"), ((), "answer"), ((Role.TOOL,), "answer")):
        text = scoped_text(chat, roles)
        assert [m.role for m in text.messages] == [Role.TEXT]
        assert text.messages[0].content == expected


@pytest.mark.parametrize("weights", [(1.0,), (2.0, -1.0)])
def test_more_controls_begin_with_the_fewer(world: Planted, weights: tuple[float, ...]) -> None:
    latents = (CAUSAL, INERT)[: len(weights)]
    target, table = _target(world, *latents, weights=weights), world.inputs.latents
    few = matched_latents(world.sae, target, table, n=99, seed=0).units
    many = matched_latents(world.sae, target, table, n=110, seed=0).units
    assert len(many) > len(few)
    assert torch.equal(many[: len(few)], few)
    x = torch.randn(301, 576, generator=torch.Generator().manual_seed(0))
    for draw in (partial(isotropic_directions, 576), partial(covariance_directions, x)):
        assert torch.equal(draw(n=90, seed=0).units[:40], draw(n=40, seed=0).units)


@pytest.mark.parametrize(("tests", "total"), [(1, 240), (12, 240), (20, 400), (26, 520)])
def test_controls_are_planned_for_the_tests_of_a_run(tests: int, total: int) -> None:
    latents, isotropic, covariance = plan_controls(tests, 0.05)
    assert latents + isotropic + covariance == total
    assert tests / (total + 1) < 0.05
    assert latents >= 99
    assert covariance >= 40


def test_no_run_plans_more_controls_than_it_could_ever_draw() -> None:
    assert sum(plan_controls(1000, 0.001)) == 2000
