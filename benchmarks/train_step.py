"""One training step of an SAE: auditkit's against those of other projects, and the product alone.

    python benchmarks/train_step.py [--d-in 576] [--d-sae 8192] [--k 32] [--batch 2048]
                                    [--steps 60] [--threads 2] [--lr 1e-3] [--only NAME,…]
                                    [--widths WIDTH,…] [--no-memory] [--activations FOLDER]
                                    [--json FILE] [--markdown FILE]

Every candidate trains its own SAE on the same batches, one step each per round, in an order that
rotates; a step is forward, gradients and optimiser, without reading the batch. n is the number of
timed steps (the first is a warm-up for all and is not timed). Wall time is what a user waits for,
and grows with whatever else the machine does; CPU time, of all threads, hardly does. The floor is
the encoder's matrix product alone, in float32, into memory that is allocated once. Ratios are
medians over rounds of the ratio within a round, with 95% bootstrap intervals.

Explained variance (centred) is that of each candidate's SAE on held-out rows after all steps; all
have the same learning rate, warm-up and decay, and each its own initialisation. Recovery is the
mean best cosine with a decoder row of the 1,000 most frequent planted directions. Recall is the
share of the true top k, by a whole product in float32, that a step with candidates chooses at the
end, L0 how many latents are active then. JumpReLU stands there twice: as its projects start it,
with about half of all latents active, which no sparse step can use; and "sparse", with thresholds
at which 2k latents are active, as they are for most of a training, and a rate near 0 that keeps
them so (a step costs the same, and nothing is learnt). Memory is what a step needs beyond
parameters and optimiser state: the peak of a fresh process over three steps, in units of the
batch's pre-activations in float32 (so 1.0 is one copy).

`--widths` times the product and auditkit's steps at several widths, and fits the slope. With
`--json FILE.json` the table goes into FILE.md beside it (or where `--markdown` says).

Without `--activations` the data are sparse sums of planted directions (more of them than d_sae,
with a power law of frequencies) on a mean as large as the deviation from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Threads that wait must sleep: spinning ones would count as CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.training import TopK, TrainPlan
from auditkit.training.initialise import initial_state
from auditkit.training.topk_settings import topk_settings
from benchmarks.train_step_candidates import (
    OURS,
    PRODUCT,
    SAELENS,
    SPARSE,
    SPARSIFY,
    Candidate,
    makers,
)
from benchmarks.train_step_markdown import to_markdown, widths_to_markdown
from benchmarks.train_step_memory import peak_memory
from benchmarks.train_step_rows import HELD_OUT, load_rows, recovery

PAIRS = (
    (OURS, SAELENS),
    (OURS, SPARSIFY),
    (OURS, "dictionary_learning TopK"),
    (OURS, "OpenAI's formulation, dense"),
    ("auditkit BatchTopK", "sae_lens BatchTopK"),
    ("auditkit JumpReLU", "sae_lens JumpReLU"),
    (f"auditkit JumpReLU{SPARSE}", f"sae_lens JumpReLU{SPARSE}"),
)


@dataclass
class Row:
    """One candidate's times in seconds, and what its SAE learnt in the end."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    learnt: dict[str, float | None] = field(default_factory=dict)
    memory: float | None = None


def make_candidates(
    plan: TrainPlan, sample: Tensor, only: set[str]
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Name → candidate, and name → why there is none; `only` picks by part of the name."""
    made: dict[str, Candidate] = {}
    missing: dict[str, str] = {}
    for name, make in makers(plan, sample).items():
        if name == PRODUCT or not only or any(part in name for part in only):
            try:
                made[name] = make()
            except ImportError as error:
                missing[name] = f"not installed ({error})"
    return made, missing


def run(candidates: dict[str, Candidate], x: Tensor, plan: TrainPlan) -> list[Row]:
    """Rounds of one step each; the first round is not timed."""
    rows = {name: Row(name) for name in candidates}
    names = list(candidates)
    batches = [b for b in x.split(plan.batch_size) if len(b) == plan.batch_size]
    for number in range(plan.steps):
        batch = batches[number % len(batches)]
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            candidates[name].step(batch)
            if number:
                rows[name].cpu.append(time.process_time() - cpu)
                rows[name].wall.append(time.perf_counter() - wall)
        print(f"\rround {number + 1} of {plan.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return list(rows.values())


def interval(values: np.ndarray) -> dict[str, float]:
    """The median with a 95% bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, size=(2000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def ratio(rows: dict[str, Row], over: str, under: str) -> dict[str, dict[str, float]] | None:
    """Of `over` to `under` within a round, by wall and by CPU time; None where one is missing."""
    if over not in rows or under not in rows:
        return None
    a, b = rows[over], rows[under]
    return {
        "wall": interval(np.array(a.wall) / np.array(b.wall)),
        "cpu": interval(np.array(a.cpu) / np.array(b.cpu)),
    }


def report(
    rows: list[Row], missing: dict[str, str], plan: TrainPlan, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values."""
    by_name = {row.name: row for row in rows}
    table = [
        {
            "candidate": row.name,
            "n": len(row.wall),
            "wall_ms": 1e3 * float(np.median(row.wall)),
            "wall_ms_quartiles": [1e3 * float(q) for q in np.quantile(row.wall, [0.25, 0.75])],
            "cpu_ms": 1e3 * float(np.median(row.cpu)),
            "times_the_product": ratio(by_name, row.name, PRODUCT),
            "memory": row.memory,
            **row.learnt,
        }
        for row in rows
    ]
    return {
        "benchmark": "train_step",
        "data": "planted" if arguments.activations is None else "stored activations",
        "d_in": plan.d_in,
        "d_sae": plan.d_sae,
        "k": topk_settings(plan).k,
        "batch_size": plan.batch_size,
        "steps": plan.steps,
        "lr": plan.lr,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "load_average_1_minute": os.getloadavg()[0],
        "speedups": [
            {"fast": fast, "slow": slow, **found}
            for fast, slow in PAIRS
            if (found := ratio(by_name, slow, fast)) is not None
        ],
        "missing": missing,
        "rows": table,
    }


def plan_of(arguments: argparse.Namespace, d_sae: int) -> TrainPlan:
    return TrainPlan(
        d_in=arguments.d_in,
        d_sae=d_sae,
        objective=TopK(k=arguments.k),
        batch_size=arguments.batch,
        steps=arguments.steps,
        lr=arguments.lr,
        warmup_steps=max(1, arguments.steps // 10),
        held_out=HELD_OUT,
    )


def compare(arguments: argparse.Namespace, d_sae: int, only: set[str]) -> dict[str, Any]:
    """All candidates at one width."""
    plan = plan_of(arguments, d_sae)
    data = load_rows(arguments.activations, plan, plan.steps)
    sample = data.train[:8192]
    scale = initial_state(plan, sample).scale
    candidates, missing = make_candidates(plan, sample, only)
    rows = run(candidates, data.train * scale, plan)
    for row in rows:
        candidate, held_out = candidates.pop(row.name), data.held_out * scale
        row.learnt = {"l0": candidate.l0(held_out[: plan.batch_size])}
        learns = not row.name.endswith(SPARSE)
        row.learnt |= {
            "explained_variance": candidate.explained_variance(held_out) if learns else None,
            "recovery": recovery(candidate.decoder_rows(), data.directions) if learns else None,
            "recall": candidate.recall(held_out[: plan.batch_size]),
        }
        if not arguments.no_memory:
            row.memory = peak_memory(row.name, plan)
    return report(rows, missing, plan, arguments)


def against_width(arguments: argparse.Namespace, widths: list[int]) -> dict[str, Any]:
    """The product and auditkit's TopK at several widths, and the slope of log time to log width."""
    results = [compare(arguments, width, {OURS}) for width in widths]
    names = [row["candidate"] for row in results[0]["rows"]]
    slopes = {}
    for name in names if len(widths) > 1 else []:
        cost = [next(r["cpu_ms"] for r in x["rows"] if r["candidate"] == name) for x in results]
        slopes[name] = float(np.polyfit(np.log(widths), np.log(cost), 1)[0])
    return {"benchmark": "train_step_width", "slopes": slopes, "results": results}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--d-sae", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--only", default="", help="parts of candidates' names, comma-separated")
    parser.add_argument("--widths", default="", help="widths to compare, comma-separated")
    parser.add_argument("--no-memory", action="store_true", help="start no processes to measure it")
    parser.add_argument("--activations", type=Path)
    parser.add_argument("--json", type=Path, help="the numbers; a table goes beside them")
    parser.add_argument("--markdown", type=Path, help="the table (default: FILE.md beside --json)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.widths:
        result = against_width(arguments, [int(w) for w in arguments.widths.split(",")])
        text = widths_to_markdown(result)
    else:
        only = {part for part in arguments.only.split(",") if part}
        result = compare(arguments, arguments.d_sae, only)
        text = to_markdown(result)
    print(text)
    beside = None if arguments.json is None else arguments.json.with_suffix(".md")
    for path, content in (
        (arguments.json, json.dumps(result, indent=2) + "\n"),
        (arguments.markdown or beside, text),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
