"""What no trial touches is run once, and that changes no number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from auditkit.confirm import ControlPool, RawConfirmation, confirm_rule, materials
from auditkit.confirm.ablation import set_latents
from auditkit.confirm.directions import isotropic_directions, target_direction
from auditkit.confirm.outcomes import resolve_lexicon
from auditkit.confirm.prepared import (
    PreparedPrompts,
    constant_push,
    dose_zero_change,
    measure_effects,
    own_push,
    prepare_prompts,
    touched_alone,
    without_prefixes,
)
from auditkit.confirm.rule import what_is_tested
from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint
from auditkit.core.locks import LockedLatent
from auditkit.core.prompts import Message, Prompt, Role
from tests.planted import ANIMALS, CAUSAL, HOOK, SMALL, Planted, planted, rule_on
from tests.tiny import tiny_model

SETTINGS = replace(
    SMALL,
    prompts=6,
    control_prompts=6,
    ablation_prompts=6,
    latent_controls=12,
    isotropic_controls=6,
    covariance_controls=4,
    damage_texts=0,
)


@pytest.fixture(scope="module")
def world() -> Planted:
    torch.set_num_threads(1)
    return planted(0)


def _prepared(world: Planted) -> PreparedPrompts:
    lexicon = resolve_lexicon(world.model, ANIMALS)
    rendered = [world.model.render(p) for p in world.inputs.positive[:9]]
    return prepare_prompts(world.model, HOOK, rendered, [lexicon])


def _confirm(world: Planted) -> RawConfirmation:
    rule = rule_on(CAUSAL)
    return confirm_rule(
        world.model,
        world.sae,
        rule,
        rule.confirm[0],
        world.inputs,
        settings=SETTINGS,
        pool=ControlPool(),
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("columns", [1, 4, 8])
def test_columns_run_once_give_the_logits_of_the_whole(layer: int, columns: int) -> None:
    model = tiny_model(n_layers=3)
    hook = HookPoint.parse(f"blocks.{layer}.hook_resid_post")
    text = ("the cat see a big red house and", "you will make a good picture of it")
    batch = model.pad([model.render(p) for p in _texts(text)])
    x = model.capture(batch, [hook])[hook]
    width = x.shape[1]
    assert columns < width
    prefix = model.share_prefix(batch, hook, x, columns=columns)
    rows = torch.tensor([1, 0, 1])
    pushed = x[rows] + 0.0
    pushed[:, columns:] += torch.randn(3, width - columns, x.shape[2])
    whole = model.resume(
        batch.select(rows.tolist()), hook, pushed, positions=torch.full((3,), width - 1)
    )
    found = model.resume_after(prefix, rows, pushed[:, columns:])
    assert torch.allclose(found, whole, atol=1e-5)


def test_a_prefix_leaves_a_column_and_takes_one() -> None:
    model, hook = tiny_model(), HookPoint.parse("blocks.1.hook_resid_post")
    batch = model.pad([model.render(p) for p in _texts(("the cat",))])
    x = model.capture(batch, [hook])[hook]
    for columns in (0, batch.ids.shape[1]):
        with pytest.raises(InvalidInput, match=f"a prefix of {columns} columns"):
            model.share_prefix(batch, hook, x, columns=columns)


def test_sharing_the_untouched_columns_changes_no_effect(world: Planted) -> None:
    prepared = _prepared(world)
    assert all(g.prefix is not None and g.prefix.columns == 1 for g in prepared.groups)
    units = isotropic_directions(world.sae.config.d_in, n=5, seed=3).units
    push = constant_push(prepared, units, 2.0)
    shared = measure_effects(world.model, prepared, push, 5)
    whole = measure_effects(world.model, without_prefixes(prepared), push, 5)
    assert np.allclose(shared, whole, atol=1e-5)


def test_an_ablation_starts_where_the_latent_first_fires(world: Planted) -> None:
    prepared = _prepared(world)
    target = target_direction(world.sae, rule_on(CAUSAL).signals[0], world.inputs.latents)
    assert not isinstance(target, str)
    before = set_latents(world.sae, prepared, target, torch.zeros(1))
    alone = touched_alone(world.model, prepared, before.sizes)
    after = set_latents(world.sae, alone, target, torch.zeros(1))
    assert len(alone.groups) == len(prepared.ids)
    for group, size in zip(alone.groups, after.sizes, strict=True):
        if group.prefix is not None:
            assert not bool(size[:, : group.prefix.columns].any())
    assert any(g.prefix is not None and g.prefix.columns > 1 for g in alone.groups)
    late = measure_effects(world.model, alone, own_push(after.deltas), 1)
    whole = measure_effects(world.model, without_prefixes(prepared), own_push(before.deltas), 1)
    assert np.abs(whole).max() > 0.01
    assert np.allclose(late, whole, atol=1e-5)


def test_where_the_prefix_fails_the_gate_every_trial_runs_whole(
    world: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = _confirm(world)
    monkeypatch.setattr(materials, "GATE", -1.0)
    whole = _confirm(world)
    assert whole.invalid is None
    assert shared.steering is not None
    assert whole.steering is not None
    assert whole.steering.p == shared.steering.p
    assert whole.control_counts == shared.control_counts


def test_the_gate_sees_a_prefix_that_is_not_the_prompts_own(world: Planted) -> None:
    prepared = _prepared(world)
    unit = torch.zeros(world.sae.config.d_in)
    assert dose_zero_change(world.model, prepared, unit)[0] <= 1e-5
    group = prepared.groups[0]
    assert group.prefix is not None
    wrong = tuple(None if k is None else k + 1.0 for k in group.prefix.values)
    broken = replace(group, prefix=replace(group.prefix, values=wrong))
    assert dose_zero_change(world.model, replace(prepared, groups=(broken,)), unit)[0] > 1e-3


def test_the_notes_say_which_signal_was_tested_and_how_large_it_is(world: Planted) -> None:
    assert "tested: signal watched, 1 latent (0)" in _confirm(world).notes
    rule = rule_on(*range(12))
    detector = replace(
        rule.signals[0], name="detector", latents=(LockedLatent(latent=1), LockedLatent(latent=2))
    )
    said = what_is_tested(replace(rule, signals=(*rule.signals, detector)), rule.confirm[0])
    assert said.startswith("tested: signal watched, 12 latents (0, 1, 2, 3, 4, 5, 6, 7, …)")
    assert said.endswith("; not tested: signal detector, 2 latents")


def _texts(texts: tuple[str, ...]) -> list[Prompt]:
    return [
        Prompt(id=str(i), messages=(Message(role=Role.TEXT, content=t),))
        for i, t in enumerate(texts)
    ]
