"""The sparse step is the gradient of the stated objective, and both kernels take the same step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.training import TopK
from auditkit.training.auxk import auxk_gradients
from auditkit.training.fused import step
from auditkit.training.fused.step import FusedStep
from auditkit.training.objective import dense_loss, keep_top
from auditkit.training.parameters import SaeParameters, TrainState
from auditkit.training.plan import TrainPlan
from auditkit.training.sparse_step import (
    ActivePairs,
    TorchStep,
    sparse_gradients,
    squared_deviation,
)

D_IN, D_SAE, BATCH = 12, 70, 48
TOPK = TopK(k=5, k_aux=7)
PLAN = TrainPlan(
    d_in=D_IN, d_sae=D_SAE, objective=TOPK, steps=8, batch_size=BATCH, warmup_steps=2, lr=3e-3,
    dead_after_tokens=1000, decay_fraction=0.5,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_parameters(seed: int = 0) -> SaeParameters:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    W_dec = normalize(normal(D_SAE, D_IN), dim=1)
    return SaeParameters(
        W_enc_rows=0.3 * W_dec + 0.05 * normal(D_SAE, D_IN),
        W_dec=W_dec,
        b_enc=0.1 * normal(D_SAE),
        b_dec=0.2 * normal(D_IN),
    )


def random_state(*, dead_every: int | None = 4) -> TrainState:
    parameters = random_parameters()
    silent = torch.zeros(D_SAE, dtype=torch.int64)
    if dead_every is not None:
        silent[::dead_every] = 10**9
    return TrainState(
        parameters=parameters,
        first_moments=parameters.zeros_like(),
        second_moments=parameters.zeros_like(),
        silent_tokens=silent,
        scale=1.0,
    )


def random_batch(seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(BATCH, D_IN, generator=g, dtype=torch.float64) + 0.5


def dense_gradients(p: SaeParameters, x: torch.Tensor, dead: torch.Tensor, topk: TopK = TOPK):
    named = {name: t.clone().requires_grad_(True) for name, t in p.named().items()}
    dense_loss(
        SaeParameters(**named),
        x,
        k=topk.k,
        dead=dead,
        k_aux=topk.k_aux,
        aux_coefficient=topk.aux_coefficient,
    ).backward()
    return {name: t.grad for name, t in named.items()}


@pytest.mark.parametrize("k_aux", [3, 7, 500], ids=["fewer than dead", "some", "more than dead"])
@pytest.mark.parametrize("dead_every", [None, 4, 1], ids=["none dead", "some dead", "all dead"])
def test_sparse_gradients_equal_autograd_of_the_dense_objective(dead_every, k_aux):
    topk = dataclasses.replace(TOPK, k_aux=k_aux)
    state, x = random_state(dead_every=dead_every), random_batch(0)
    p, dead = state.parameters, state.silent_tokens > 0
    centred = x - p.b_dec
    pre_acts = centred @ p.W_enc_rows.T + p.b_enc
    values, latents = pre_acts.topk(topk.k, dim=1)
    pairs = ActivePairs(latents=latents, values=values.relu())
    error = centred - keep_top(pre_acts, topk.k) @ p.W_dec
    aux = None
    if bool(dead.any()):
        aux = auxk_gradients(
            p, pre_acts, centred, error, dead.nonzero().squeeze(1),
            k_aux=k_aux, aux_coefficient=topk.aux_coefficient,
        )  # fmt: skip
    sparse = sparse_gradients(p, pairs, centred, error * (-2 / squared_deviation(x)), aux)
    for name, expected in dense_gradients(p, x, dead, topk).items():
        assert expected.abs().max() > 0
        torch.testing.assert_close(sparse.named()[name], expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_test_would_notice_a_missing_path_through_the_pre_bias():
    state, x = random_state(dead_every=None), random_batch(0)
    p = state.parameters
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    full = dense_gradients(p, x, dead)["b_dec"]
    centred = x - p.b_dec
    error = centred - keep_top(centred @ p.W_enc_rows.T + p.b_enc, TOPK.k) @ p.W_dec
    decoder_path_only = (error * (-2 / squared_deviation(x))).sum(0)
    assert (full - decoder_path_only).abs().max() > 1e-3 * full.abs().max()


def reference_step(
    state: TrainState, optimiser: torch.optim.Adam, x: torch.Tensor, *, frozen: bool
) -> None:
    """Dense loss, autograd, torch's own Adam, projection and renormalisation; nothing of it for a
    frozen decoder."""
    p = state.parameters
    dead = state.silent_tokens >= PLAN.dead_after_tokens
    with torch.no_grad():
        active = keep_top((x - p.b_dec) @ p.W_enc_rows.T + p.b_enc, TOPK.k) > 0
    for name, gradient in dense_gradients(p, x, dead).items():
        p.named()[name].grad = gradient
    if frozen:
        p.W_dec.grad = None  # torch's Adam passes over it
    else:
        p.W_dec.grad -= (p.W_dec.grad * p.W_dec).sum(1, keepdim=True) * p.W_dec
    optimiser.param_groups[0]["lr"] = PLAN.learning_rate(state.step)
    optimiser.step()
    if not frozen:
        p.W_dec.div_(p.W_dec.norm(dim=1, keepdim=True))
    state.silent_tokens += len(x)
    state.silent_tokens[active.any(0)] = 0
    state.step += 1


@pytest.mark.parametrize("frozen", [False, True], ids=["learnt decoder", "frozen decoder"])
@pytest.mark.parametrize("make", [TorchStep, FusedStep])
def test_steps_equal_autograd_with_torchs_adam(make, frozen):
    if make is FusedStep:
        pytest.importorskip("numba")
    ours, reference = random_state(), random_state()
    optimiser = torch.optim.Adam(
        list(reference.parameters.named().values()),
        lr=1.0,
        betas=(PLAN.beta1, PLAN.beta2),
        eps=PLAN.eps,
    )
    step = make(dataclasses.replace(PLAN, frozen_decoder=frozen))
    for number in range(PLAN.steps):
        x = random_batch(number)
        report = step(ours, x)
        reference_step(reference, optimiser, x, frozen=frozen)
        assert (report.aux_loss is not None) == (report.dead > 0)
    assert ours.step == PLAN.steps
    assert torch.equal(ours.silent_tokens, reference.silent_tokens)
    for name, expected in reference.parameters.named().items():
        torch.testing.assert_close(
            ours.parameters.named()[name], expected, rtol=1e-9, atol=1e-11, msg=name
        )


@pytest.mark.parametrize("make", [TorchStep, FusedStep])
def test_a_step_reports_what_the_dense_form_computes(make):
    if make is FusedStep:
        pytest.importorskip("numba")
    state, x = random_state(), random_batch(3)
    p = state.parameters
    z = keep_top((x - p.b_dec) @ p.W_enc_rows.T + p.b_enc, TOPK.k)
    squared_error = (x - z @ p.W_dec - p.b_dec).square().sum()
    report = make(PLAN)(state, x)
    assert report.squared_error == pytest.approx(float(squared_error), rel=1e-9)
    assert report.squared_deviation == pytest.approx(squared_deviation(x), rel=1e-9)
    assert report.active == int((z > 0).sum())
    assert report.dead == len(range(0, D_SAE, 4))


@pytest.mark.parametrize("make", [TorchStep, FusedStep])
def test_decoder_rows_keep_norm_one(make):
    if make is FusedStep:
        pytest.importorskip("numba")
    state, step = random_state(), make(PLAN)
    for number in range(3):
        step(state, random_batch(number))
    norms = state.parameters.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [TorchStep, FusedStep])
def test_a_frozen_decoder_and_its_moments_stay_as_they_are_to_the_bit(make):
    if make is FusedStep:
        pytest.importorskip("numba")
    state, step = random_state(), make(dataclasses.replace(PLAN, frozen_decoder=True))
    before = {name: t.clone() for name, t in state.parameters.named().items()}
    for number in range(4):
        step(state, random_batch(number))
    after = state.parameters.named()
    assert torch.equal(after["W_dec"], before["W_dec"])
    assert not bool(state.first_moments.W_dec.any() | state.second_moments.W_dec.any())
    for name in ("W_enc_rows", "b_enc", "b_dec"):
        assert not torch.equal(after[name], before[name])


def test_only_auxk_moves_latents_that_win_no_token():
    def change_of_dead(aux_coefficient: float) -> float:
        topk = dataclasses.replace(TOPK, aux_coefficient=aux_coefficient)
        plan = dataclasses.replace(PLAN, objective=topk)
        state = random_state()
        p, x = state.parameters, random_batch(0)
        p.W_enc_rows[::4] *= 0.1
        p.b_enc[::4] = 0.0
        p.b_enc[1::4] = 0.5
        won = keep_top((x - p.b_dec) @ p.W_enc_rows.T + p.b_enc, TOPK.k)[:, ::4]
        assert not bool(won.any())
        before = p.W_enc_rows[::4].clone()
        TorchStep(plan)(state, x)
        return float((p.W_enc_rows[::4] - before).abs().max())

    assert change_of_dead(0.0) == 0.0
    assert change_of_dead(1 / 32) > 0.0


def test_silent_latents_drift_on_their_momentum():
    state, step = random_state(dead_every=None), TorchStep(PLAN)
    step(state, random_batch(0))
    p, silent = state.parameters, 3
    p.b_enc[silent] = -1e6
    before, momentum = p.W_dec[silent].clone(), state.first_moments.W_dec[silent].clone()
    step(state, random_batch(1))
    assert momentum.abs().max() > 0
    torch.testing.assert_close(state.first_moments.W_dec[silent], PLAN.beta1 * momentum)
    assert (p.W_dec[silent] - before).abs().max() > 0


def test_without_numba_the_fused_step_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr(step, "numba_is_installed", lambda: False)
    with pytest.raises(InvalidInput, match="numba, which is not installed"):
        FusedStep(PLAN)


@pytest.mark.parametrize("make", [TorchStep, FusedStep])
def test_a_batch_of_equal_rows_is_an_error_that_says_so(make):
    with pytest.raises(RunFailed, match="all activations of the batch are equal"):
        make(PLAN)(random_state(), torch.zeros_like(random_batch(0)))
