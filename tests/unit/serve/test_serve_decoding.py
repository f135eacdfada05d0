"""The decoding loop of the server writes what the model's own would."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.prompts import Message, Prompt, Role
from auditkit.serve.chat_request import Sampling
from auditkit.serve.decoding import Sampler, Stepper, nucleus
from tests.tiny import tiny_model

MODEL = tiny_model()
PROMPT = MODEL.render(
    Prompt(id="p", messages=(Message(role=Role.USER, content="the cat made a bird happy"),)),
    generation_prompt=True,
)
CPU = torch.device("cpu")


def reply(sampling: Sampling) -> list[int]:
    stepper, sampler = Stepper(MODEL), Sampler(sampling, CPU)
    logits, ids = stepper.feed(PROMPT.ids), []
    for _ in range(sampling.max_new_tokens):
        token = sampler.choose(logits)
        if token in MODEL.end_ids:
            break
        ids.append(token)
        logits = stepper.feed([token])
    return ids


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", [0, 5, -7])
def test_replies_are_those_of_the_models_own_generate(temperature: float, seed: int) -> None:
    sampling = Sampling(temperature=temperature, top_p=1.0, seed=seed, max_new_tokens=16)
    (own,) = MODEL.generate(
        MODEL.pad([PROMPT], side="left"), max_new_tokens=16, temperature=temperature, seed=seed
    )
    assert reply(sampling) == own


def test_a_tiny_nucleus_is_greedy() -> None:
    sampling = Sampling(temperature=1.0, top_p=1e-6, seed=3, max_new_tokens=12)
    greedy = Sampling(temperature=0.0, top_p=1.0, seed=3, max_new_tokens=12)
    assert reply(sampling) == reply(greedy)


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12),
    top_p=st.floats(0.01, 1.0, exclude_max=True),
)
def test_a_nucleus_is_the_smallest_likely_set_that_reaches_top_p(
    weights: list[float], top_p: float
) -> None:
    shares = torch.tensor(weights) / sum(weights)
    kept = nucleus(shares, top_p)
    inside = kept > 0
    assert torch.equal(kept[inside], shares[inside])
    assert float(shares[inside].sum()) >= top_p - 1e-5
    if not inside.all():
        assert float(shares[inside].min()) >= float(shares[~inside].max())
    # Without its least likely member it would not reach top_p.
    assert float(shares[inside].sum() - shares[inside].min()) < top_p + 1e-5
