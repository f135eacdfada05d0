"""Ablation sparsity on models whose every logit is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel
from auditkit.quality import AblationSparsity, effective_number, measure_ablation_sparsity
from auditkit.quality.fires import CapturedText, draw_fires
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from tests.tiny import WORDS, tiny_model

HOOK = HookPoint.parse("blocks.0.hook_resid_post")
ONE, ALL, DEAD, PAIR = 0, 1, 2, 3


def plain_model() -> LanguageModel:
    """Logits are W_U x: no layer changes the stream, and nothing normalises it."""
    model = tiny_model(n_layers=2)
    network = model.network
    with torch.no_grad():
        for block in network.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        network.model.embed_tokens.weight.copy_(torch.ones_like(network.model.embed_tokens.weight))
        head = torch.zeros_like(network.lm_head.weight)
        head[7, ONE] = 1.0
        head[:, ALL] = 1.0
        head[3, PAIR], head[4, PAIR] = 1.0, -1.0
        network.lm_head.weight.copy_(head)
    network.model.norm = torch.nn.Identity()
    return LanguageModel.wrap(network, model.tokenizer, name="plain")


def axis_sae(model: LanguageModel, axes: tuple[int, ...]) -> SparseAutoencoder:
    """A latent per axis, always active."""
    rows = torch.eye(model.d_model)[list(axes)]
    config = SaeConfig(
        name="axes",
        architecture=ArchitectureName.STANDARD,
        d_in=model.d_model,
        d_sae=len(axes),
        hook_point=HOOK,
    )
    tensors = {
        "W_enc": rows.T.contiguous(),
        "W_dec": rows,
        "b_enc": torch.zeros(len(axes)),
        "b_dec": torch.zeros(model.d_model),
    }
    return SparseAutoencoder(config, tensors)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return plain_model()


def prompts(model: LanguageModel, number: int = 4) -> list[TokenizedPrompt]:
    return [
        model.render(
            Prompt(
                id=str(i),
                messages=(Message(role=Role.TEXT, content=" ".join(WORDS[i : i + 6 + i])),),
            )
        )
        for i in range(number)
    ]


def ablate(model: LanguageModel, axis: int, **settings: object) -> AblationSparsity:
    return measure_ablation_sparsity(model, axis_sae(model, (axis,)), prompts(model), **settings)  # type: ignore[arg-type]


def value(measure: object) -> float:
    assert isinstance(measure, Measured)
    return measure.value


def test_a_latent_that_moves_one_logit_has_an_effective_number_of_one(
    model: LanguageModel,
) -> None:
    found = ablate(model, ONE)
    assert value(found.latents.effective_logits) == pytest.approx(1.0, abs=1e-4)
    assert value(found.latents.without_shift) == pytest.approx(1.0, abs=1e-4)
    assert value(found.latents.size) == pytest.approx(1.0, abs=1e-5)
    assert found.latents.unmoved == 0
    assert found.live == 1
    assert found.fires == 4


def test_a_latent_that_moves_all_logits_alike_counts_the_vocabulary(model: LanguageModel) -> None:
    found = ablate(model, ALL)
    vocabulary = model.identity.vocabulary
    assert value(found.latents.effective_logits) == pytest.approx(vocabulary, rel=1e-6)
    # What softmax does not see is no effect: nothing is left once the median is taken out.
    assert value(found.latents.without_shift) == 0.0


def test_a_latent_that_moves_nothing_has_no_effective_number(model: LanguageModel) -> None:
    found = ablate(model, DEAD)
    assert found.latents.effective_logits == NotMeasured("no fire that was drawn moves a logit")
    assert found.latents.unmoved == found.fires == 4


def test_a_latent_that_moves_two_logits_against_each_other_counts_two(
    model: LanguageModel,
) -> None:
    assert value(ablate(model, PAIR).latents.effective_logits) == pytest.approx(2.0, abs=1e-4)


def test_controls_move_as_far_as_the_latent_they_stand_beside(model: LanguageModel) -> None:
    controls = {"everything": 5 * torch.eye(model.d_model)[[ALL]]}
    found = ablate(model, ONE, controls=controls)
    beside = found.controls["everything"]
    vocabulary = model.identity.vocabulary
    assert value(beside.effective_logits) == pytest.approx(vocabulary, rel=1e-6)
    assert value(beside.size) == pytest.approx(math.sqrt(vocabulary), rel=1e-5)
    assert value(found.relative_to["everything"]) == pytest.approx(1 / vocabulary, rel=1e-4)


def test_latents_are_averaged_over_their_fires_first(model: LanguageModel) -> None:
    found = measure_ablation_sparsity(model, axis_sae(model, (ONE, ALL)), prompts(model), fires=3)
    expected = (1 + model.identity.vocabulary) / 2
    assert value(found.latents.effective_logits) == pytest.approx(expected, rel=1e-4)
    effective = found.latents.effective_logits
    assert isinstance(effective, Measured)
    assert effective.n == 2
    assert found.fires == 6


def test_the_error_of_the_sae_stays_in_the_stream() -> None:
    """With real layers above, the ablated logits are those of x − f d, not of a reconstruction."""
    real = tiny_model()
    hook = HookPoint.parse("blocks.1.hook_resid_post")
    rows = torch.nn.functional.normalize(
        torch.randn(1, real.d_model, generator=torch.Generator().manual_seed(2)), dim=1
    )
    config = SaeConfig(
        name="one",
        architecture=ArchitectureName.STANDARD,
        d_in=real.d_model,
        d_sae=1,
        hook_point=hook,
    )
    sae = SparseAutoencoder(
        config,
        {
            "W_enc": rows.T.contiguous(),
            "W_dec": rows,
            "b_enc": torch.full((1,), 4.0),
            "b_dec": torch.zeros(real.d_model),
        },
    )
    (prompt,) = prompts(real, 1)
    found = measure_ablation_sparsity(real, sae, [prompt], fires=1, seed=5)
    batch = real.pad([prompt])
    x = real.capture(batch, [hook])[hook]
    sizes: list[float] = []
    for position in range(1, len(prompt)):
        edited = x.clone()
        latent = sae.encode(x[0, [position]]).values[0]
        edited[0, position] -= latent * rows[0]
        change = (real.resume(batch, hook, edited) - real.resume(batch, hook, x))[0, position]
        sizes.append(float(change.double().norm()))
    assert any(value(found.latents.size) == pytest.approx(s, rel=1e-3) for s in sizes)


def test_high_norm_tokens_are_left_out(model: LanguageModel) -> None:
    with_all = ablate(model, ONE, fires=100)
    without = ablate(model, ONE, fires=100, norm_limit=1e-3)
    assert with_all.fires > 20
    assert without.fires == 0
    assert isinstance(without.latents.effective_logits, NotMeasured)


def test_the_same_seed_draws_the_same_fires(model: LanguageModel) -> None:
    controls = {"basis": torch.eye(model.d_model)}
    assert ablate(model, ONE, controls=controls) == ablate(model, ONE, controls=controls)


def test_an_sae_of_another_width_is_refused(model: LanguageModel) -> None:
    other = tiny_model(d_model=16)
    with pytest.raises(MismatchError, match="width"):
        measure_ablation_sparsity(model, axis_sae(other, (0,)), prompts(model))


def test_every_live_latent_is_as_likely_as_another() -> None:
    """One latent fires 500 times, others once: a draw of half of them takes it half the time."""
    latent = torch.tensor([0] * 500 + list(range(1, 10)))
    text = CapturedText(
        prompts=[],
        x=[],
        latent=latent,
        prompt=torch.zeros_like(latent),
        position=torch.arange(len(latent)),
        value=torch.ones(len(latent)),
    )
    draws = [draw_fires(text, latents=5, fires=2, seed=s) for s in range(200)]
    assert all(len({f.latent for f in drawn}) == 5 for drawn in draws)
    assert all(sum(f.latent == 0 for f in drawn) in (0, 2) for drawn in draws)
    assert 70 <= sum(any(f.latent == 0 for f in drawn) for drawn in draws) <= 130


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.integers(2, 60))
def test_the_effective_number_is_scale_free_and_between_one_and_the_vocabulary(
    seed: int, scale: float, vocabulary: int
) -> None:
    delta = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)).double()
    found = effective_number(delta)
    assert bool(((found >= 1 - 1e-9) & (found <= vocabulary + 1e-9)).all())
    assert effective_number(-scale * delta.flip(1)).tolist() == pytest.approx(found.tolist())
