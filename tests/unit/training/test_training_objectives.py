"""Each objective's step descends the gradient of the loss that its paper states."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.training import (
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TopK,
    TrainPlan,
    objectives,
)
from auditkit.training import pairs as pairs_module
from auditkit.training.objective_step import ObjectiveStep
from auditkit.training.parameters import SaeParameters, TrainState
from tests.unit.training.dense_losses import dense_objective

D_IN, D_OUT, D_SAE, BATCH, STEPS = 12, 9, 70, 48, 10
SHARES = (0.1, 0.4, 1.0)
CASES = {
    "batch_topk": BatchTopK(k=5, k_aux=7),
    "matryoshka": MatryoshkaBatchTopK(k=5, k_aux=7, group_shares=SHARES),
    "jumprelu": JumpReLU(l0_coefficient=3e-3, bandwidth=0.05, initial_threshold=0.06),
    "jumprelu to a target": JumpReLU(target_l0=4.0, bandwidth=0.05, initial_threshold=0.06),
    "jumprelu by the logarithm": JumpReLU(
        target_l0=4.0,
        l0_coefficient=0.3,
        bandwidth=0.05,
        initial_threshold=0.06,
        log_threshold=True,
    ),
    "relu_l1": ReluL1(l1=0.05),
    "gated": Gated(l1=0.05),
}
WITH_AUXK = {name for name, objective in CASES.items() if hasattr(objective, "k_aux")}


def plan_for(objective: Objective, **changes: object) -> TrainPlan:
    values = {
        "d_in": D_IN, "d_sae": D_SAE, "objective": objective, "steps": STEPS, "batch_size": BATCH,
        "lr": 3e-3, "warmup_steps": 2, "sparsity_warmup": 0.5, "dead_after_tokens": 1000,
    }  # fmt: skip
    return TrainPlan(**values | changes)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state_for(plan: TrainPlan, *, dead_every: int | None = 4) -> TrainState:
    """Random parameters, different for every latent, in float64."""
    out = plan.width_out
    W_dec = normalize(normal(0, D_SAE, out), dim=1)
    directions = normalize(normal(1, D_SAE, D_IN), dim=1) if plan.is_transcoder else W_dec
    common = SaeParameters(
        W_enc_rows=0.3 * directions + 0.05 * normal(2, D_SAE, D_IN),
        W_dec=W_dec,
        b_enc=0.1 * normal(3, D_SAE),
        b_dec=0.2 * normal(4, out),
    )
    parameters, buffers = plan.objective.complete(plan, common)
    for number, tensor in enumerate(parameters.own.values()):
        tensor += 0.05 * normal(5 + number, D_SAE)
    if plan.is_transcoder:
        buffers["b_in"] = 0.3 * normal(9, D_IN)
    silent = torch.zeros(D_SAE, dtype=torch.int64)
    if dead_every is not None:
        silent[::dead_every] = 10**9
    return TrainState(
        parameters=parameters,
        first_moments=parameters.zeros_like(),
        second_moments=parameters.zeros_like(),
        silent_tokens=silent,
        scale=1.0,
        buffers=buffers,
    )


def rows(seed: int, width: int) -> Tensor:
    return normal(1000 + seed, BATCH, width) + 0.5


def batch_for(plan: TrainPlan, seed: int) -> tuple[Tensor, Tensor]:
    x = rows(seed, D_IN)
    return x, (rows(500 + seed, D_OUT) if plan.is_transcoder else x)


def step_of(plan: TrainPlan) -> ObjectiveStep:
    step = plan.objective.make_step(plan, "torch")
    assert isinstance(step, ObjectiveStep)
    return step


def dense_gradients(
    plan: TrainPlan, state: TrainState, x: Tensor, target: Tensor
) -> tuple[dict[str, Tensor], float, Tensor]:
    named = {n: t.clone().requires_grad_(True) for n, t in state.parameters.named().items()}
    loss, z = dense_objective(
        plan.objective, named, x, target, b_in=state.buffers.get("b_in"),
        dead=state.silent_tokens >= plan.dead_after_tokens, warm=plan.sparsity_weight(state.step),
    )  # fmt: skip
    loss.backward()
    found = {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in named.items()}
    return found, float(loss.detach()), z.detach()


@pytest.mark.parametrize("width_out", [None, D_OUT], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("share", [0.0, 1.0], ids=["whole products", "listed pairs"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_dense_loss(monkeypatch, name, share, width_out):
    if name == "gated" and width_out is not None:
        pytest.skip("SAELens' layout has no gated transcoder")
    monkeypatch.setattr(pairs_module, "DENSE_SHARE", share)
    plan = plan_for(CASES[name], d_out=width_out)
    state = state_for(plan)
    x, target = batch_for(plan, 0)
    expected, loss, z = dense_gradients(plan, state, x, target)
    step = step_of(plan)
    descent = step.descend(state, step.prepare(state, x, target))
    for parameter, gradient in descent.gradients(state).named().items():
        assert expected[parameter].abs().max() > 0, parameter
        torch.testing.assert_close(
            gradient, expected[parameter], rtol=1e-9, atol=1e-12, msg=parameter
        )
    assert descent.active == int((z > 0).sum())
    assert torch.equal(descent.fired, (z > 0).any(0))
    own_fvu = float(descent.error.square().sum() / (target - target.mean(0)).square().sum())
    assert own_fvu + descent.penalty == pytest.approx(loss, rel=1e-9)
    assert (descent.aux_loss is not None) == (name in WITH_AUXK)


@pytest.mark.parametrize("name", CASES)
def test_steps_equal_autograd_with_torchs_adam(name):
    plan = plan_for(CASES[name])
    ours, reference = state_for(plan), state_for(plan)
    optimiser = torch.optim.Adam(
        list(reference.parameters.named().values()),
        lr=1.0, betas=(plan.beta1, plan.beta2), eps=plan.eps,
    )  # fmt: skip
    step = step_of(plan)
    for number in range(STEPS):
        x = rows(number, D_IN)
        report = step(ours, x)
        gradients, loss, z = dense_gradients(plan, reference, x, x)
        p = reference.parameters
        for parameter, gradient in gradients.items():
            p.named()[parameter].grad = gradient
        p.W_dec.grad -= (p.W_dec.grad * p.W_dec).sum(1, keepdim=True) * p.W_dec
        optimiser.param_groups[0]["lr"] = plan.learning_rate(number)
        optimiser.step()
        p.W_dec.div_(p.W_dec.norm(dim=1, keepdim=True))
        if "threshold" in p.own:
            p.own["threshold"].clamp_(min=0)
        reference.silent_tokens += len(x)
        reference.silent_tokens[(z > 0).any(0)] = 0
        reference.step += 1
        lost = 1 - report.explained_variance + plan.objective.penalty(report)
        assert lost == pytest.approx(loss, rel=1e-8)
    assert torch.equal(ours.silent_tokens, reference.silent_tokens)
    for parameter, expected in reference.parameters.named().items():
        torch.testing.assert_close(
            ours.parameters.named()[parameter], expected, rtol=1e-7, atol=1e-9, msg=parameter
        )


def test_the_registry_knows_every_objective_by_its_own_name():
    some = (*CASES.values(), TopK(k=1))
    named = {objective.name: type(objective) for objective in some}
    assert objectives() == named


def test_jumprelus_encoder_gets_nothing_from_the_penalty_and_its_threshold_does():
    plans = [plan_for(JumpReLU(l0_coefficient=c, bandwidth=0.05)) for c in (1e-9, 1.0)]
    found = []
    for plan in plans:
        state, step = state_for(plan), step_of(plan)
        x = rows(0, D_IN)
        found.append(step.descend(state, step.prepare(state, x, x)).gradients(state))
    torch.testing.assert_close(found[0].W_enc_rows, found[1].W_enc_rows)
    assert (found[0].own["threshold"] - found[1].own["threshold"]).abs().max() > 0.1


def test_batch_topk_selects_the_same_whatever_it_saw_before():
    plan = plan_for(BatchTopK(k=5))
    state = state_for(plan)
    used, fresh = step_of(plan), step_of(plan)
    loud, x = 40 * rows(7, D_IN), rows(8, D_IN)
    used.descend(state, used.prepare(state, loud, loud))
    both = [step.descend(state, step.prepare(state, x, x)) for step in (used, fresh)]
    assert both[0].active == both[1].active == 5 * BATCH
    assert torch.equal(both[0].W_dec, both[1].W_dec)


def test_batch_topks_threshold_follows_the_smallest_value_kept():
    plan = plan_for(BatchTopK(k=5, threshold_rate=0.25))
    state, step = state_for(plan), step_of(plan)
    expected = None
    for number in range(6):
        x, p = rows(number, D_IN), state.parameters
        pre = (x - p.b_dec) @ p.W_enc_rows.T + p.b_enc
        least = float(pre.flatten().topk(5 * BATCH).values.min())
        assert least > 0
        expected = least if expected is None else 0.75 * expected + 0.25 * least
        step(state, x)
    assert float(state.buffers["threshold"]) == pytest.approx(expected, rel=1e-12)


def test_batch_topk_keeps_only_positive_values():
    plan = plan_for(BatchTopK(k=D_SAE))
    state = state_for(plan)
    x = rows(0, D_IN)
    report = step_of(plan)(state, x)
    assert 0 < report.active < D_SAE * BATCH


def resampled(seed: int = 0) -> tuple[TrainState, TrainState, Tensor]:
    """The state one step before resampling and after it, and the batch."""
    plan = plan_for(ReluL1(l1=0.01, resample_at=(2,)), seed=seed)
    state, step = state_for(plan), step_of(plan)
    state.parameters.b_enc[::4] = -1e6
    step(state, rows(0, D_IN))
    before = dataclasses.replace(
        state, parameters=SaeParameters.from_named(
            {n: t.clone() for n, t in state.parameters.named().items()}
        )
    )  # fmt: skip
    x = rows(1, D_IN)
    step(state, x)
    return before, state, x


def test_resampling_starts_dead_latents_anew_where_the_loss_is():
    before, after, x = resampled()
    p, dead = after.parameters, slice(None, None, 4)
    assert float(before.parameters.b_enc[dead].max()) < -1e5
    assert float(p.b_enc[dead].abs().max()) == 0.0
    centred = normalize(x - before.parameters.b_dec, dim=1)
    nearest = (p.W_dec[dead] @ centred.T).max(dim=1).values
    torch.testing.assert_close(nearest, torch.ones_like(nearest))
    alive = torch.ones(D_SAE, dtype=torch.bool)
    alive[dead] = False
    size = 0.2 * p.W_enc_rows[alive].norm(dim=1).mean()
    torch.testing.assert_close(p.W_enc_rows[dead], p.W_dec[dead] * size)
    for moments in (after.first_moments, after.second_moments):
        for tensor in (moments.W_dec, moments.W_enc_rows, moments.b_enc):
            assert not bool(tensor[dead].any())
            assert bool(tensor[alive].any())
    assert int(after.silent_tokens[dead].max()) == 0


def test_resampling_prefers_inputs_with_a_large_squared_loss():
    plan = plan_for(ReluL1(l1=0.01, resample_at=(1,)))
    state, step = state_for(plan, dead_every=2), step_of(plan)
    state.parameters.b_enc[:] = -1e6  # nothing fires: an input's loss is its own square
    x = torch.cat([rows(0, D_IN)[: BATCH - 1], 6 * rows(1, D_IN)[:1]])
    outlier = normalize(x[-1] - state.parameters.b_dec, dim=0)
    step(state, x)
    share = float(((state.parameters.W_dec[::2] @ outlier) > 0.999).double().mean())
    loss = (x - state.parameters.b_dec).square().sum(1)
    by_loss, by_square = (loss / loss.sum())[-1], (loss.square() / loss.square().sum())[-1]
    assert by_square > by_loss + 0.25
    assert abs(share - by_square) < abs(share - by_loss)


@pytest.mark.parametrize("name", CASES)
def test_infinite_weights_stop_the_run(name):
    plan = plan_for(CASES[name])
    state = state_for(plan)
    state.parameters.W_enc_rows[3, 2] = math.nan
    with pytest.raises(RunFailed, match="diverged at step 1"):
        step_of(plan)(state, rows(0, D_IN))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(k=0), "k is 0"),
        (lambda: TopK(k=4, k_aux=-1), "k_aux is -1"),
        (lambda: BatchTopK(k=4, aux_coefficient=math.nan), "aux_coefficient is nan"),
        (lambda: BatchTopK(k=4, threshold_rate=0.0), "threshold_rate is 0.0"),
        (lambda: MatryoshkaBatchTopK(k=4, group_shares=(0.5, 0.2, 1.0)), "group_shares is"),
        (lambda: MatryoshkaBatchTopK(k=4, group_shares=(0.5,)), "the last of them 1"),
        (lambda: MatryoshkaBatchTopK(k=0), "k is 0"),
        (lambda: JumpReLU(), "target_l0 is None"),
        (lambda: JumpReLU(target_l0=-1.0), "target_l0 is -1"),
        (lambda: JumpReLU(target_l0=3.0, bandwidth=0.0), "bandwidth is 0"),
        (lambda: ReluL1(l1=-1.0), "l1 is -1"),
        (lambda: ReluL1(l1=1.0, resample_at=(0,)), "resample_at is"),
        (lambda: Gated(l1=math.inf), "l1 is inf"),
        (lambda: plan_for(BatchTopK(k=71)), r"k is 71, expected 1 to d_sae \(70\)"),
        (lambda: plan_for(JumpReLU(target_l0=71.0)), r"at most d_sae \(70\)"),
        (lambda: plan_for(MatryoshkaBatchTopK(k=3, group_shares=(1e-3, 1.0))), "every group"),
        (
            lambda: plan_for(ReluL1(l1=1.0, resample_at=(3,)), frozen_decoder=True),
            "none with a frozen decoder",
        ),
        (lambda: plan_for(TopK(k=3), sparsity_warmup=2.0), "sparsity_warmup is 2"),
        (lambda: plan_for(TopK(k=3), d_out=0), "d_out is 0"),
        (lambda: plan_for(TopK(k=3), d_out=9), "no topk transcoder"),
        (lambda: plan_for(Gated(l1=1.0), d_out=9), "no gated transcoder"),
        (lambda: Gated(l1=1.0).make_step(plan_for(Gated(l1=1.0)), "numba"), "no step with numba"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_the_penalty_warms_up():
    plan = plan_for(ReluL1(l1=1.0), steps=100, sparsity_warmup=0.2)
    assert [plan.sparsity_weight(step) for step in (0, 9, 19, 50)] == [0.05, 0.5, 1.0, 1.0]
    assert plan_for(ReluL1(l1=1.0), sparsity_warmup=0.0).sparsity_weight(0) == 1.0
