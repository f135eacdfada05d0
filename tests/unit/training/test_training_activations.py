"""Activations on disk: what is written is read, and what is broken is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from auditkit.core.errors import (
    InvalidInput,
    MismatchError,
    NonFiniteActivations,
    WeightsError,
)
from auditkit.training import ActivationMeta, ActivationStore, ActivationWriter, BufferPlan
from auditkit.training.activations.batches import ShuffledBatches, split_rows

META = ActivationMeta(
    hook_point="blocks.1.hook_resid_post", d_in=6, key="one", model={"name": "tiny"}
)

DISK = BufferPlan(place="disk")


def random_rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).half().float()


def write(folder, *parts: torch.Tensor, shard_rows: int = 10) -> ActivationStore:
    writer = ActivationWriter(folder, META, shard_rows=shard_rows)
    for part in parts:
        writer.append(part, source="books")
    return writer.finish()


def test_rows_come_back_in_the_order_asked_across_shards(tmp_path):
    rows = random_rows(37)
    store = write(tmp_path, rows[:4], rows[4:31], rows[31:])
    assert [s.rows for s in store.meta.shards] == [10, 10, 10, 7]
    picked = torch.tensor([36, 0, 9, 10, 10, 35, 20])
    assert torch.equal(store.rows(picked), rows[picked])
    assert store.meta.complete
    assert store.meta.documents == 3
    assert [(s.name, s.tokens) for s in store.meta.sources] == [("books", 37)]


def test_the_reference_norm_is_the_median_norm(tmp_path):
    rows = random_rows(201)
    store = write(tmp_path, rows)
    assert store.meta.reference_norm == pytest.approx(float(rows.norm(dim=1).median()), rel=1e-3)


def test_a_killed_writer_goes_on_after_its_last_commit(tmp_path):
    rows = random_rows(48)
    killed = ActivationWriter(tmp_path / "a", META, shard_rows=10)
    killed.append(rows[:13], source="books")
    killed.commit()
    killed.append(rows[13:29], source="books")
    del killed  # rows 13 to 28 were written but never committed
    resumed = ActivationWriter(tmp_path / "a", META, shard_rows=10)
    assert resumed.documents == 1
    assert resumed.rows == 13
    resumed.append(rows[13:29], source="books")
    resumed.append(rows[29:], source="books")
    resumed.finish()
    write(tmp_path / "b", rows[:13], rows[13:29], rows[29:])
    for name in sorted(p.name for p in (tmp_path / "b").iterdir()):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_another_harvests_folder_is_refused(tmp_path):
    write(tmp_path, random_rows(5))
    other = ActivationMeta(hook_point=META.hook_point, d_in=6, key="two", model={})
    with pytest.raises(MismatchError, match="another harvest"):
        ActivationWriter(tmp_path, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_rows_that_float16_cannot_hold_are_refused(tmp_path, bad):
    rows = random_rows(5)
    rows[3, 2] = bad
    with pytest.raises(NonFiniteActivations, match=r"row 3 \(of source 'books'\)"):
        write(tmp_path, rows)


def test_rows_of_another_width_are_refused(tmp_path):
    writer = ActivationWriter(tmp_path, META)
    with pytest.raises(MismatchError, match="rows are 6 wide, not 7"):
        writer.append(torch.zeros(2, 7), source="books")


def test_a_truncated_shard_is_refused(tmp_path):
    write(tmp_path, random_rows(15))
    shard = tmp_path / "acts-00001.f16"
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(WeightsError, match=r"acts-00001.f16: truncated, 57 bytes of 60"):
        ActivationStore(tmp_path)


def test_a_writer_does_not_fill_up_a_truncated_shard_with_zeros(tmp_path):
    write(tmp_path, random_rows(15))
    shard = tmp_path / "acts-00001.f16"
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(WeightsError, match=r"acts-00001.f16: truncated, 57 bytes of 60"):
        ActivationWriter(tmp_path, META, shard_rows=10)


def test_a_missing_shard_is_refused(tmp_path):
    write(tmp_path, random_rows(15))
    (tmp_path / "acts-00000.f16").unlink()
    with pytest.raises(WeightsError, match=r"acts-00000.f16: truncated, 0 bytes"):
        ActivationStore(tmp_path)


def test_a_folder_without_meta_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"no meta\.json"):
        ActivationStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "auditkit-activations/9"}, "auditkit-activations/9"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"shards": [{"file": "a"}]}, "incomplete"),
    ],
)
def test_a_meta_of_another_format_is_refused(tmp_path, change, message):
    write(tmp_path, random_rows(3))
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidInput, match=message):
        ActivationStore(tmp_path)


def test_a_meta_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "meta.json").write_text('{"format": ')
    with pytest.raises(InvalidInput, match="not JSON"):
        ActivationStore(tmp_path)
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(InvalidInput, match="not an object"):
        ActivationStore(tmp_path)


def test_rows_beyond_the_end_are_refused(tmp_path):
    store = write(tmp_path, random_rows(3))
    with pytest.raises(IndexError, match="0 to 2"):
        store.rows(torch.tensor([3]))


def test_held_out_and_training_rows_are_apart_and_high_norms_in_neither(tmp_path):
    rows = random_rows(400)
    rows[[5, 77]] *= 500
    store = write(tmp_path, rows, shard_rows=150)
    split = split_rows(store, held_out=64, high_norm_factor=10.0)
    assert split.high_norm == 2
    assert not set(split.train) & set(split.held_out)
    assert not {5, 77} & (set(split.train) | set(split.held_out))
    assert 60 <= len(split.held_out) <= 64
    runs = np.flatnonzero(np.diff(split.held_out) > 1)
    assert len(runs) >= 8


def test_stored_nan_is_found_before_training(tmp_path):
    write(tmp_path, random_rows(30), shard_rows=30)
    shard = tmp_path / "acts-00000.f16"
    raw = np.fromfile(shard, dtype=np.float16)
    raw[6 * 11 + 2] = np.nan
    raw.tofile(shard)
    with pytest.raises(NonFiniteActivations, match="row 11"):
        split_rows(ActivationStore(tmp_path), held_out=4, high_norm_factor=10.0)


def test_holding_out_more_than_half_is_refused(tmp_path):
    store = write(tmp_path, random_rows(30))
    with pytest.raises(InvalidInput, match="16 rows to hold out of 30"):
        split_rows(store, held_out=16, high_norm_factor=10.0)


def test_all_zero_activations_are_refused(tmp_path):
    store = write(tmp_path, torch.zeros(30, 6))
    with pytest.raises(InvalidInput, match="half of the activations are zero"):
        split_rows(store, held_out=4, high_norm_factor=10.0)


def test_an_epoch_sees_every_row_once_and_epochs_differ(tmp_path):
    rows = torch.arange(60.0).repeat(6, 1).T.contiguous()
    store = write(tmp_path, rows, shard_rows=25)
    batches = ShuffledBatches(store, np.arange(60), batch_size=12, seed=3)
    assert batches.per_epoch == 5
    first = torch.cat([batches.batch(i)[:, 0] for i in range(5)])
    second = torch.cat([batches.batch(i)[:, 0] for i in range(5, 10)])
    assert sorted(first.tolist()) == list(range(60))
    assert sorted(second.tolist()) == list(range(60))
    assert first.tolist() != second.tolist()


def test_batches_from_memory_from_disk_and_from_the_middle_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("auditkit.training.activations.batches._WINDOW_ROWS", 24)
    store = write(tmp_path, random_rows(100), shard_rows=25)
    indices = np.arange(0, 100, 2)
    memory = BufferPlan(place="memory")
    resident = ShuffledBatches(store, indices, batch_size=8, seed=1, buffer=memory)
    windowed = ShuffledBatches(store, indices, batch_size=8, seed=1, buffer=DISK)
    expected = [resident.batch(i) for i in range(14)]
    for i, batch in enumerate(expected):
        assert torch.equal(windowed.batch(i), batch)
    late = ShuffledBatches(store, indices, batch_size=8, seed=1, buffer=DISK)
    assert torch.equal(late.batch(11), expected[11])


def test_fewer_rows_than_a_batch_are_refused(tmp_path):
    store = write(tmp_path, random_rows(9))
    with pytest.raises(InvalidInput, match="fewer than one batch of 10"):
        ShuffledBatches(store, np.arange(9), batch_size=10, seed=0)
