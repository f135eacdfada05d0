"""One training step of a TopK SAE: auditkit's sparse step against SAELens' own trainer.

    python benchmarks/train_step.py [--d-in 576] [--d-sae 8192] [--k 32] [--batch 2048]
                                    [--steps 60] [--threads 2] [--lr 1e-3] [--only NAME,…]
                                    [--activations FOLDER] [--json FILE] [--markdown FILE]

Every candidate trains its own SAE on the same batches, one step each per round, in an order that
rotates; a step is forward, gradients and optimiser, without reading the batch. Units: milliseconds
per step and vectors (tokens) per second. n is the number of timed steps (the first is a warm-up
for all and is not timed). The floor is the encoder's matrix product alone, into memory that is
allocated once. Explained variance (centred) is that of each candidate's SAE on held-out rows after
all steps; all have the same learning rate, warm-up and decay, and each its own initialisation.

With `--json FILE.json` the table goes into FILE.md beside it (or where `--markdown` says).

Without `--activations` the data are sparse sums of planted directions (more of them than d_sae,
with a power law of frequencies) on a mean as large as the deviation from it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.training import ActivationStore, TrainPlan
from auditkit.training.batches import split_rows
from auditkit.training.finishing import explained_variance
from auditkit.training.fused_step import FusedStep, numba_is_installed
from auditkit.training.initialise import initial_state
from auditkit.training.objective import dense_loss
from auditkit.training.parameters import SaeParameters
from auditkit.training.sparse_step import TorchStep

HELD_OUT = 8192
PRODUCT = "encoder product"
OURS = "auditkit (numba)"
SAELENS = "SAELens TopK"


class Candidate(Protocol):
    """Something that takes steps on scaled batches; `evaluate` gives its explained variance."""

    def step(self, x: Tensor) -> None: ...

    def evaluate(self, held_out: Tensor) -> float | None: ...


class Product:
    """The floor: x @ W_enc into memory allocated once."""

    def __init__(self, plan: TrainPlan) -> None:
        self.W_enc = torch.randn(plan.d_sae, plan.d_in)
        self.out = torch.empty(plan.batch_size, plan.d_sae)

    def step(self, x: Tensor) -> None:
        torch.mm(x, self.W_enc.T, out=self.out)

    def evaluate(self, held_out: Tensor) -> float | None:
        return None


class Sparse:
    """auditkit's step, in torch or with numba."""

    def __init__(self, plan: TrainPlan, sample: Tensor, make: Callable[[TrainPlan], Any]) -> None:
        self.plan, self.state, self.run = plan, initial_state(plan, sample), make(plan)

    def step(self, x: Tensor) -> None:
        self.run(self.state, x)

    def evaluate(self, held_out: Tensor) -> float | None:
        return explained_variance(self.state, held_out, k=self.plan.k)


class Dense:
    """The same objective from the same start by autograd and torch's Adam, without AuxK."""

    def __init__(self, plan: TrainPlan, sample: Tensor) -> None:
        self.plan, self.state = plan, initial_state(plan, sample)
        self.tensors = {n: t.requires_grad_(True) for n, t in self.state.parameters.named().items()}
        self.optimiser = torch.optim.Adam(
            list(self.tensors.values()), betas=(plan.beta1, plan.beta2), eps=plan.eps
        )
        self.dead = torch.zeros(plan.d_sae, dtype=torch.bool)

    def step(self, x: Tensor) -> None:
        plan, p = self.plan, SaeParameters(**self.tensors)
        self.optimiser.zero_grad()
        dense_loss(
            p,
            x,
            k=plan.k,
            dead=self.dead,
            k_aux=plan.k_aux,
            aux_coefficient=plan.aux_coefficient,
        ).backward()
        with torch.no_grad():
            gradient = p.W_dec.grad
            assert gradient is not None
            gradient -= (gradient * p.W_dec).sum(1, keepdim=True) * p.W_dec
            self.optimiser.param_groups[0]["lr"] = plan.learning_rate(self.state.step)
            self.optimiser.step()
            p.W_dec.div_(p.W_dec.norm(dim=1, keepdim=True))
        self.state.step += 1

    @torch.no_grad()
    def evaluate(self, held_out: Tensor) -> float | None:
        return explained_variance(self.state, held_out, k=self.plan.k)


class SaeLens:
    """sae_lens' TopKTrainingSAE under its own SAETrainer: its training step as `fit` runs it.

    Its option use_sparse_activations is left off: its backward pass has no sparse kernel on CPU.
    """

    def __init__(self, plan: TrainPlan) -> None:
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        torch.manual_seed(plan.seed)
        self.sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=plan.d_in,
                d_sae=plan.d_sae,
                k=plan.k,
                apply_b_dec_to_input=True,
            )
        )
        decay = round(plan.decay_fraction * plan.steps)
        config = SAETrainerConfig(
            total_training_samples=plan.steps * plan.batch_size,
            train_batch_size_samples=plan.batch_size,
            lr=plan.lr,
            lr_end=0.0,
            lr_warm_up_steps=plan.warmup_steps,
            lr_decay_steps=decay,
            adam_beta1=plan.beta1,
            adam_beta2=plan.beta2,
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(config, self.sae, iter(()))

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    @torch.no_grad()
    def evaluate(self, held_out: Tensor) -> float | None:
        self.sae.eval()
        error = sum(
            float((x - self.sae.decode(self.sae.encode(x))).square().sum(dtype=torch.float64))
            for x in held_out.split(2048)
        )
        exact = held_out.double()
        return 1 - error / float((exact - exact.mean(0)).square().sum())


@dataclass
class Row:
    """One candidate's times in seconds, and its SAE's explained variance in the end."""

    name: str
    seconds: list[float] = field(default_factory=list)
    explained_variance: float | None = None


def planted_rows(n: int, d_in: int, *, seed: int = 0) -> Tensor:
    """Sums of ~40 of 16,384 unit directions with power-law frequencies, on a common mean."""
    g = torch.Generator().manual_seed(seed)
    features, per_token = 16_384, 40
    directions = normalize(torch.randn(features, d_in, generator=g), dim=1)
    rate = (torch.arange(features) + 20.0) ** -0.8
    chosen = torch.multinomial(rate, n * per_token, replacement=True, generator=g)
    amounts = torch.empty(n, per_token).exponential_(1.0, generator=g)
    x = embedding_bag(chosen.view(n, per_token), directions, mode="sum", per_sample_weights=amounts)
    mean = normalize(torch.randn(d_in, generator=g), dim=0) * float(x.norm(dim=1).mean())
    return x + mean + 0.02 * torch.randn(n, d_in, generator=g)


def load_rows(folder: Path | None, plan: TrainPlan, steps: int) -> tuple[Tensor, Tensor]:
    """Training rows and held-out rows, in the data's own units."""
    wanted = min(steps, 40) * plan.batch_size
    if folder is None:
        x = planted_rows(wanted + HELD_OUT, plan.d_in)
        return x[HELD_OUT:], x[:HELD_OUT]
    store = ActivationStore(folder)
    store.check_width(plan.d_in)
    split = split_rows(store, held_out=HELD_OUT, high_norm_factor=plan.high_norm_factor)
    order = np.random.default_rng(0).permutation(split.train)[:wanted]
    return store.rows(torch.from_numpy(order)), store.rows(torch.from_numpy(split.held_out))


def make_candidates(plan: TrainPlan, sample: Tensor, only: set[str]) -> dict[str, Candidate]:
    """Name → candidate; `only` picks by part of the name (empty: all but the dense reference)."""
    makers: dict[str, Callable[[], Candidate]] = {PRODUCT: lambda: Product(plan)}
    if numba_is_installed():
        makers[OURS] = lambda: Sparse(plan, sample, FusedStep)
    makers["auditkit (torch)"] = lambda: Sparse(plan, sample, TorchStep)
    makers[SAELENS] = lambda: SaeLens(plan)
    makers["dense reference"] = lambda: Dense(plan, sample)
    chosen = [
        name
        for name in makers
        if name == PRODUCT
        or (any(part in name for part in only) if only else name != "dense reference")
    ]
    return {name: makers[name]() for name in chosen}


def run(
    candidates: dict[str, Candidate], x: Tensor, held_out: Tensor, plan: TrainPlan
) -> list[Row]:
    """Rounds of one step each; the first round is not timed."""
    rows = {name: Row(name) for name in candidates}
    names = list(candidates)
    batches = [b for b in x.split(plan.batch_size) if len(b) == plan.batch_size]
    for number in range(plan.steps):
        batch = batches[number % len(batches)]
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            candidates[name].step(batch)
            if number:
                rows[name].seconds.append(time.perf_counter() - started)
        print(f"\rround {number + 1} of {plan.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, candidate in candidates.items():
        rows[name].explained_variance = candidate.evaluate(held_out)
    return list(rows.values())


def speedup(rows: list[Row], fast: str, slow: str) -> tuple[float, float, float] | None:
    """Median over rounds of slow/fast, with a 95% bootstrap interval; None where one is missing."""
    by_name = {row.name: row for row in rows}
    if fast not in by_name or slow not in by_name:
        return None
    ratios = np.array(by_name[slow].seconds) / np.array(by_name[fast].seconds)
    draws = np.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def report(rows: list[Row], plan: TrainPlan, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values."""
    floor = statistics.median(rows[0].seconds)
    table = []
    for row in rows:
        median = statistics.median(row.seconds)
        low, high = np.quantile(row.seconds, [0.25, 0.75])
        table.append(
            {
                "candidate": row.name,
                "n": len(row.seconds),
                "median_ms_per_step": 1e3 * median,
                "q25_ms_per_step": 1e3 * float(low),
                "q75_ms_per_step": 1e3 * float(high),
                "vectors_per_second": plan.batch_size / median,
                "times_the_product": median / floor,
                "explained_variance": row.explained_variance,
            }
        )
    gain = speedup(rows, OURS, SAELENS)
    return {
        "benchmark": "train_step",
        "units": {"time": "ms per step", "speed": "vectors per second"},
        "data": "planted" if arguments.activations is None else "stored activations",
        "d_in": plan.d_in,
        "d_sae": plan.d_sae,
        "k": plan.k,
        "batch_size": plan.batch_size,
        "steps": plan.steps,
        "lr": plan.lr,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "load_average_1_minute": os.getloadavg()[0],
        "speedup_over_saelens": None
        if gain is None
        else {"median": gain[0], "low": gain[1], "high": gain[2], "level": 0.95},
        "rows": table,
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The result as a table with its circumstances."""
    r = result
    lines = [
        "# One training step",
        "",
        f"d_in {r['d_in']}, {r['d_sae']:,} latents, k {r['k']}, batch {r['batch_size']:,}; "
        f"{r['data']}; {r['steps']} steps at lr {r['lr']:g}; {r['threads']} threads on "
        f"{r['cpus']} CPUs (load average {r['load_average_1_minute']:.1f}), torch {r['torch']}.",
        "",
        "| candidate | n | ms per step, median | quartiles | vectors/s | × product | "
        "EV after all steps |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in r["rows"]:
        ev = row["explained_variance"]
        lines.append(
            f"| {row['candidate']} | {row['n']} | {row['median_ms_per_step']:.0f} | "
            f"{row['q25_ms_per_step']:.0f}–{row['q75_ms_per_step']:.0f} | "
            f"{row['vectors_per_second']:,.0f} | {row['times_the_product']:.2f} | "
            f"{'—' if ev is None else f'{ev:.4f}'} |"
        )
    gain = r["speedup_over_saelens"]
    if gain is not None:
        lines += [
            "",
            f"{OURS} over {SAELENS}: {gain['median']:.1f}× "
            f"(95% interval {gain['low']:.1f}–{gain['high']:.1f}), median over rounds.",
        ]
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--activations", type=Path)
    parser.add_argument("--json", type=Path, help="the numbers; a table goes beside them")
    parser.add_argument("--markdown", type=Path, help="the table (default: FILE.md beside --json)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    plan = TrainPlan(
        d_in=arguments.d_in,
        d_sae=arguments.d_sae,
        k=arguments.k,
        batch_size=arguments.batch,
        steps=arguments.steps,
        lr=arguments.lr,
        warmup_steps=max(1, arguments.steps // 10),
        held_out=HELD_OUT,
    )
    train, held_out = load_rows(arguments.activations, plan, plan.steps)
    sample = train[:8192]
    scale = initial_state(plan, sample).scale
    only = {part for part in arguments.only.split(",") if part}
    candidates = make_candidates(plan, sample, only)
    rows = run(candidates, train * scale, held_out * scale, plan)
    result = report(rows, plan, arguments)
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
