"""One training step in one process and in two: work, memory and traffic beside the cost model.

    python benchmarks/distributed_step.py [--widths 512,1024,2048,4096] [--d-in 576] [--k 32]
                                          [--batch 512] [--steps 9] [--json FILE]

Per width: one process with one thread, and two ranks of one thread each, data parallel and with the
latents sharded, over gloo on this machine; widths in the outer loop, so that what else the machine
does falls on all layouts alike. Times are medians over `--steps` steps after two of warm-up, with
quartiles: the processor time of rank 0, which other programs disturb little, and the time on the
wall, which they stretch at will (the load average is noted beside every row). Memory is the growth
of a rank's peak resident size from before the state was made.

The cost model (docs/distributed.md) predicts memory and traffic from the sizes alone. A rank's
processor time it predicts from one process at the same width: half of it with the latents sharded;
with data parallelism half of all but Adam's update, which every rank does in full.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from auditkit.training import TopK, TrainPlan, join_processes
from auditkit.training.adam import adam_update
from auditkit.training.distributed.state import shard_state
from auditkit.training.distributed.step import DistributedStep
from auditkit.training.initialise import initial_state
from auditkit.training.sparse_step import TorchStep

WARM_UP = 2
LAYOUTS = {"one process": (1, 1), "data parallel": (2, 1), "latents sharded": (1, 2)}
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a step's cost depends on; `data` × `latents` ranks."""

    d_in: int
    d_sae: int
    k: int
    batch: int
    data: int
    latents: int

    @property
    def rows(self) -> int:
        return self.d_sae // self.latents

    @property
    def matrix(self) -> int:
        """Bytes of one of a rank's two weight matrices in float32."""
        return 4 * self.rows * self.d_in

    def memory(self) -> int:
        """Bytes per rank at the peak: weights and two moments (6 matrices), gradients (2),
        what Adam holds for one matrix at a time (1), and the pre-activations."""
        return 9 * self.matrix + 4 * (self.batch // self.data) * self.rows + 8 * self.rows

    def traffic(self) -> int:
        """Bytes that a rank puts into collectives per step."""
        tokens = self.batch // self.data
        gradients = 2 * self.matrix + 8 * self.rows if self.data > 1 else 0
        row = 4 * tokens * (self.d_in + min(self.k, self.rows)) if self.latents > 1 else 0
        return gradients + row + 4 * self.d_in * (self.data * self.latents > 1)


def sizes_of(arguments: argparse.Namespace, d_sae: int, layout: str) -> Sizes:
    data, latents = LAYOUTS[layout]
    return Sizes(
        d_in=arguments.d_in, d_sae=d_sae, k=arguments.k, batch=arguments.batch, data=data,
        latents=latents,
    )  # fmt: skip


def run_rank(values: dict[str, Any]) -> dict[str, Any]:
    """What each rank does and measures."""
    s = Sizes(**values["sizes"])
    plan = TrainPlan(
        d_in=s.d_in, d_sae=s.d_sae, objective=TopK(k=s.k), steps=1000, batch_size=s.batch
    )
    with join_processes(latent_shards=s.latents, init_method=values["meeting"]) as mesh:
        x = torch.randn(s.batch, s.d_in, generator=torch.Generator().manual_seed(0))
        share = x[mesh.share_of_batch(s.batch)].clone()
        before = _peak()
        state = shard_state(initial_state(plan, x), mesh)
        step = TorchStep(plan) if mesh.size == 1 else DistributedStep(plan, mesh)
        found: dict[str, Any] = {"cpu": [], "wall": [], "adam": []}
        for _ in range(WARM_UP + values["steps"]):
            mesh.wait_for_all()
            _timed(found, lambda: step(state, share))
        found["bytes"] = _peak() - before
        gradients = state.parameters.zeros_like()
        for _ in range(WARM_UP + values["steps"]):
            began = time.process_time()
            adam_update(state, gradients, plan)
            found["adam"].append(1000 * (time.process_time() - began))
        found["rate"] = _all_reduce_rate(mesh) if mesh.size > 1 else None
    return found


def _timed(found: dict[str, Any], work: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    found["cpu"].append(1000 * (time.process_time() - cpu))
    found["wall"].append(1000 * (time.perf_counter() - wall))


def _all_reduce_rate(mesh: Any) -> float:
    """Bytes per second that an all-reduce of 64 MB takes in, the median of five."""
    buffer = torch.zeros(16 * MIB)
    seconds: list[float] = []
    for _ in range(6):
        mesh.wait_for_all()
        began = time.perf_counter()
        mesh.sum_over_all(buffer)
        seconds.append(time.perf_counter() - began)
    return buffer.numel() * 4 / statistics.median(seconds[1:])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(sizes: Sizes, steps: int) -> dict[str, Any]:
    """Fork the ranks, and return what rank 0 found; no thread runs here that they would miss."""
    size = sizes.data * sizes.latents
    with tempfile.TemporaryDirectory() as folder:
        values = {"sizes": asdict(sizes), "steps": steps, "meeting": f"file://{folder}/meeting"}
        ranks: list[int] = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
                try:
                    found = run_rank(values)
                    if rank == 0:
                        Path(folder, "found.json").write_text(json.dumps(found))
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            ranks.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        if any(codes):
            raise SystemExit(f"a rank failed: {codes}")
        return json.loads(Path(folder, "found.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="512,1024,2048,4096")
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rows: list[dict[str, Any]] = []
    for width in map(int, arguments.widths.split(",")):
        alone = adam = 0.0
        for layout in LAYOUTS:
            sizes = sizes_of(arguments, width, layout)
            load = os.getloadavg()[0]
            found = measure(sizes, arguments.steps)
            cpu = statistics.quantiles(found["cpu"][WARM_UP:], n=4)
            if layout == "one process":
                alone, adam = cpu[1], statistics.median(found["adam"][WARM_UP:])
            shared = 0.0 if sizes.latents > 1 else adam
            predicted = (alone - shared) / (sizes.data * sizes.latents) + shared
            rows.append(
                {
                    "d_sae": width, "layout": layout, "n": len(found["cpu"]) - WARM_UP,
                    "cpu_ms": cpu[1], "cpu_ms_25": cpu[0], "cpu_ms_75": cpu[2],
                    "predicted_cpu_ms": predicted, "adam_cpu_ms": adam,
                    "wall_ms": statistics.median(found["wall"][WARM_UP:]),
                    "mib": found["bytes"] / MIB, "predicted_mib": sizes.memory() / MIB,
                    "traffic_mib": sizes.traffic() / MIB,
                    "all_reduce_gb_per_s": (found["rate"] or 0.0) / 1e9 or None,
                    "load_before": load,
                }
            )  # fmt: skip
            print(line_of(rows[-1]), file=sys.stderr)
    if arguments.json:
        write_results(arguments, rows)
    else:
        print("\n".join(markdown(arguments, rows)))


def line_of(row: dict[str, Any]) -> str:
    return (
        f"| {row['d_sae']:,} | {row['layout']} | {row['cpu_ms']:.0f} [{row['cpu_ms_25']:.0f}, "
        f"{row['cpu_ms_75']:.0f}] | {row['predicted_cpu_ms']:.0f} | {row['wall_ms']:.0f} | "
        f"{row['mib']:.0f} | {row['predicted_mib']:.0f} | {row['traffic_mib']:.2f} | {row['n']} | "
        f"{row['load_before']:.1f} |"
    )


def markdown(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> list[str]:
    rates = [r["all_reduce_gb_per_s"] for r in rows if r["all_reduce_gb_per_s"]]
    return [
        "# A training step on one process and on two",
        "",
        f"`python benchmarks/distributed_step.py`: d_in {arguments.d_in}, k {arguments.k}, batch "
        f"{arguments.batch:,}, torch {torch.__version__}, one thread per rank, {os.cpu_count()} "
        f"processors. An all-reduce over gloo runs at {min(rates):.2f} to {max(rates):.2f} GB/s.",
        "",
        "| d_sae | layout | processor ms per rank and step [25%, 75%] | model | wall ms | MiB per "
        "rank | model | MiB sent per step | n | load before |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(line_of, rows),
    ]


def write_results(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    sizes = {"d_in": arguments.d_in, "k": arguments.k, "batch": arguments.batch}
    document = {"torch": torch.__version__, "processors": os.cpu_count(), **sizes, "rows": rows}
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    arguments.json.with_suffix(".md").write_text("\n".join(markdown(arguments, rows)) + "\n")


if __name__ == "__main__":
    main()
