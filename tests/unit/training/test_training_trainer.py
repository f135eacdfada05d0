"""Training on a planted world: it learns, it resumes bit for bit, it refuses what cannot work."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, MismatchError, RunFailed
from auditkit.core.hook_point import HookPoint
from auditkit.saes import load_sae, write_sae
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    TopK,
    TrainEvent,
    TrainPlan,
    train_sae,
)
from auditkit.training.finishing import explained_variance, fold
from auditkit.training.initialise import geometric_median, initial_state, scale_of

D_IN, FEATURES, ACTIVE = 24, 40, 3
PLAN = TrainPlan(
    d_in=D_IN, d_sae=64, objective=TopK(k=4, k_aux=16), steps=300, batch_size=256, lr=5e-3,
    warmup_steps=10, dead_after_tokens=4000, held_out=1024, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[ActivationStore, torch.Tensor]:
    """Sparse sums of planted directions with an offset, and the directions."""
    g = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(FEATURES, D_IN, generator=g), dim=1)
    n = 12_000
    chosen = torch.rand(n, FEATURES, generator=g).topk(ACTIVE, dim=1).indices
    amounts = 20 * (0.5 + torch.rand(n, ACTIVE, generator=g))
    dense = torch.zeros(n, FEATURES).scatter(1, chosen, amounts)
    x = dense @ directions + 30 * torch.randn(D_IN, generator=g) / D_IN**0.5
    x[100] *= 1000.0
    meta = ActivationMeta(
        hook_point="blocks.1.hook_resid_post", d_in=D_IN, key="world", model={"name": "planted"}
    )
    writer = ActivationWriter(tmp_path_factory.mktemp("world"), meta)
    writer.append(x, source="world")
    return writer.finish(), directions


def same_weights(a, b) -> bool:
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_training_recovers_planted_directions(world, kernel):
    if kernel == "numba":
        pytest.importorskip("numba")
    store, directions = world
    events: list[TrainEvent] = []
    sae = train_sae(PLAN, store, name="planted", kernel=kernel, progress=events.append)
    best = (directions @ sae.W_dec.T).max(dim=1).values
    assert float(best.mean()) > 0.9
    assert [e.step for e in events] == list(range(1, PLAN.steps + 1))
    assert events[-1].held_out_explained_variance > 0.9
    x = store.rows(torch.arange(200, 2200))
    latents = sae.encode(x)
    assert latents.nnz <= 4 * 2000
    error = (x - sae.decode(latents)).square().sum()
    assert 1 - float(error / (x - x.mean(0)).square().sum()) > 0.9
    card = sae.config.metadata["auditkit"]["training"]
    assert card["high_norm_tokens_left_out"] == 1
    assert card["held_out_explained_variance"] == events[-1].held_out_explained_variance


def test_both_kernels_learn_the_same(world):
    pytest.importorskip("numba")
    plan = dataclasses.replace(PLAN, steps=20)
    saes = [train_sae(plan, world[0], name="x", kernel=kernel) for kernel in ("torch", "numba")]
    torch.testing.assert_close(saes[0].W_dec, saes[1].W_dec, rtol=0, atol=2e-2)


class Killed(Exception):
    pass


@pytest.mark.parametrize("frozen", [False, True], ids=["learnt decoder", "frozen decoder"])
@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_a_killed_and_resumed_run_ends_bit_equal(world, tmp_path, kernel, frozen):
    if kernel == "numba":
        pytest.importorskip("numba")
    store, _ = world
    plan = dataclasses.replace(PLAN, steps=60, frozen_decoder=frozen)
    whole = tmp_path / "whole"
    undisturbed = train_sae(
        plan, store, name="x", kernel=kernel, checkpoint_dir=whole, checkpoint_every=10
    )

    def die_at(step: int):
        def progress(event: TrainEvent) -> None:
            if event.step == step:
                raise Killed

        return progress

    for step in (7, 23, 58):
        with pytest.raises(Killed):
            train_sae(
                plan, store, name="x", kernel=kernel, checkpoint_dir=tmp_path / "cut",
                checkpoint_every=10, progress=die_at(step),
            )  # fmt: skip
    resumed = train_sae(
        plan, store, name="x", kernel=kernel, checkpoint_dir=tmp_path / "cut", checkpoint_every=10
    )
    assert same_weights(undisturbed, resumed)
    assert log_without_speed(tmp_path / "cut") == log_without_speed(whole)


def log_without_speed(folder: Path) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if "event" not in line]
    return [
        {k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds_left")}
        for line in steps
    ]


def test_ctrl_c_writes_a_checkpoint_at_the_end_of_the_step(world, tmp_path):
    store, _ = world
    plan = dataclasses.replace(PLAN, steps=40)
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(event: TrainEvent) -> None:
        if event.step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_sae(plan, store, name="x", checkpoint_dir=tmp_path, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    later: list[int] = []
    train_sae(
        plan, store, name="x", checkpoint_dir=tmp_path, progress=lambda e: later.append(e.step)
    )
    assert later[0] == 14


def test_a_finished_run_is_not_run_again(world, tmp_path):
    store, _ = world
    plan = dataclasses.replace(PLAN, steps=5)
    first = train_sae(plan, store, name="x", checkpoint_dir=tmp_path)
    steps: list[int] = []
    again = train_sae(
        plan, store, name="x", checkpoint_dir=tmp_path, progress=lambda e: steps.append(e.step)
    )
    assert steps == []
    assert same_weights(first, again)


def test_a_checkpoint_of_another_plan_is_refused(world, tmp_path):
    store, _ = world
    train_sae(dataclasses.replace(PLAN, steps=3), store, name="x", checkpoint_dir=tmp_path)
    with pytest.raises(MismatchError, match="belongs to another plan"):
        train_sae(dataclasses.replace(PLAN, steps=4), store, name="x", checkpoint_dir=tmp_path)


def test_a_frozen_run_does_not_go_on_as_a_learning_one(world, tmp_path):
    plan = dataclasses.replace(PLAN, steps=3, frozen_decoder=True)
    train_sae(plan, world[0], name="x", checkpoint_dir=tmp_path)
    with pytest.raises(MismatchError, match="belongs to another plan"):
        train_sae(dataclasses.replace(PLAN, steps=3), world[0], name="x", checkpoint_dir=tmp_path)


def test_a_frozen_decoder_is_the_seeds_own_draw_and_explains_less(world):
    store, _ = world
    plan = dataclasses.replace(PLAN, steps=150)
    learnt = train_sae(plan, store, name="learnt")
    frozen = train_sae(dataclasses.replace(plan, frozen_decoder=True), store, name="frozen")
    drawn = initial_state(plan, store.rows(torch.arange(500))).parameters.W_dec
    assert torch.equal(frozen.W_dec, drawn)
    found = [s.config.metadata["auditkit"]["training"] for s in (learnt, frozen)]
    assert found[1]["plan"]["frozen_decoder"] is True
    variances = [card["held_out_explained_variance"] for card in found]
    assert variances[0] > variances[1] + 0.05 > 0.05


def test_a_damaged_checkpoint_is_refused(world, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InvalidInput, match="not a readable checkpoint"):
        train_sae(PLAN, world[0], name="x", checkpoint_dir=tmp_path)


def test_activations_of_another_width_are_refused(world):
    with pytest.raises(MismatchError, match="24 wide, the plan's d_in is 32"):
        train_sae(dataclasses.replace(PLAN, d_in=32), world[0], name="x")


def test_divergence_stops_the_run(world):
    plan = dataclasses.replace(PLAN, lr=1e30, steps=20)
    with pytest.raises(RunFailed, match="diverged at step"):
        train_sae(plan, world[0], name="x", kernel="torch")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": TopK(k=65)}, r"k is 65, expected 1 to d_sae \(64\)"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"decay_fraction": 1.5}, "decay_fraction is 1.5"),
    ],
)
def test_impossible_plans_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(PLAN, **change)


def test_the_rate_warms_up_stays_and_decays_to_nearly_zero():
    plan = dataclasses.replace(PLAN, steps=100, warmup_steps=10, decay_fraction=0.2, lr=1.0)
    rates = [plan.learning_rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[9:80]) == {1.0}
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[80:]))
    assert rates[-1] == pytest.approx(1 / 21)


def test_folding_the_scale_changes_no_reconstruction(world):
    store, _ = world
    sample = store.rows(torch.arange(200, 1200))
    state = initial_state(PLAN, sample)
    state.parameters.b_enc.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
    sae = fold(
        state, PLAN, name="x", hook_point=HookPoint.parse("blocks.1.hook_resid_post"),
        model_name=None, metadata={},
    )  # fmt: skip
    error = (sample - sae.decode(sae.encode(sample))).square().sum()
    folded = 1 - float(error / (sample - sample.mean(0)).square().sum())
    scaled = explained_variance(PLAN, state, sample * state.scale)
    assert folded == pytest.approx(scaled, abs=1e-5)
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)


def test_a_trained_sae_survives_its_folder(world, tmp_path):
    store, _ = world
    sae = train_sae(dataclasses.replace(PLAN, steps=5), store, name="x")
    write_sae(sae, tmp_path / "sae", dtype="float32")
    loaded = load_sae(str(tmp_path / "sae"))
    assert same_weights(sae, loaded)
    assert loaded.config.k == 4
    assert loaded.hook_point == sae.hook_point


def test_the_geometric_median_ignores_an_outlier_that_moves_the_mean():
    x = torch.randn(501, 8, generator=torch.Generator().manual_seed(0)).double() + 3
    clean = geometric_median(x)
    spoilt = torch.cat([x, torch.full((1, 8), 1e6, dtype=torch.float64)])
    assert float((geometric_median(spoilt) - clean).norm()) < 0.1
    assert float((spoilt.mean(0) - clean).norm()) > 1000


def test_the_geometric_median_minimises_the_sum_of_distances():
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)).double().exp()
    centre = geometric_median(x)
    least = (x - centre).norm(dim=1).sum()
    for seed in range(20):
        step = torch.randn(5, generator=torch.Generator().manual_seed(seed)).double() * 1e-2
        assert (x - centre - step).norm(dim=1).sum() >= least


def test_scaled_rows_have_a_mean_squared_norm_of_d_in():
    x = torch.randn(300, 7, generator=torch.Generator().manual_seed(2)) * 40 + 3
    assert float((x * scale_of(x)).square().sum(1).mean()) == pytest.approx(7, rel=1e-5)
    with pytest.raises(InvalidInput, match="every sampled activation is zero"):
        scale_of(torch.zeros(4, 7))
