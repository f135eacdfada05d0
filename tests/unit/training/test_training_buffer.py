"""Where rows wait for their batch changes no bit of any batch, and the choice is stated."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.training import (
    ActivationMeta,
    ActivationStore,
    ActivationWriter,
    BufferPlan,
    TopK,
    TrainPlan,
    train_sae,
)
from auditkit.training.activations import buffer
from auditkit.training.activations.batches import PairedBatches, ShuffledBatches, split_rows
from auditkit.training.activations.buffer import choose_buffer, free_memory
from auditkit.training.distributed.mesh import ALONE, Mesh, processes_here

GIGABYTE = 1_000_000_000


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(
    folder, rows: torch.Tensor, *, hook_point: str = "blocks.1.hook_mlp_out", text: str = "text"
) -> ActivationStore:
    meta = ActivationMeta(
        hook_point=hook_point,
        d_in=rows.shape[1],
        key=hook_point,
        model={"name": "tiny"},
        rows_key=text,
    )
    writer = ActivationWriter(folder, meta, shard_rows=37)
    writer.append(rows, source="books")
    return writer.finish()


def random_rows(n: int, d_in: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def much_memory(monkeypatch):
    monkeypatch.setattr(buffer, "free_memory", lambda: 100 * GIGABYTE)


@pytest.mark.usefixtures("much_memory")
def test_rows_within_the_budget_go_to_memory_and_others_to_disk():
    plan = BufferPlan(memory_bytes=GIGABYTE)
    assert choose_buffer(plan, needed_bytes=GIGABYTE, where="x").place == "memory"
    assert choose_buffer(plan, needed_bytes=GIGABYTE + 1, where="x").place == "disk"


def test_rows_that_would_take_over_half_of_what_is_free_go_to_disk(monkeypatch):
    monkeypatch.setattr(buffer, "free_memory", lambda: 2 * GIGABYTE)
    assert choose_buffer(BufferPlan(), needed_bytes=GIGABYTE, where="x").place == "memory"
    assert choose_buffer(BufferPlan(), needed_bytes=GIGABYTE + 1, where="x").place == "disk"


def test_an_unknown_amount_of_free_memory_leaves_the_budget_to_decide(monkeypatch, tmp_path):
    monkeypatch.setattr(buffer, "_MEMORY_INFO", tmp_path / "nowhere")
    assert free_memory() is None
    chosen = choose_buffer(BufferPlan(), needed_bytes=GIGABYTE, where="x")
    assert chosen.place == "memory"
    assert "free" not in chosen.describe()


def test_what_is_free_is_read_in_bytes(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 10 kB\nMemAvailable:    7 kB\n")
    monkeypatch.setattr(buffer, "_MEMORY_INFO", tmp_path / "meminfo")
    assert free_memory() == 7 * 1024


@pytest.mark.usefixtures("much_memory")
def test_the_budget_is_for_all_processes_of_the_machine(tmp_path, monkeypatch):
    store = write(tmp_path, random_rows(50))
    plan = BufferPlan(memory_bytes=3 * store.nbytes)
    for processes, place in ((3, "memory"), (4, "disk")):
        batches = ShuffledBatches(
            store, np.arange(50), batch_size=5, seed=0, buffer=plan, processes=processes
        )
        assert batches.buffer.place == place
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert processes_here(Mesh(rank=0, data=4, latents=2)) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert processes_here(Mesh(rank=0, data=4, latents=2)) == 2
    assert processes_here(ALONE) == 1


@pytest.mark.usefixtures("much_memory")
def test_what_is_asked_for_is_taken_unless_the_budget_forbids_it():
    disk = BufferPlan(place="disk")
    assert choose_buffer(disk, needed_bytes=1, where="x").place == "disk"
    memory = BufferPlan(place="memory", memory_bytes=10)
    assert choose_buffer(memory, needed_bytes=10, where="x").place == "memory"
    with pytest.raises(InvalidInput, match="rows do not fit the memory budget"):
        choose_buffer(memory, needed_bytes=11, where="x")


@pytest.mark.usefixtures("much_memory")
def test_the_choice_says_what_it_rests_on():
    chosen = choose_buffer(BufferPlan(), needed_bytes=2_500_000_000, where="x")
    assert chosen.describe() == (
        "activation buffer: memory (2.50 GB of rows, budget 8.00 GB, 100.00 GB free)"
    )


def test_a_negative_budget_is_refused():
    with pytest.raises(InvalidInput, match="memory_bytes is -1"):
        BufferPlan(memory_bytes=-1)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(8, 200),
    batch=st.integers(1, 8),
    budget=st.integers(0, 400),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_batches_are_the_same_to_the_bit_from_memory_and_from_disk(
    tmp_path_factory, rows, batch, budget, seed, data
):
    store = write(tmp_path_factory.mktemp("rows"), random_rows(rows))
    size = data.draw(st.integers(batch, rows))
    indices = np.sort(np.random.default_rng(seed).permutation(rows)[:size])
    resident, windowed = (
        ShuffledBatches(store, indices, batch_size=batch, seed=seed, buffer=plan)
        for plan in (BufferPlan(place="memory"), BufferPlan(place="disk", memory_bytes=budget))
    )
    assert (resident.buffer.place, windowed.buffer.place) == ("memory", "disk")
    for step in data.draw(st.lists(st.integers(0, 3 * resident.per_epoch), max_size=12)):
        assert torch.equal(resident.batch(step), windowed.batch(step))


PLAN = TrainPlan(
    d_in=8, d_sae=16, objective=TopK(k=2, k_aux=4), steps=12, batch_size=32, held_out=32
)


def test_training_from_disk_and_from_memory_ends_bit_equal_and_the_log_names_the_place(tmp_path):
    store = write(tmp_path / "rows", random_rows(500, d_in=8))
    trained = {
        place: train_sae(
            PLAN,
            store,
            name="x",
            checkpoint_dir=tmp_path / place,
            buffer=BufferPlan(place=place, memory_bytes=8000),
        )
        for place in ("memory", "disk")
    }
    for name, tensor in trained["memory"].tensors.items():
        assert torch.equal(tensor, trained["disk"].tensors[name])
    for place in ("memory", "disk"):
        lines = (tmp_path / place / "log.jsonl").read_text().splitlines()
        start = json.loads(lines[0])
        rows = start["rows"]
        assert start == {
            "event": "start", "step": 0, "steps": 12, "rows": rows, "held_out": 32,
            "buffer": place, "needed_bytes": rows * 8 * 2, "memory_bytes": 8000,
        }  # fmt: skip


def test_the_log_holds_the_live_measures_of_each_step(tmp_path):
    store = write(tmp_path / "rows", random_rows(500, d_in=8))
    train_sae(PLAN, store, name="x", checkpoint_dir=tmp_path / "run", log_every=4)
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == [4, 8, 12]
    for line in steps:
        assert line["explained_variance"] < 1
        assert 0 < line["l0"] <= 2
        assert line["dead"] == 0
        assert line["tokens_per_second"] > 0
        left = (12 - line["step"]) * 32 / line["tokens_per_second"]
        assert line["seconds_left"] == pytest.approx(left)


@pytest.fixture
def pair(tmp_path):
    """What an MLP reads and writes: the target's first number says which row it belongs to."""
    inputs = random_rows(120)
    inputs[:, 0] = torch.arange(120.0)
    targets = random_rows(120, d_in=3, seed=1)
    targets[:, 0] = torch.arange(120.0)
    return (
        write(tmp_path / "in", inputs, hook_point="blocks.1.hook_resid_mid"),
        write(tmp_path / "out", targets),
    )


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_each_row_of_a_transcoder_batch_stands_beside_its_own_target(pair, place):
    batches = PairedBatches(
        *pair, np.arange(0, 120, 2), batch_size=8, seed=2, buffer=BufferPlan(place=place)
    )
    assert batches.buffer.place == place
    assert batches.buffer.needed_bytes == 60 * (4 + 3) * 2
    seen: list[float] = []
    for step in range(batches.per_epoch):
        x, y = batches.batch(step)
        assert torch.equal(x[:, 0], y[:, 0])
        seen += x[:, 0].tolist()
    assert len(set(seen)) == len(seen) == 56


def test_targets_of_other_tokens_are_refused(pair, tmp_path):
    other = write(tmp_path / "other", random_rows(120, d_in=3), text="another text")
    with pytest.raises(MismatchError, match="not of the same tokens"):
        PairedBatches(pair[0], other, np.arange(60), batch_size=8, seed=0)


def test_tokens_whose_target_is_huge_are_left_out_of_training_and_held_out_rows(tmp_path):
    inputs, targets = random_rows(200), random_rows(200, d_in=3, seed=1)
    inputs[11] *= 1000
    targets[77] *= 1000
    stores = (
        write(tmp_path / "in", inputs, hook_point="blocks.1.hook_resid_mid"),
        write(tmp_path / "out", targets),
    )
    split = split_rows(stores[0], held_out=32, high_norm_factor=10.0, targets=stores[1])
    assert split.high_norm == 2
    assert not {11, 77} & (set(split.train) | set(split.held_out))
