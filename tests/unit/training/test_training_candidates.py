"""Candidates from a rough product, scored exactly, are the k largest pre-activations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.training import TopK, TrainPlan
from auditkit.training.fused import candidates
from auditkit.training.fused.candidates import Candidates, best_product
from auditkit.training.fused.step import FusedStep
from auditkit.training.parameters import SaeParameters, TrainState
from auditkit.training.sparse_step import TorchStep

pytest.importorskip("numba")

D_IN, D_SAE, K, BATCH = 48, 640, 5, 24
PRODUCTS = ["bfloat16", "int8"]
PLAN = TrainPlan(
    d_in=D_IN, d_sae=D_SAE, objective=TopK(k=K, k_aux=16), steps=6, batch_size=BATCH,
    warmup_steps=2, lr=3e-3, dead_after_tokens=1000,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(d_sae: int = D_SAE) -> SaeParameters:
    W_dec = normalize(normal(0, d_sae, D_IN), dim=1)
    norms = 0.1 + normal(1, d_sae, 1).abs()
    return SaeParameters(
        W_enc_rows=norms * W_dec,
        W_dec=W_dec,
        b_enc=0.1 * normal(2, d_sae),
        b_dec=0.2 * normal(3, D_IN),
    )


def chosen(product, p: SaeParameters, z: torch.Tensor, k: int = K):
    """Latents in rising order with their values, and the counts of candidates."""
    encoder = Candidates(product, len(z), k, p)
    latents = np.empty((len(z), k), dtype=np.int64)
    values = np.empty((len(z), k), dtype=np.float32)
    encoder.choose(z, p, latents, values, step=0)
    latents, order = torch.from_numpy(latents).sort(dim=1)
    return latents, torch.from_numpy(values).gather(1, order), encoder.counts


def true_top(p: SaeParameters, z: torch.Tensor, k: int = K):
    pre_acts = z @ p.W_enc_rows.T + p.b_enc
    latents = pre_acts.topk(k, dim=1).indices.sort(dim=1).values
    return latents, pre_acts.gather(1, latents).relu()


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("tokens", [1, BATCH, 300])
def test_the_chosen_latents_are_the_k_largest_with_their_exact_values(product, tokens):
    p, z = parameters(), normal(7, tokens, D_IN)
    latents, values, counts = chosen(product, p, z)
    expected, exact = true_top(p, z)
    assert torch.equal(latents, expected)
    torch.testing.assert_close(values, exact, rtol=1e-5, atol=1e-5)
    assert (counts >= K).all()
    assert counts.mean() < D_SAE / 8


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_width_that_is_no_multiple_of_a_block_loses_no_latent(product):
    p, z = parameters(D_SAE + 11), normal(8, 200, D_IN)
    assert torch.equal(chosen(product, p, z)[0], true_top(p, z)[0])


@pytest.mark.parametrize("product", PRODUCTS)
def test_rows_of_negative_pre_activations_have_no_active_latent(product):
    p = parameters()
    p = dataclasses.replace(p, b_enc=p.b_enc - 50.0)
    _, values, _ = chosen(product, p, normal(9, BATCH, D_IN))
    assert not bool(values.any())


@pytest.mark.parametrize("product", PRODUCTS)
def test_latents_that_tie_at_the_end_leave_k_distinct_ones(product):
    p = parameters()
    twins = dataclasses.replace(
        p, W_enc_rows=p.W_enc_rows[:1].expand(D_SAE, -1).contiguous(), b_enc=torch.ones(D_SAE)
    )
    z = normal(10, BATCH, D_IN)
    latents, values, counts = chosen(product, twins, z)
    assert (counts == -1).all(), "as many candidates as latents are left to a whole product"
    assert bool((latents.diff(dim=1) > 0).all())
    expected = (z @ p.W_enc_rows[0] + 1.0).relu()[:, None].expand(-1, K)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_token_of_zeros_has_the_largest_biases(product):
    p = parameters()
    latents, _, _ = chosen(product, p, torch.zeros(1, D_IN))
    assert torch.equal(latents[0], p.b_enc.topk(K).indices.sort().values)


def test_fewer_blocks_than_k_are_refused():
    p = parameters(16 * K - 1)
    with pytest.raises(InvalidInput, match="latents are too few to choose candidates"):
        chosen("int8", p, normal(15, 4, D_IN))


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("broken", ["W_enc_rows", "b_enc"])
def test_weights_that_are_not_finite_stop_the_run(product, broken):
    p = parameters()
    p.named()[broken][3] = float("nan")
    with pytest.raises(RunFailed, match="diverged at step 1: pre-activations are not finite"):
        chosen(product, p, normal(11, BATCH, D_IN))


def test_without_its_bounds_the_bfloat16_product_would_choose_others():
    p, z = parameters(), normal(12, 400, D_IN)
    rough = (z.bfloat16() @ p.W_enc_rows.bfloat16().T).float() + p.b_enc
    naive = rough.topk(K, dim=1).indices.sort(dim=1).values
    expected, _ = true_top(p, z)
    assert not torch.equal(naive, expected)
    assert torch.equal(chosen("bfloat16", p, z)[0], expected)


def test_rows_round_to_bfloat16_as_torch_rounds_them():
    from auditkit.training.fused import candidate_kernels

    rows = normal(13, 20, D_IN) * torch.logspace(-20, 20, 20)[:, None]
    rounded = np.empty((20, D_IN), dtype=np.uint16)
    norms, errors = np.empty(20, dtype=np.float32), np.empty(20, dtype=np.float32)
    candidate_kernels.round_to_bfloat16(rows.numpy().view(np.uint32), rounded, norms, errors)
    expected = rows.bfloat16()
    assert np.array_equal(rounded.view(np.int16), expected.view(torch.int16).numpy())
    middle = slice(6, 14)  # squares of the others leave float32
    near = expected.float()
    np.testing.assert_allclose(norms[middle], near.norm(dim=1)[middle], rtol=1e-5)
    np.testing.assert_allclose(errors[middle], (rows - near).norm(dim=1)[middle], rtol=1e-4)


@pytest.mark.parametrize("dead_every", [None, 4], ids=["none dead", "some dead"])
@pytest.mark.parametrize("product", ["float32", *PRODUCTS])
def test_steps_are_those_of_torch_whatever_the_product(product, dead_every):
    def state() -> TrainState:
        p = parameters()
        silent = torch.zeros(D_SAE, dtype=torch.int64)
        if dead_every:
            silent[::dead_every] = 10**9
        return TrainState(
            parameters=p,
            first_moments=p.zeros_like(),
            second_moments=p.zeros_like(),
            silent_tokens=silent,
            scale=1.0,
        )

    ours, reference = state(), state()
    fused, plain = FusedStep(PLAN, product=product), TorchStep(PLAN)
    for number in range(PLAN.steps):
        x = normal(100 + number, BATCH, D_IN) + 0.5
        mine, theirs = fused(ours, x), plain(reference, x)
        assert mine.squared_error == pytest.approx(theirs.squared_error, rel=1e-4)
        assert mine.squared_deviation == pytest.approx(theirs.squared_deviation, rel=1e-5)
        assert (mine.active, mine.dead) == (theirs.active, theirs.dead)
    assert torch.equal(ours.silent_tokens, reference.silent_tokens)
    for name, expected in reference.parameters.named().items():
        torch.testing.assert_close(
            ours.parameters.named()[name], expected, rtol=1e-3, atol=2e-4, msg=name
        )


def test_a_token_alone_and_k_of_all_latents_take_the_whole_product():
    plan = dataclasses.replace(PLAN, d_sae=7, objective=TopK(k=7), batch_size=1)
    p, x = parameters(7), normal(20, 1, D_IN)
    state = TrainState(
        parameters=p,
        first_moments=p.zeros_like(),
        second_moments=p.zeros_like(),
        silent_tokens=torch.zeros(7, dtype=torch.int64),
        scale=1.0,
    )
    z = ((x - p.b_dec) @ p.W_enc_rows.T + p.b_enc).relu()
    expected = float((x - p.b_dec - z @ p.W_dec).square().sum())
    assert best_product(p, 7) == "float32"
    # Of one token alone nothing deviates from the mean, so x comes twice, once moved.
    report = FusedStep(plan)(state, torch.cat([x, x]) + torch.tensor([[0.0], [1e-3]]))
    assert report.squared_error == pytest.approx(2 * expected, rel=1e-2)
    assert report.active == 2 * int((z > 0).sum())


def test_bfloat16_is_taken_only_where_its_products_hold(monkeypatch):
    p = parameters()
    monkeypatch.setattr(candidates, "_multiplies_bfloat16", lambda: True)
    assert best_product(p, K) == "bfloat16"
    monkeypatch.setattr(candidates, "_holds", lambda _: False)
    assert best_product(p, K) == "float32"
    monkeypatch.setattr(candidates, "_holds", lambda _: True)
    monkeypatch.setattr(candidates, "_multiplies_bfloat16", lambda: False)
    assert best_product(p, K) == "float32"
