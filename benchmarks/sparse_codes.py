"""How far an SAE's encoder is from the best sparse code for its own dictionary at equal L0.

    python benchmarks/sparse_codes.py [TRAIN.yaml] [--sae FOLDER] [--tokens 400] [--planted 500]
                                      [--part real|planted|both] [--threads 1] [--json FILE]

TRAIN.yaml is examples/smollm2/train.yaml by default, whose text examples/smollm2/make_corpus.py
makes. `--json FILE` also writes FILE.md beside it; a part that is not run is kept from FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.fingerprint import to_plain
from auditkit.core.progress import Silent
from auditkit.pipeline.planted.codes import PlantedPlan, planted_codes
from auditkit.pipeline.sparse_codes import real_codes
from auditkit.quality.worlds import WorldKind, WorldSize, make_world

ROOT = Path(__file__).resolve().parent.parent
WORLDS = (WorldKind.INDEPENDENT, WorldKind.CROWDED)


class Log(Silent):
    """Says each task and code as it begins."""

    def begin(self, task: str, total: int) -> None:
        print(f"{time.process_time():7.1f} s  {task}", flush=True)

    def note(self, text: str) -> None:
        print(f"{time.process_time():7.1f} s    {text}", flush=True)


def markdown(report: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# An encoder beside sparse codes by search",
        "",
        "Each table is one dictionary, at k atoms per token. `EV` is explained variance (centred), "
        "`closed` the share of the first row's unexplained variance that a row explains, `shared` "
        "the share of the first row's atoms that it uses; 95% bootstrap intervals over pieces "
        "(documents, or ten of a world's independent tokens). The best k-sparse code is NP-hard: "
        "the searches are lower bounds of what it would explain.",
    ]
    for table in [*report.get("real", []), *report.get("planted", [])]:
        lines += ["", *_table(table)]
    return "\n".join([*lines, ""])


def _table(table: dict[str, Any]) -> list[str]:
    g = table["guarantees"]
    recovered = table["recovered"]
    found = (
        f"; mean best cosine of {recovered['n']} planted features {recovered['value']:.3f}"
        if "value" in recovered
        else ""
    )
    bracket = g["isometry_2k"]
    lines = [
        f"## {table['activations']}: {table['dictionary']}",
        "",
        f"{table['latents']:,} atoms in {table['d_in']} dimensions, k = {table['k']}, "
        f"n = {table['tokens']:,} tokens in {table['pieces']} pieces{found}. Coherence "
        f"{g['coherence']:.3f} (Tropp's limit at this k: {g['tropp_limit']:.3f}); "
        f"δ_2k between {bracket['lower']['value']:.2f} and {bracket['babel']:.2f} (Candès' limit "
        f"0.414: {g['candes']}).",
        "",
        "| code | EV | L0 | closed | shared |",
        "| --- | --- | --: | --- | --- |",
    ]
    for row in table["scores"]:
        cells = [_cell(row[name]) for name in ("explained_variance", "closed", "shared")]
        l0 = row["l0"]["value"]
        lines.append(f"| {row['name']} | {cells[0]} | {l0:.1f} | {cells[1]} | {cells[2]} |")
    return lines


def _cell(measure: dict[str, Any]) -> str:
    if "value" not in measure:
        return f"not measured: {measure['reason']}"
    text = f"{measure['value']:.3f}"
    interval = measure.get("interval")
    return text if not interval else f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "examples/smollm2/train.yaml")
    parser.add_argument("--sae", type=Path, default=None)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--part", choices=("real", "planted", "both"), default="both")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {}
    if args.json is not None and args.json.is_file():
        report = json.loads(args.json.read_text(encoding="utf-8"))
    if args.part != "planted":
        found = real_codes(args.file, sae=args.sae, tokens=args.tokens, progress=Log())
        report["real"] = [to_plain(found)]
    if args.part != "real":
        plan = PlantedPlan(tokens=args.planted)
        worlds = [make_world(kind, WorldSize.SMALL) for kind in WORLDS]
        report["planted"] = [
            to_plain(t) for w in worlds for t in planted_codes(w, plan, progress=Log())
        ]
    print(markdown(report))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")
        args.json.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


if __name__ == "__main__":
    main()
