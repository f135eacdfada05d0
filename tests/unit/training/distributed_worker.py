"""The ranks of a test's meshes: `python distributed_worker.py FOLDER` does each job of FOLDER's
jobs.json with as many processes as it asks for, and rank 0 writes what came of it.

Libraries are imported once, and the ranks forked: no thread runs before they are.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from auditkit.core.errors import AuditkitError
from auditkit.saes import SparseAutoencoder, write_sae
from auditkit.training import ActivationStore, TopK, TrainEvent, TrainPlan, train_sae
from auditkit.training.distributed.mesh import Mesh, join_processes
from auditkit.training.distributed.state import gather_state, shard_state
from auditkit.training.distributed.step import DistributedStep
from auditkit.training.parameters import SaeParameters, TrainState

D_IN, D_SAE, BATCH, STEPS = 12, 48, 64, 52


def plan(**changes: Any) -> TrainPlan:
    """AuxK is busy: latents count as dead after two batches, and more are dead than it takes."""
    values: dict[str, Any] = {
        "d_in": D_IN, "d_sae": D_SAE, "objective": TopK(k=4, k_aux=6), "steps": STEPS,
        "batch_size": BATCH, "lr": 3e-3, "warmup_steps": 5, "dead_after_tokens": 128,
        "held_out": 64,
    }  # fmt: skip
    return TrainPlan(**values | changes)


def state_of(tensors: dict[str, torch.Tensor]) -> TrainState:
    parameters = SaeParameters.from_named({name: t.clone() for name, t in tensors.items()})
    return TrainState(
        parameters=parameters,
        first_moments=parameters.zeros_like(),
        second_moments=parameters.zeros_like(),
        silent_tokens=torch.zeros(parameters.d_sae, dtype=torch.int64),
        scale=1.0,
    )


def take_steps(folder: Path, name: str, job: dict[str, Any], mesh: Mesh) -> None:
    """The plan's steps in float64 on batches.safetensors."""
    batches = load_file(folder / "batches.safetensors")["x"]
    state = shard_state(state_of(load_file(folder / "start.safetensors")), mesh)
    step = DistributedStep(plan(), mesh)
    reports = [step(state, x[mesh.share_of_batch(len(x))]) for x in batches]
    whole = gather_state(state, mesh)
    if whole is None:
        return
    out = {**whole.parameters.named(), "silent_tokens": whole.silent_tokens}
    save_file({n: t.contiguous() for n, t in out.items()}, folder / f"{name}.end")
    lines = [[r.squared_error, r.squared_deviation, r.active, r.dead, r.aux_loss] for r in reports]
    (folder / f"{name}.json").write_text(json.dumps(lines))


def train(folder: Path, name: str, job: dict[str, Any], mesh: Mesh) -> None:
    """A whole training run; rank `dies_on` is gone after so many steps, and with `apart` ranks
    other than 0 see no checkpoint."""

    def watch(event: TrainEvent) -> None:
        if mesh.rank == job.get("dies_on") and event.step == 15:
            os._exit(9)

    checkpoint = job.get("checkpoint", f"{name}.checkpoint")
    if job.get("apart") and mesh.rank:
        checkpoint = f"elsewhere-{mesh.rank}"
    sae: SparseAutoencoder = train_sae(
        plan(),
        ActivationStore(folder / "activations"),
        name="together",
        checkpoint_dir=folder / checkpoint,
        checkpoint_every=10,
        evaluate_every=20,
        progress=watch,
        mesh=mesh,
    )
    if mesh.rank == 0:
        write_sae(sae, folder / f"{name}.sae", dtype="float32")


JOBS: dict[str, Callable[[Path, str, dict[str, Any], Mesh], None]] = {
    "steps": take_steps,
    "train": train,
}


def run_rank(folder: Path, name: str, job: dict[str, Any], rank: int) -> int:
    """One rank of a job; its exit code."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(job["ranks"]), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        with join_processes(
            latent_shards=job["latents"], init_method=f"file://{folder / name}.meeting"
        ) as mesh:
            JOBS[job["kind"]](folder, name, job, mesh)
    except AuditkitError as error:
        (folder / f"{name}.error-{rank}").write_text(str(error))
        return int(error.exit_code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, job in json.loads((folder / "jobs.json").read_text()).items():
        ranks: list[int] = []
        for rank in range(job["ranks"]):
            child = os.fork()
            if child == 0:
                os._exit(run_rank(folder, name, job, rank))
            ranks.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]
        (folder / f"{name}.codes").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
