"""Peak memory of a training step, each candidate in a fresh process of this file.

Memory is what the system counts as resident, so the C library's own holes count with it. How large
they are depends on the sizes of what was freed before; with glibc's defaults the same step differs
by as much as a copy of the pre-activations from one process to the next. Here tensors of a MiB and
more are mapped on their own and given back when they are freed, for every candidate, and two runs
agree within 0.05.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.training import TopK, TrainPlan
from auditkit.training.topk_settings import topk_settings
from benchmarks.train_step_candidates import PRODUCT, makers


def peak_memory(name: str, plan: TrainPlan) -> float | None:
    """Of three steps in a fresh process, beyond parameters and optimiser state; in copies of the
    batch's pre-activations."""
    sizes = (plan.d_in, plan.d_sae, topk_settings(plan).k, plan.batch_size)
    command = [sys.executable, __file__, name, *map(str, sizes), str(torch.get_num_threads())]
    # glibc reads it as a process starts.
    setting = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=setting)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def measure_memory(name: str, plan: TrainPlan) -> float:
    """In this process, which must be fresh."""
    x = torch.randn(plan.batch_size, plan.d_in)
    candidate = makers(plan, x)[name]()
    # One step on a few tokens: kernels are compiled and libraries loaded before memory counts.
    candidate.step(x[:64].clone()) if name != PRODUCT else None
    kept = candidate.kept_bytes()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    for _ in range(3):
        candidate.step(x)
    extra = _status("VmHWM") - before - (candidate.kept_bytes() - kept)
    return extra / (4 * plan.batch_size * plan.d_sae)


def _status(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field_name):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field_name}")


def main() -> None:
    name, (d_in, d_sae, k, batch) = sys.argv[1], map(int, sys.argv[2:6])
    torch.set_num_threads(int(sys.argv[6]))
    plan = TrainPlan(d_in=d_in, d_sae=d_sae, objective=TopK(k=k), batch_size=batch, steps=400)
    print(measure_memory(name, plan))


if __name__ == "__main__":
    main()
