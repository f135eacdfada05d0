"""Where the time of a training step goes, operation by operation.

    python benchmarks/train_step_profile.py ["auditkit JumpReLU" ...] [--d-sae 8192] [--steps 4]
                                            [--threads 2] [--json FILE]

Each candidate of `train_step.py` that is named takes a step that is not counted and then `--steps`
under torch's profiler. Shares are of the processor time within torch's operations; what numba's
kernels take stands as "outside torch's operations". `--json FILE` writes FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.training import TopK, TrainPlan
from auditkit.training.initialise import initial_state
from benchmarks.train_step_candidates import makers
from benchmarks.train_step_rows import planted_rows

SHOWN = 8
USUAL = ("auditkit BatchTopK", "auditkit JumpReLU", "sae_lens JumpReLU")


def profile_steps(name: str, plan: TrainPlan, steps: int) -> dict[str, Any]:
    """Milliseconds per step by operation, the largest first."""
    x, _ = planted_rows(plan.batch_size * 2, plan.d_in)
    candidate = makers(plan, x)[name]()
    x = (x * initial_state(plan, x).scale)[: plan.batch_size]
    with profile(activities=[ProfilerActivity.CPU]):  # its first start takes a second
        candidate.step(x)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        wall = time.perf_counter()
        for _ in range(steps):
            candidate.step(x)
        wall = time.perf_counter() - wall
    ops = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    inside = sum(e.self_cpu_time_total for e in ops) / 1e3 / steps
    return {
        "candidate": name,
        "wall_ms": 1e3 * wall / steps,
        "outside_ms": max(0.0, 1e3 * wall / steps - inside),
        "operations": [
            {
                "name": e.key.removeprefix("aten::"),
                "calls": e.count / steps,
                "ms": e.self_cpu_time_total / 1e3 / steps,
            }
            for e in ops[:SHOWN]
        ],
    }


def to_markdown(result: dict[str, Any]) -> str:
    """A table for each candidate."""
    lines = [
        "# Where a training step's time goes",
        "",
        f"d_in {result['d_in']}, {result['d_sae']:,} latents, k {result['k']}, batch "
        f"{result['batch_size']:,}, {result['steps']} steps under torch's profiler, "
        f"{result['threads']} threads (load average {result['load_average_1_minute']:.1f}). "
        "Milliseconds per step.",
    ]
    for found in result["profiles"]:
        lines += [
            "",
            f"## {found['candidate']}: {found['wall_ms']:.0f} ms",
            "",
            "| operation | calls | ms | share |",
            "| --- | --: | --: | --: |",
        ]
        rows = [*found["operations"]]
        rows.append(
            {"name": "outside torch's operations", "calls": None, "ms": found["outside_ms"]}
        )
        lines += [
            f"| {r['name']} | {'' if r['calls'] is None else format(r['calls'], 'g')} | "
            f"{r['ms']:.1f} | {r['ms'] / found['wall_ms']:.0%} |"
            for r in rows
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("candidates", nargs="*", default=USUAL)
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--d-sae", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plan = TrainPlan(
        d_in=arguments.d_in,
        d_sae=arguments.d_sae,
        objective=TopK(k=arguments.k),
        batch_size=arguments.batch,
        steps=arguments.steps + 1,
    )
    result = {
        "d_in": plan.d_in,
        "d_sae": plan.d_sae,
        "k": arguments.k,
        "batch_size": plan.batch_size,
        "steps": arguments.steps,
        "threads": torch.get_num_threads(),
        "load_average_1_minute": os.getloadavg()[0],
        "units": "ms per step",
        "profiles": [profile_steps(n, plan, arguments.steps) for n in arguments.candidates],
    }
    print(to_markdown(result))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        arguments.json.with_suffix(".md").write_text(to_markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
