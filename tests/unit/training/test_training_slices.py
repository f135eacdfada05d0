"""Steps go through a batch some tokens at a time: the result is that of the whole batch, and the
memory is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from auditkit.training import (
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TrainPlan,
    objective_step,
    sliced_step,
)
from auditkit.training import pairs as pairs_module
from auditkit.training.initialise import initial_state
from auditkit.training.objective_step import Descent, Slice
from auditkit.training.objectives import batch_topk
from auditkit.training.parameters import SaeParameters, TrainState

D_IN, D_SAE, BATCH = 16, 512, 2048
LARGE = 10**6
CASES: dict[str, Objective] = {
    "batch_topk": BatchTopK(k=8, k_aux=7),
    "matryoshka": MatryoshkaBatchTopK(k=8, k_aux=7, group_shares=(0.1, 0.4, 1.0)),
    "jumprelu": JumpReLU(target_l0=8.0, bandwidth=0.05),
    "relu_l1": ReluL1(l1=0.05),
    "gated": Gated(l1=0.05),
}


def start(objective: Objective, batch: int) -> tuple[TrainPlan, TrainState, Tensor]:
    """A first state with some dead latents, and a batch."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, D_IN, generator=g)
    plan = TrainPlan(
        d_in=D_IN, d_sae=D_SAE, objective=objective, steps=10, batch_size=batch,
        sparsity_warmup=0.5, dead_after_tokens=1000,
    )  # fmt: skip
    state = initial_state(plan, x)
    state.silent_tokens[::9] = LARGE
    return plan, state, x * state.scale


def in_float64(state: TrainState) -> TrainState:
    def double(p: SaeParameters) -> SaeParameters:
        return SaeParameters.from_named({n: t.double() for n, t in p.named().items()})

    state.parameters = double(state.parameters)
    return state


def descend(objective: Objective, *, batch: int = 48) -> tuple[Descent, SaeParameters]:
    plan, state, x = start(objective, batch)
    state, x = in_float64(state), x.double()
    step = plan.objective.make_step(plan, "torch")
    assert isinstance(step, objective_step.ObjectiveStep)
    descent = step.descend(state, step.prepare(state, x, x))
    return descent, descent.gradients(state)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["whole products", "listed pairs"])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_in_slices_has_the_gradients_of_the_whole(monkeypatch, name, share):
    monkeypatch.setattr(pairs_module, "DENSE_SHARE", share)
    whole, expected = descend(CASES[name])
    monkeypatch.setattr(objective_step, "SLICE_TOKENS", 13)
    monkeypatch.setattr(sliced_step, "PART_TOKENS", 5)
    monkeypatch.setattr(batch_topk, "_LISTED_TOKENS", 3)
    sliced, found = descend(CASES[name])
    for parameter, gradient in expected.named().items():
        torch.testing.assert_close(
            found.named()[parameter], gradient, rtol=1e-9, atol=1e-13, msg=parameter
        )
    assert sliced.active == whole.active > 0
    assert torch.equal(sliced.fired, whole.fired)
    assert sliced.penalty == pytest.approx(whole.penalty, rel=1e-9)
    torch.testing.assert_close(sliced.error, whole.error)


@given(
    values=st.lists(st.integers(-3, 6), min_size=60, max_size=60),
    wanted=st.integers(1, 30),
    above=st.sampled_from([0.0, 0.5]),
)
def test_the_largest_of_slices_are_those_of_the_batch_with_their_ties(values, wanted, above):
    pre_acts = torch.tensor(values, dtype=torch.float32).view(10, 6)

    def slices() -> Iterator[Slice]:
        memory = torch.empty(4, 6)
        for first in (0, 4, 8):
            rows = pre_acts[first : first + 4]
            memory[: len(rows)] = rows
            yield Slice(tokens=slice(first, first + len(rows)), pre_acts=memory[: len(rows)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_topk, "_LISTED_TOKENS", 2)
        patch.setattr(batch_topk, "_LISTED_SHARE", 1)
        pairs = batch_topk._largest(slices(), wanted, above=above)
    positive = pre_acts[pre_acts > 0].sort(descending=True).values
    least = float(positive[:wanted].min()) if len(positive) else 1.0
    expected = (pre_acts >= max(least, 1.0)).nonzero()
    assert torch.equal(torch.stack([pairs.tokens, pairs.latents], 1), expected)
    assert torch.equal(pairs.values, pre_acts[pairs.tokens, pairs.latents])
    assert len(pairs.starts) == len(pre_acts)


def peak_of_first_step(objective: Objective) -> float:
    """Of the memory that a step holds at a time, in copies of the batch's pre-activations; counted
    by torch's allocator, not by the system."""
    plan, state, x = start(objective, BATCH)
    step = plan.objective.make_step(plan, "torch")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step(state, x)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / (4 * BATCH * D_SAE)


@pytest.mark.parametrize("name", CASES)
def test_a_first_step_holds_no_more_than_a_copy_of_the_pre_activations(name):
    assert 0.5 < peak_of_first_step(CASES[name]) < 1.25


@pytest.mark.parametrize("name", ["jumprelu", "gated"])
def test_a_step_that_is_not_in_parts_holds_more(monkeypatch, name):
    monkeypatch.setattr(objective_step, "SLICE_TOKENS", LARGE)
    monkeypatch.setattr(sliced_step, "PART_TOKENS", LARGE)
    assert peak_of_first_step(CASES[name]) > 2
