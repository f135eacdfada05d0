"""A transcoder learns what one hook point makes of another, and its folder is SAELens'."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import (
    DocumentError,
    InvalidInput,
    MismatchError,
    NotSupportedYet,
    WeightsError,
)
from auditkit.saes import Transcoder, load_sae, load_transcoder, write_transcoder
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    BatchTopK,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TrainEvent,
    TrainPlan,
    train_sae,
    train_transcoder,
)

D_IN, D_OUT, FEATURES, N = 24, 20, 40, 8000
CASES = {
    "batch_topk": BatchTopK(k=3, k_aux=16, threshold_rate=0.05),
    "matryoshka": MatryoshkaBatchTopK(k=3, group_shares=(0.25, 1.0), threshold_rate=0.05),
    "jumprelu": JumpReLU(target_l0=3.0, bandwidth=0.05, initial_threshold=0.02),
    "relu_l1": ReluL1(l1=0.1, resample_at=(30,)),
}


def plan_for(objective: Objective, **changes: Any) -> TrainPlan:
    values: dict[str, Any] = {
        "d_in": D_IN, "d_out": D_OUT, "d_sae": 64, "objective": objective, "steps": 200,
        "batch_size": 256, "lr": 8e-3, "warmup_steps": 20, "sparsity_warmup": 0.3,
        "dead_after_tokens": 4000, "held_out": 512,
    }  # fmt: skip
    return TrainPlan(**values | changes)


def write(folder: Path, hook_point: str, rows: Tensor, key: str) -> ActivationStore:
    meta = ActivationMeta(
        hook_point=hook_point, d_in=rows.shape[1], key=key, model={"name": "planted"},
        rows_key="the same text",
    )  # fmt: skip
    writer = ActivationWriter(folder, meta)
    writer.append(rows, source="world")
    return writer.finish()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, ActivationStore]:
    """The same sparse features read along one set of directions and written along another."""
    g = torch.Generator().manual_seed(91)
    read = normalize(torch.randn(FEATURES, D_IN, generator=g), dim=1)
    written = normalize(torch.randn(FEATURES, D_OUT, generator=g), dim=1)
    on = torch.rand(N, FEATURES, generator=g) < 3 / FEATURES
    amounts = on * (1 + 0.3 * torch.rand(N, FEATURES, generator=g))
    folder = tmp_path_factory.mktemp("transcoder")
    x = 9 * (amounts @ read) + 4 * torch.randn(D_IN, generator=g)
    y = 0.3 * (amounts @ written) + 0.5 * torch.randn(D_OUT, generator=g)
    return (
        write(folder / "in", "blocks.1.hook_resid_mid", x, "in"),
        write(folder / "out", "blocks.1.hook_mlp_out", y, "out"),
    )


def explained(transcoder: Transcoder, x: Tensor, y: Tensor) -> float:
    error = (y - transcoder.decode(transcoder.encode(x))).square().sum()
    return 1 - float(error / (y - y.mean(0)).square().sum())


@pytest.mark.parametrize("name", CASES)
def test_a_transcoder_learns_the_map_and_survives_its_folder(stores, tmp_path, name):
    events: list[TrainEvent] = []
    trained = train_transcoder(
        plan_for(CASES[name]), *stores, name=name, progress=events.append,
    )  # fmt: skip
    rows = torch.arange(3000)
    x, y = (store.rows(rows) for store in stores)
    held_out = events[-1].held_out_explained_variance
    assert held_out is not None
    assert held_out > 0.5
    assert explained(trained, x, y) == pytest.approx(held_out, abs=0.03)
    norms = trained.tensors["W_dec"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)
    write_transcoder(trained, tmp_path / "t", dtype="float32")
    loaded = load_transcoder(tmp_path / "t")
    assert loaded.config.hook_point.name == "blocks.1.hook_resid_mid"
    assert loaded.config.hook_point_out.name == "blocks.1.hook_mlp_out"
    assert loaded.config == dataclasses.replace(trained.config, metadata=loaded.config.metadata)
    assert loaded.config.metadata["auditkit"] == trained.config.metadata["auditkit"]
    latents = loaded.encode(x)
    assert torch.equal(latents.to_dense(), trained.encode(x).to_dense())
    theirs = saelens().SAE.load_from_disk(tmp_path / "t")
    with torch.no_grad():
        dense = theirs.encode(x)
        torch.testing.assert_close(latents.to_dense(), dense, atol=2e-4, rtol=1e-5)
        torch.testing.assert_close(loaded.decode(latents), theirs.decode(dense), atol=2e-4, rtol=0)
    assert theirs.cfg.architecture() == trained.config.architecture.value
    assert theirs.cfg.metadata.hook_name_out == "blocks.1.hook_mlp_out"
    with pytest.raises(NotSupportedYet, match="transcoder"):
        load_sae(tmp_path / "t")


def saelens() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sae_lens")


def test_an_untrained_map_explains_less(stores):
    short = train_transcoder(plan_for(CASES["batch_topk"], steps=2), *stores, name="short")
    x, y = (store.rows(torch.arange(3000)) for store in stores)
    assert explained(short, x, y) < 0.2


class Killed(Exception):
    pass


def die_at(step: int) -> Callable[[TrainEvent], None]:
    def progress(event: TrainEvent) -> None:
        if event.step == step:
            raise Killed

    return progress


@pytest.mark.parametrize("name", ["batch_topk", "relu_l1"])
def test_a_killed_and_resumed_transcoder_ends_bit_equal(stores, tmp_path, name):
    plan = plan_for(CASES[name], steps=40, dead_after_tokens=1000)
    undisturbed = train_transcoder(plan, *stores, name="x")
    with pytest.raises(Killed):
        train_transcoder(
            plan,
            *stores,
            name="x",
            checkpoint_dir=tmp_path,
            checkpoint_every=6,
            progress=die_at(33),
        )
    resumed = train_transcoder(plan, *stores, name="x", checkpoint_dir=tmp_path)
    for tensor, value in undisturbed.tensors.items():
        assert torch.equal(value, resumed.tensors[tensor]), tensor


def test_plans_and_rows_that_do_not_belong_together_are_refused(stores):
    transcoder, sae = plan_for(CASES["relu_l1"]), plan_for(CASES["relu_l1"], d_out=None)
    with pytest.raises(MismatchError, match="d_out is 20, and there are no targets"):
        train_sae(transcoder, stores[0], name="x")
    with pytest.raises(MismatchError, match="d_out is None, and there are targets"):
        train_transcoder(sae, *stores, name="x")
    with pytest.raises(MismatchError, match="20 wide, the plan's d_in is 21"):
        train_transcoder(plan_for(CASES["relu_l1"], d_out=21), *stores, name="x")


@pytest.fixture
def folder(tmp_path: Path, stores: tuple[ActivationStore, ActivationStore]) -> Path:
    trained = train_transcoder(plan_for(CASES["jumprelu"], steps=2), *stores, name="x")
    write_transcoder(trained, tmp_path / "t")
    return tmp_path / "t"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"d_out": 21}, WeightsError, r"W_dec \[64, 20\]"),
        ({"apply_b_dec_to_input": True}, DocumentError, "apply_b_dec_to_input"),
        ({"surprise": 1}, DocumentError, "surprise"),
        ({"architecture": "skip_transcoder"}, DocumentError, "architecture"),
        ({"metadata": {"hook_name": "blocks.1.hook_resid_mid"}}, InvalidInput, "hook_name_out"),
    ],
)
def test_folders_that_cannot_be_read_rightly_are_refused(folder, change, error, message):
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        load_transcoder(folder)


def test_metadata_of_another_tool_under_our_key_is_kept(folder):
    path = folder / "cfg.json"
    cfg = json.loads(path.read_text())
    cfg["metadata"]["auditkit"] = 3
    path.write_text(json.dumps(cfg))
    assert load_transcoder(folder).config.metadata["auditkit"] == {"card": 3}


def test_activations_of_another_width_are_refused(folder):
    with pytest.raises(InvalidInput, match="reads activations of width 24, and these have 5"):
        load_transcoder(folder).encode(torch.zeros(2, 5))


def test_weights_that_are_not_finite_are_refused(folder):
    whole = load_transcoder(folder)
    tensors = {**whole.tensors, "b_dec": torch.full((D_OUT,), torch.nan)}
    with pytest.raises(WeightsError, match="b_dec holds NaN"):
        Transcoder(whole.config, tensors)
