"""A suppressed SAE in a planted world is repaired, and no other latent fires than before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured
from auditkit.quality.failures.suppression import Suppression, SuppressionTotals
from auditkit.saes import (
    ArchitectureName,
    Normalisation,
    SaeConfig,
    SparseAutoencoder,
    load_sae,
    write_sae,
)
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    RepairForm,
    RepairPlan,
    repair_sae,
)

D_IN, FEATURES, TOKENS, HELD_OUT = 32, 48, 12_000, 2_000
HOOK_POINT = HookPoint.parse("blocks.1.hook_resid_post")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[ActivationStore, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sparse sums of planted directions with an offset: store, directions, amounts, offset."""
    g = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(FEATURES, D_IN, generator=g), dim=1)
    chosen = torch.rand(TOKENS, FEATURES, generator=g).topk(3, dim=1).indices
    given = 2 + 4 * torch.rand(TOKENS, 3, generator=g)
    amounts = torch.zeros(TOKENS, FEATURES).scatter(1, chosen, given)
    offset = torch.randn(D_IN, generator=g)
    meta = ActivationMeta(
        hook_point=HOOK_POINT.name, d_in=D_IN, key="world", model={"name": "planted"}
    )
    writer = ActivationWriter(tmp_path_factory.mktemp("world"), meta)
    writer.append(amounts @ directions + offset, source="world")
    return writer.finish(), directions, amounts, offset


TRAIN = np.arange(HELD_OUT, TOKENS)


def suppressed_sae(
    world, architecture: ArchitectureName, *, applied: bool = True, shrink: bool = True, **flags
) -> SparseAutoencoder:
    """An SAE that knows the directions and, like one under an L1 penalty, makes every latent
    smaller: by a factor of its own and by a constant."""
    _, directions, _, offset = world
    g = torch.Generator().manual_seed(7)
    factors = 0.6 + 0.25 * torch.rand(FEATURES, generator=g) if shrink else torch.ones(FEATURES)
    # Reading with the pseudo-inverse would be exact only with fewer features than dimensions.
    reader = torch.linalg.solve(directions.T @ directions + 0.05 * torch.eye(D_IN), directions.T)
    reader = reader / (reader * directions.T).sum(0)
    bias = torch.full((FEATURES,), -0.8)
    tensors = {
        "W_enc": reader * factors,
        "W_dec": directions.clone(),
        "b_dec": offset.clone(),
    }
    shift = torch.zeros(FEATURES) if applied else offset @ tensors["W_enc"]
    if architecture is ArchitectureName.GATED:
        tensors |= {
            "b_gate": bias - shift,
            "r_mag": torch.full((FEATURES,), -0.1),
            "b_mag": (bias - shift) * torch.exp(torch.tensor(-0.1)),
        }
    else:
        tensors["b_enc"] = bias - shift
    if architecture is ArchitectureName.JUMPRELU:
        tensors["threshold"] = torch.full((FEATURES,), 0.3)
    config = SaeConfig(
        name="planted",
        architecture=architecture,
        d_in=D_IN,
        d_sae=FEATURES,
        hook_point=HOOK_POINT,
        k=3 if architecture is ArchitectureName.TOPK else None,
        apply_b_dec_to_input=applied,
        **flags,
    )
    return SparseAutoencoder(config, tensors)


def held_out(world) -> torch.Tensor:
    return world[0].rows(torch.arange(HELD_OUT))


def judge(sae: SparseAutoencoder, x: torch.Tensor) -> Suppression:
    totals = SuppressionTotals(sae)
    totals.add(x)
    return totals.measure()


def value(measure) -> float:
    assert isinstance(measure, Measured)
    return measure.value


def assert_same_latents_fire(a: SparseAutoencoder, b: SparseAutoencoder, x: torch.Tensor) -> None:
    before, after = a.encode(x), b.encode(x)
    assert torch.equal(before.indices, after.indices)
    assert torch.equal(before.offsets, after.offsets)


def true_shrinkage(sae: SparseAutoencoder, world, x: torch.Tensor) -> torch.Tensor:
    """Σ f·a / Σ a² over true positives, per latent, f in units of the true direction."""
    _, directions, amounts, _ = world
    f = sae.encode(x).to_dense() * (sae.W_dec * directions).sum(1)
    a = amounts[: len(x)] * (f != 0)
    return (f * a).sum(0) / a.square().sum(0)


def test_a_suppressed_relu_sae_is_repaired_and_the_same_latents_fire(world):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    x = held_out(world)
    before = judge(sae, x)
    assert value(before.gamma_about_bias) < 0.9
    assert value(before.gamma) < 0.9
    assert value(before.suppressed) > 0.9
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan())
    after = judge(repaired.sae, x)
    assert value(after.gamma) == pytest.approx(1, abs=0.02)
    assert value(after.gamma_about_bias) == pytest.approx(1, abs=0.02)
    assert value(after.median) == pytest.approx(1, abs=0.02)
    assert value(after.suppressed) < 0.05
    assert value(after.explained_variance) > value(before.explained_variance) + 0.05
    assert_same_latents_fire(sae, repaired.sae, x)
    assert repaired.form is RepairForm.GATED
    assert repaired.sae.config.architecture is ArchitectureName.GATED
    torch.testing.assert_close(repaired.sae.W_dec.norm(dim=1), sae.W_dec.norm(dim=1))
    shrunk, restored = (true_shrinkage(s, world, x) for s in (sae, repaired.sae))
    assert bool(((1 - restored).abs() < (1 - shrunk).abs()).all())
    # Not quite 1: with more features than dimensions what a latent reads is part noise, and a
    # least-squares fit trusts it so much less.
    assert float(shrunk.mean()) < 0.75
    assert float(restored.mean()) > 0.85


@pytest.mark.parametrize("architecture", list(ArchitectureName))
@pytest.mark.parametrize("applied", [True, False])
def test_every_architecture_is_repaired_in_its_decoder(world, architecture, applied):
    sae = suppressed_sae(world, architecture, applied=applied)
    x = held_out(world)
    before = judge(sae, x)
    plan = RepairPlan(form=RepairForm.DECODER)
    repaired = repair_sae(sae, world[0], TRAIN, plan)
    after = judge(repaired.sae, x)
    assert value(before.gamma_about_bias) < 0.93
    assert value(after.gamma_about_bias) == pytest.approx(1, abs=0.02)
    assert value(after.explained_variance) > value(before.explained_variance)
    assert_same_latents_fire(sae, repaired.sae, x)
    assert torch.equal(sae.encode(x).values, repaired.sae.encode(x).values)
    assert repaired.sae.config.architecture is architecture
    assert repaired.bias_refitted is not applied
    assert torch.equal(repaired.sae.b_dec, sae.b_dec) is applied


def test_auto_leaves_the_encoder_of_competing_latents_alone(world):
    for architecture in (ArchitectureName.TOPK, ArchitectureName.JUMPRELU, ArchitectureName.GATED):
        sae = suppressed_sae(world, architecture)
        repaired = repair_sae(sae, world[0], TRAIN, RepairPlan(rows=500))
        assert repaired.form is RepairForm.DECODER
        assert torch.equal(repaired.sae.W_enc, sae.W_enc)


def test_both_forms_reconstruct_the_same(world):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    x = held_out(world)
    gated, lengthened = (
        repair_sae(sae, world[0], TRAIN, RepairPlan(form=form)).sae
        for form in (RepairForm.GATED, RepairForm.DECODER)
    )
    torch.testing.assert_close(
        gated.decode(gated.encode(x)), lengthened.decode(lengthened.encode(x)), rtol=1e-4, atol=1e-4
    )


def test_an_unsuppressed_sae_changes_little(world):
    sae = suppressed_sae(world, ArchitectureName.TOPK, shrink=False)
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan())
    again = repair_sae(repaired.sae, world[0], TRAIN, RepairPlan())
    assert float((again.scales - 1).abs().max()) < 0.01


@pytest.mark.parametrize("mode", [Normalisation.LAYER_NORM, Normalisation.CONSTANT_NORM_RESCALE])
def test_tokens_that_are_normalised_one_by_one_count_in_the_models_units(world, mode):
    sae = suppressed_sae(
        world, ArchitectureName.STANDARD, applied=False, normalize_activations=mode
    )
    x = held_out(world)
    before = judge(sae, x)
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan())
    after = judge(repaired.sae, x)
    assert value(after.explained_variance) > value(before.explained_variance)
    assert value(after.gamma) == pytest.approx(1, abs=0.02)
    assert_same_latents_fire(sae, repaired.sae, x)


def test_decoder_norms_that_take_part_in_the_selection_are_folded_first(world):
    sae = suppressed_sae(world, ArchitectureName.TOPK, rescale_acts_by_decoder_norm=True)
    x = held_out(world)
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan())
    assert not repaired.sae.config.rescale_acts_by_decoder_norm
    assert_same_latents_fire(sae, repaired.sae, x)
    assert value(judge(repaired.sae, x).gamma_about_bias) == pytest.approx(1, abs=0.02)


def test_a_latent_that_never_fires_keeps_its_row_and_its_scale(world):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    sae.tensors["b_enc"][5] = -100
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan())
    assert int(repaired.fires[5]) == 0
    assert float(repaired.scales[5]) == 1
    assert torch.equal(repaired.sae.W_dec[5], sae.W_dec[5])
    assert float(repaired.scales[torch.arange(FEATURES) != 5].min()) > 1


def test_a_strong_prior_keeps_the_decoder(world):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    weak, strong = (
        repair_sae(sae, world[0], TRAIN, RepairPlan(prior_fires=fires)).scales
        for fires in (0.0, 1e9)
    )
    torch.testing.assert_close(strong, torch.ones(FEATURES), rtol=0, atol=1e-3)
    assert float(weak.min()) > 1.05


def test_the_repaired_sae_survives_its_file(world, tmp_path):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    repaired = repair_sae(sae, world[0], TRAIN, RepairPlan()).sae
    write_sae(repaired, tmp_path / "sae", dtype="float32")
    x = held_out(world)
    assert_same_latents_fire(sae, load_sae(tmp_path / "sae"), x)


def test_the_rows_drawn_depend_on_the_seed_alone(world):
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    one, same, other = (
        repair_sae(sae, world[0], TRAIN, RepairPlan(rows=1000, seed=seed)).scales
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "architecture", [ArchitectureName.TOPK, ArchitectureName.JUMPRELU, ArchitectureName.GATED]
)
def test_a_form_that_would_change_what_fires_is_refused(world, architecture):
    sae = suppressed_sae(world, architecture)
    with pytest.raises(InvalidInput, match=f"a {architecture.value} SAE cannot be expressed"):
        repair_sae(sae, world[0], TRAIN, RepairPlan(form=RepairForm.GATED))


def test_activations_of_another_hook_point_are_refused(world, tmp_path):
    meta = ActivationMeta(hook_point="blocks.0.hook_resid_post", d_in=D_IN, key="x", model={})
    writer = ActivationWriter(tmp_path, meta)
    writer.append(torch.randn(40, D_IN), source="x")
    other = writer.finish()
    sae = suppressed_sae(world, ArchitectureName.STANDARD)
    with pytest.raises(MismatchError, match=r"blocks\.0\.hook_resid_post"):
        repair_sae(sae, other, np.arange(40), RepairPlan())


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"max_rounds": 0}, {"prior_fires": -1.0}, {"tolerance": 0.0}]
)
def test_a_plan_that_fits_nothing_is_refused(wrong):
    with pytest.raises(InvalidInput, match="must be"):
        RepairPlan(**wrong)
