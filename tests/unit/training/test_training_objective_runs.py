"""Whole runs of every objective: they recover a planted world, they resume bit for bit, and the SAE
that comes out of its folder has the latents that it was trained to have. A planted fault shows."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.saes import load_sae, write_sae
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TopK,
    TrainEvent,
    TrainPlan,
    objective_step,
    train_sae,
)
from auditkit.training.finishing import explained_variance
from auditkit.training.initialise import initial_state
from auditkit.training.objectives import jumprelu, matryoshka
from auditkit.training.parameters import StepReport, TrainState

D_IN, FEATURES, D_SAE, BATCH, STEPS, TRUE_L0 = 32, 64, 96, 256, 300, 3.2
JUMP = JumpReLU(target_l0=TRUE_L0, bandwidth=0.05, initial_threshold=0.02)
CASES = {
    "topk": TopK(k=3, k_aux=24),
    "batch_topk": BatchTopK(k=3, k_aux=24, threshold_rate=0.05),
    "matryoshka": MatryoshkaBatchTopK(k=3, group_shares=(0.25, 0.5, 1.0), threshold_rate=0.05),
    "jumprelu": JUMP,
    "relu_l1": ReluL1(l1=0.3, resample_at=(60, 120)),
    "gated": Gated(l1=0.6),
}

LEAST = {
    "topk": 0.95, "batch_topk": 0.93, "matryoshka": 0.85, "jumprelu": 0.9, "relu_l1": 0.95,
    "gated": 0.9,
}  # fmt: skip


def draw(n: int, seed: int) -> Tensor:
    """Features fire apart from one another with probability 1 in 20, on a common mean."""
    g = torch.Generator().manual_seed(seed)
    on = torch.rand(n, FEATURES, generator=g) < TRUE_L0 / FEATURES
    amounts = on * (1 + 0.3 * torch.randn(n, FEATURES, generator=g).abs())
    return amounts @ directions() + 0.5 / D_IN**0.5


@functools.cache
def directions() -> Tensor:
    # Not the plans' seed: equal seeds would draw equal numbers, and the start be the answer.
    g = torch.Generator().manual_seed(77)
    return normalize(torch.randn(FEATURES, D_IN, generator=g), dim=1)


@functools.cache
def rows() -> Tensor:
    return draw(12_000, 1)


def plan_for(objective: Objective, **changes: Any) -> TrainPlan:
    values: dict[str, Any] = {
        "d_in": D_IN, "d_sae": D_SAE, "objective": objective, "steps": STEPS, "batch_size": BATCH,
        "lr": 8e-3, "warmup_steps": 20, "sparsity_warmup": 0.3, "dead_after_tokens": 4000,
        "held_out": 512,
    }  # fmt: skip
    return TrainPlan(**values | changes)


class Recovery:
    """What a run found: `mmcs` is the mean over features of the best cosine of a decoder row."""

    def __init__(self, plan: TrainPlan, state: TrainState, report: StepReport, x: Tensor) -> None:
        W_dec = state.parameters.W_dec
        self.mmcs = float((directions() @ normalize(W_dec, dim=1).T).max(dim=1).values.mean())
        self.l0 = plan.objective.reconstruct(state, x)[1] / len(x)
        self.explained = explained_variance(plan, state, x)
        self.norms = W_dec.norm(dim=1)
        self.dead = report.dead
        self.plan, self.state, self.x = plan, state, x

    def prefix_explained(self, stop: int) -> float:
        """Explained variance of the first latents alone."""
        p, theta = self.state.parameters, self.state.buffers["threshold"].float()
        pre = self.state.centre(self.x) @ p.W_enc_rows.T + p.b_enc
        z = (pre * (pre > theta))[:, :stop]
        error = self.x - p.b_dec - z @ p.W_dec[:stop]
        return 1 - float(error.square().sum() / (self.x - self.x.mean(0)).square().sum())


def recover(objective: Objective, *, low: float = 0.0, **changes: Any) -> Recovery:
    """Train on the world; the biases of three latents of four start at `low`, where below zero they
    hardly ever fire."""
    plan, x = plan_for(objective, **changes), rows()
    state = initial_state(plan, x)
    state.parameters.b_enc[D_SAE // 4 :] = low
    step = objective.make_step(plan, "torch")
    g = torch.Generator().manual_seed(3)
    reports = [
        step(state, x[torch.randint(len(x), (BATCH,), generator=g)] * state.scale)
        for _ in range(plan.steps)
    ]
    return Recovery(plan, state, reports[-1], draw(3000, 2) * state.scale)


@functools.cache
def sound(name: str) -> Recovery:
    return recover(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_every_objective_recovers_the_planted_directions(name):
    found = sound(name)
    assert found.mmcs > LEAST[name]
    assert found.explained > 0.7
    assert TRUE_L0 * 0.8 < found.l0 < TRUE_L0 * (3.5 if name == "relu_l1" else 2)
    torch.testing.assert_close(found.norms, torch.ones(D_SAE), rtol=0, atol=1e-5)


def without_unit_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain Adam on all parameters."""

    def update(state: TrainState, gradients: Any, plan: TrainPlan) -> None:
        for name, gradient in gradients.named().items():
            m, v = state.first_moments.named()[name], state.second_moments.named()[name]
            m.lerp_(gradient, 0.1)
            v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            t = state.step + 1
            scale = (v / (1 - 0.999**t)).sqrt_().add_(plan.eps)
            rate = plan.learning_rate(state.step) / (1 - 0.9**t)
            state.parameters.named()[name].addcdiv_(m, scale, value=-rate)

    monkeypatch.setattr(objective_step, "adam_update", update)


def test_without_unit_norm_the_penalty_is_escaped(monkeypatch):
    without_unit_norm(monkeypatch)
    assert float(recover(CASES["relu_l1"]).norms.mean()) > 1.5


@pytest.mark.parametrize("name", ["relu_l1", "gated"])
def test_an_l1_of_the_wrong_sign_shows(name):
    wrong = type(CASES[name])(l1=0.0)
    object.__setattr__(wrong, "l1", -0.3)
    found = recover(wrong)
    assert found.l0 > 3 * sound(name).l0
    assert found.mmcs < LEAST[name] - 0.1


def test_a_jumprelu_without_its_thresholds_gradient_misses_its_target(monkeypatch):
    descend = jumprelu.JumpReLUStep.descend

    def dropped(self: Any, state: TrainState, batch: Any) -> Any:
        descent = descend(self, state, batch)
        descent.own["threshold"].zero_()
        return descent

    monkeypatch.setattr(jumprelu.JumpReLUStep, "descend", dropped)
    assert recover(JUMP).l0 > 5 * TRUE_L0


@pytest.mark.parametrize("objective", [TopK, BatchTopK])
def test_without_auxk_latents_that_never_fired_stay_dead(objective):
    start: dict[str, Any] = {"low": -0.5, "dead_after_tokens": 1000}
    helped, left = (recover(objective(k=3, k_aux=k_aux), **start) for k_aux in (24, 0))
    assert left.dead >= D_SAE // 2
    assert helped.dead < left.dead - 15
    assert helped.mmcs > left.mmcs + 0.1


def test_without_resampling_latents_that_never_fired_stay_dead():
    start: dict[str, Any] = {"low": -3.0, "dead_after_tokens": 1000}
    helped, left = (recover(ReluL1(l1=0.3, resample_at=at), **start) for at in ((60, 120), ()))
    assert left.dead >= D_SAE // 2
    assert helped.dead < left.dead - 15
    assert helped.mmcs > left.mmcs + 0.2


def test_a_matryoshka_whose_prefixes_are_not_trained_shows(monkeypatch):
    """It then is BatchTopK, whose first latents are any latents."""
    stop, objective = D_SAE // 4, CASES["matryoshka"]
    nested = recover(objective).prefix_explained(stop)
    monkeypatch.setattr(matryoshka.MatryoshkaBatchTopK, "ends", lambda self, d_sae: (d_sae,))
    assert recover(objective).prefix_explained(stop) < nested - 0.1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    meta = ActivationMeta(
        hook_point="blocks.1.hook_resid_post", d_in=D_IN, key="world", model={"name": "planted"}
    )
    writer = ActivationWriter(tmp_path_factory.mktemp("runs"), meta)
    writer.append(7 * rows(), source="world")
    return writer.finish()


class Killed(Exception):
    pass


def die_at(step: int) -> Callable[[TrainEvent], None]:
    def progress(event: TrainEvent) -> None:
        if event.step == step:
            raise Killed

    return progress


@pytest.mark.parametrize("name", CASES)
def test_a_killed_and_resumed_run_ends_bit_equal(store, tmp_path, name):
    objective = CASES[name]
    if name == "relu_l1":
        objective = ReluL1(l1=0.3, resample_at=(12, 31))
    plan = plan_for(objective, steps=40, dead_after_tokens=1000)
    undisturbed = train_sae(plan, store, name="x", kernel="torch")
    settings: dict[str, Any] = {
        "name": "x", "kernel": "torch", "checkpoint_dir": tmp_path, "checkpoint_every": 6,
    }  # fmt: skip
    for step in (8, 14, 33):
        with pytest.raises(Killed):
            train_sae(plan, store, progress=die_at(step), **settings)
    steps: list[int] = []
    resumed = train_sae(plan, store, progress=lambda e: steps.append(e.step), **settings)
    assert steps == list(range(31, 41))
    for tensor, value in undisturbed.tensors.items():
        assert torch.equal(value, resumed.tensors[tensor]), tensor


@functools.cache
def their_library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sae_lens")


@pytest.mark.parametrize("name", CASES)
def test_a_trained_sae_has_its_latents_in_its_folder_and_in_saelens(store, tmp_path, name):
    plan = plan_for(CASES[name], steps=120)
    events: list[TrainEvent] = []
    sae = train_sae(plan, store, name=name, progress=events.append, kernel="torch")
    write_sae(sae, tmp_path / "sae", dtype="float32")
    loaded = load_sae(tmp_path / "sae")
    x = store.rows(torch.arange(2000))
    latents, again = sae.encode(x), loaded.encode(x)
    assert torch.equal(latents.to_dense(), again.to_dense())
    assert latents.nnz > 0
    held_out = events[-1].held_out_explained_variance
    assert held_out is not None
    error = (x - sae.decode(latents)).square().sum()
    assert 1 - float(error / (x - x.mean(0)).square().sum()) == pytest.approx(held_out, abs=0.02)
    theirs = their_library().SAE.load_from_disk(tmp_path / "sae")
    with torch.no_grad():
        dense = theirs.encode(x)
        torch.testing.assert_close(again.to_dense(), dense, atol=2e-4, rtol=1e-5)
        torch.testing.assert_close(loaded.decode(again), theirs.decode(dense), atol=2e-4, rtol=1e-5)
    card = loaded.config.metadata["auditkit"]["training"]["plan"]
    assert card["objective"]["name"] == plan.objective.name
