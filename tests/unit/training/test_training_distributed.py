"""Training on several processes: the parameters of one process, whoever holds what."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.training import ActivationMeta, ActivationStore, ActivationWriter, train_sae
from auditkit.training.auxk import auxk_gradients
from auditkit.training.distributed.auxk import distributed_auxk
from auditkit.training.distributed.mesh import ALONE, Mesh, join_processes
from auditkit.training.distributed.state import gather_state, shard_state
from auditkit.training.distributed.step import DistributedStep
from auditkit.training.distributed.sums import among_largest, spread_over_data
from auditkit.training.initialise import initial_state
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import TrainPlan
from auditkit.training.sparse_step import TorchStep
from tests.unit.training import distributed_worker
from tests.unit.training.distributed_worker import BATCH, D_IN, D_SAE, STEPS, plan

TIMEOUT = 280
JOBS: dict[str, dict[str, object]] = {
    "data": {"kind": "steps", "ranks": 4, "latents": 1},
    "latents": {"kind": "steps", "ranks": 4, "latents": 4},
    "both": {"kind": "steps", "ranks": 4, "latents": 2},
    "two-data": {"kind": "train", "ranks": 2, "latents": 1},
    "two-latents": {"kind": "train", "ranks": 2, "latents": 2},
    "killed": {
        "kind": "train", "ranks": 2, "latents": 1, "dies_on": 1, "checkpoint": "stopped.checkpoint"
    },
    "apart": {
        "kind": "train", "ranks": 2, "latents": 1, "apart": True, "checkpoint": "stopped.checkpoint"
    },
    "resumed": {"kind": "train", "ranks": 2, "latents": 2, "checkpoint": "stopped.checkpoint"},
}  # fmt: skip
WORKER = Path(distributed_worker.__file__)


def batches() -> Tensor:
    """Sparse sums of planted directions around a mean, in float64."""
    g = torch.Generator().manual_seed(2)
    directions = normalize(torch.randn(30, D_IN, generator=g), dim=1)
    codes = torch.rand(STEPS, BATCH, 30, generator=g) * (
        torch.rand(STEPS, BATCH, 30, generator=g) < 0.1
    )
    return (codes @ directions + 0.3 * torch.randn(D_IN, generator=g)).double()


def double(state: TrainState) -> TrainState:
    groups = {
        name: type(group)(**{n: t.double() for n, t in group.named().items()})
        for name in ("parameters", "first_moments", "second_moments")
        for group in [getattr(state, name)]
    }
    return dataclasses.replace(state, **groups)


def start(x: Tensor) -> TrainState:
    return double(initial_state(plan(), x.flatten(0, 1).float()))


@pytest.fixture(scope="module")
def reference() -> tuple[TrainState, list[StepReport]]:
    """One process, in float64."""
    x = batches()
    state, step = start(x), TorchStep(plan())
    return state, [step(state, rows) for rows in x]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every mesh of the module came to."""
    folder = tmp_path_factory.mktemp("mesh")
    x = batches()
    save_file({"x": x}, folder / "batches.safetensors")
    save_file(start(x).parameters.named(), folder / "start.safetensors")
    harvested(folder / "activations", x)
    (folder / "jobs.json").write_text(json.dumps(JOBS))
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in JOBS:
        codes = json.loads((folder / f"{name}.codes").read_text())
        assert name in ("killed", "apart") or not any(codes), f"{name}: {codes}\n{done.stderr}"
    return folder


def harvested(folder: Path, x: Tensor) -> ActivationStore:
    meta = ActivationMeta(
        hook_point="blocks.1.hook_resid_post", d_in=D_IN, key="world", model={"name": "planted"}
    )
    writer = ActivationWriter(folder, meta)
    writer.append(x.flatten(0, 1).float(), source="world")
    return writer.finish()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("job", ["data", "latents", "both"])
def test_four_ranks_take_the_steps_of_one(
    together: Path, reference: tuple[TrainState, list[StepReport]], job: str
) -> None:
    state, reports = reference
    found = load_file(together / f"{job}.end")
    for name, tensor in state.parameters.named().items():
        torch.testing.assert_close(found[name], tensor, atol=1e-9, rtol=1e-7, msg=name)
    assert found["silent_tokens"].equal(state.silent_tokens)
    lines = json.loads((together / f"{job}.json").read_text())
    assert any(report.aux_loss is not None for report in reports), "AuxK was never busy"
    assert max(report.dead for report in reports) > 6, "AuxK never had to choose"
    for line, report in zip(lines, reports, strict=True):
        expected = [report.squared_error, report.squared_deviation, report.active, report.dead]
        assert line[:4] == pytest.approx(expected, rel=1e-9)
        if report.aux_loss is None:
            assert line[4] is None
        else:
            assert line[4] == pytest.approx(report.aux_loss, rel=1e-6)


@pytest.fixture(scope="module")
def alone(together: Path) -> SparseAutoencoder:
    """The run that two ranks did, in one process."""
    return train_sae(
        plan(), ActivationStore(together / "activations"), name="alone", kernel="torch"
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("job", ["two-data", "two-latents", "resumed"])
def test_two_processes_end_where_one_ends(
    together: Path, alone: SparseAutoencoder, job: str
) -> None:
    sae = load_sae(together / f"{job}.sae")
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(sae.tensors[name], tensor, atol=1e-4, rtol=0, msg=name)
    ours, theirs = (
        s.config.metadata["auditkit"]["training"]["held_out_explained_variance"]
        for s in (sae, alone)
    )
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.timeout(300)
def test_rank_0_alone_writes_checkpoint_and_log(together: Path) -> None:
    folder = together / "two-latents.checkpoint"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    stored = load_file(folder / "checkpoint.safetensors")
    assert stored["parameters.W_dec"].shape == (D_SAE, D_IN)
    log = (folder / "log.jsonl").read_text()
    steps = [json.loads(line).get("step") for line in log.splitlines()]
    assert steps[-1] == STEPS


@pytest.mark.timeout(300)
def test_a_killed_rank_ends_the_run_and_the_checkpoint_goes_on(together: Path) -> None:
    codes = json.loads((together / "killed.codes").read_text())
    assert codes == [5, 9]
    said = (together / "killed.error-0").read_text()
    assert "rank 0 of 2 lost another rank, which was killed or failed" in said
    assert "goes on from the last checkpoint" in said
    log = (together / "stopped.checkpoint" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines() if '"loss"' in line][-1] == STEPS


def test_ranks_that_do_not_see_one_checkpoint_end_the_run(together: Path) -> None:
    assert json.loads((together / "apart.codes").read_text()) == [5, 5]
    said = (together / "apart.error-1").read_text()
    assert "rank 1 of 2 begins at step 0, others at 0 to " in said


def test_alone_the_distributed_step_is_the_sparse_step(
    reference: tuple[TrainState, list[StepReport]],
) -> None:
    x = batches()
    state, step = start(x), DistributedStep(plan(), ALONE)
    for rows in x:
        step(state, rows)
    for name, tensor in reference[0].parameters.named().items():
        torch.testing.assert_close(
            state.parameters.named()[name], tensor, atol=1e-10, rtol=1e-8, msg=name
        )


def test_a_frozen_decoder_stays_as_it_was() -> None:
    x = batches()
    state, step = start(x), DistributedStep(plan(frozen_decoder=True), ALONE)
    before = state.parameters.W_dec.clone()
    for rows in x[:5]:
        step(state, rows)
    assert state.parameters.W_dec.equal(before)


def test_auxk_alone_is_auxk() -> None:
    x = batches()
    p = start(x).parameters
    centred = x[0] - p.b_dec
    pre_acts = centred @ p.W_enc_rows.T + p.b_enc
    error = 0.3 * centred
    dead = torch.arange(D_SAE) % 3 == 0
    flags = {"k_aux": 5, "aux_coefficient": 0.5}
    latents = dead.nonzero().squeeze(1)
    one = auxk_gradients(p, pre_acts.clone(), centred, error, latents, **flags)
    two = distributed_auxk(p, pre_acts, centred, error.clone(), dead, mesh=ALONE, **flags)
    assert two.gradients is not None
    assert two.dead == len(latents)
    assert two.loss == pytest.approx(one.loss)
    for name in ("W_enc_rows", "W_dec", "b_enc"):
        torch.testing.assert_close(getattr(two.gradients, name), getattr(one, name))


def test_states_are_cut_and_put_together_again() -> None:
    state = start(batches())
    half = shard_state(state, Mesh(rank=1, data=1, latents=2))
    assert half.parameters.W_dec.equal(state.parameters.W_dec[D_SAE // 2 :])
    assert half.silent_tokens.shape == (D_SAE // 2,)
    assert half.parameters.b_dec.equal(state.parameters.b_dec)
    assert gather_state(state, ALONE) is state


def test_shares_are_disjoint_and_whole() -> None:
    ranks = [Mesh(rank=r, data=2, latents=3) for r in range(6)]
    cells = {(i, j) for m in ranks for i in range(*m.share_of_batch(4).indices(4))
             for j in range(*m.share_of_latents(6).indices(6))}  # fmt: skip
    assert len(cells) == 24


def test_what_cannot_be_shared_out_evenly_is_refused() -> None:
    mesh = Mesh(rank=0, data=3, latents=5)
    with pytest.raises(InvalidInput, match="batch_size 64 cannot be shared out evenly among 3"):
        mesh.share_of_batch(64)
    with pytest.raises(InvalidInput, match="d_sae 48 cannot be shared out evenly among 5 ranks"):
        mesh.share_of_latents(48)


def test_shards_that_do_not_divide_the_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    for shards in (0, 3):
        with (
            pytest.raises(InvalidInput, match=f"sharded {shards} ways over 4"),
            join_processes(latent_shards=shards),
        ):
            pass


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes() as mesh:
        assert mesh == ALONE
        assert not mesh.any(False)
        mesh.wait_for_all()
        mesh.require_equal(1.0, "nothing")


def test_sums_of_one_process_are_its_own() -> None:
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) + 100
    exact = x.double()
    expected = float((exact - exact.mean(0)).square().sum())
    assert spread_over_data(x, ALONE) == pytest.approx(expected)
    assert among_largest(x, 3, ALONE).all()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An objective that is not TopK, and trains nothing."""

    name: str = "other"

    def check(self, plan: TrainPlan) -> None:
        del plan

    def complete(self, plan: TrainPlan, parameters: SaeParameters) -> Any:
        raise AssertionError("nothing is trained")

    def make_step(self, plan: TrainPlan, kernel: str) -> Any:
        raise AssertionError("nothing is trained")

    def penalty(self, report: StepReport) -> float:
        raise AssertionError("nothing is trained")

    def reconstruct(self, state: TrainState, x: Tensor) -> Any:
        raise AssertionError("nothing is trained")

    def fold(self, state: TrainState) -> Any:
        raise AssertionError("nothing is trained")


def test_what_is_not_sharded_is_refused() -> None:
    mesh = Mesh(rank=0, data=2, latents=1)
    with pytest.raises(NotSupportedYet, match="the objective other is not trained on several"):
        DistributedStep(plan(objective=Other()), mesh)
