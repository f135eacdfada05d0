"""A model with its weights drawn anew: same shape, another model, and the same draw every time."""

from __future__ import annotations

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import LanguageModel
from auditkit.training import harvest_activations, with_random_weights
from tests.tiny import WORDS, tiny_model

HOOK = HookPoint.parse("blocks.1.hook_resid_post")
DOCUMENTS = [
    Prompt(
        id=f"text-{i}",
        messages=(Message(role=Role.TEXT, content=" ".join(WORDS[i : i + 30])),),
        source="words",
    )
    for i in range(12)
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model(seed=0)


def test_it_is_another_model_of_the_same_shape(model: LanguageModel) -> None:
    drawn = with_random_weights(model, seed=7)
    assert drawn.identity.digest != model.identity.digest
    assert drawn.identity.weights_sha256 != model.identity.weights_sha256
    assert drawn.identity.name == "tiny-0, random weights of seed 7"
    for field in ("architecture", "dtype", "n_layers", "d_model", "vocabulary"):
        assert getattr(drawn.identity, field) == getattr(model.identity, field)
    shapes = [{n: t.shape for n, t in m.network.state_dict().items()} for m in (model, drawn)]
    assert shapes[0] == shapes[1]


def test_the_embeddings_too_are_drawn_anew(model: LanguageModel) -> None:
    drawn = with_random_weights(model, seed=7)
    before, after = (m.network.get_input_embeddings().weight for m in (model, drawn))
    assert float((before == after).float().mean()) < 0.01


def test_a_seed_names_one_draw(model: LanguageModel) -> None:
    digests = [with_random_weights(model, seed=s).identity.weights_sha256 for s in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


def test_the_given_model_and_the_random_state_stay_as_they_are(model: LanguageModel) -> None:
    before = model.identity.weights_sha256
    state = torch.random.get_rng_state()
    with_random_weights(model, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert LanguageModel.wrap(model.network, model.tokenizer, name="again").identity == (
        LanguageModel.wrap(tiny_model(seed=0).network, model.tokenizer, name="again").identity
    )
    assert model.identity.weights_sha256 == before


def test_another_dtype_holds_the_same_draw_rounded(model: LanguageModel) -> None:
    half = LanguageModel.wrap(
        tiny_model(seed=0).network.to(torch.bfloat16), model.tokenizer, name="half"
    )
    rounded = with_random_weights(half, seed=7).network.state_dict()
    for name, tensor in with_random_weights(model, seed=7).network.state_dict().items():
        assert rounded[name].dtype == torch.bfloat16
        assert torch.equal(rounded[name], tensor.to(torch.bfloat16))


def test_weights_that_are_random_already_are_refused() -> None:
    with pytest.raises(InvalidInput, match="already are the random ones of seed 3"):
        with_random_weights(tiny_model(seed=3), seed=3)


def test_its_activations_do_not_mix_with_the_models_own(model: LanguageModel, tmp_path) -> None:
    drawn = with_random_weights(model, seed=7)
    own = harvest_activations(model, DOCUMENTS, {HOOK: tmp_path / "own"}, context=64)[HOOK]
    other = harvest_activations(drawn, DOCUMENTS, {HOOK: tmp_path / "drawn"}, context=64)[HOOK]
    assert len(own) == len(other)
    assert other.meta.key != own.meta.key
    assert other.meta.model["name"] == "tiny-0, random weights of seed 7"
    rows = torch.arange(len(own))
    assert not torch.allclose(own.rows(rows), other.rows(rows))
    with pytest.raises(MismatchError, match="activations of another harvest"):
        harvest_activations(drawn, DOCUMENTS, {HOOK: tmp_path / "own"}, context=64)
