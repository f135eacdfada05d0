"""Absorption of first letters, and splitting against width, on real activations.

    python benchmarks/failure_modes.py absorption [TRAIN.yaml] [--words 5000] [--json FILE]
    python benchmarks/failure_modes.py splitting [TRAIN.yaml] [--width W ...] [--steps N]
                                                 [--json FILE]

TRAIN.yaml is examples/smollm2/train.yaml by default. `splitting` trains the SAEs that it does not
find, two seeds at each width. `--json FILE` also writes what is printed, to FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.progress import Silent
from auditkit.pipeline.failures.absorption import AbsorptionSummary, absorption_from, describe_rate
from auditkit.pipeline.failures.splitting import SplittingSummary, splitting_from

ROOT = Path(__file__).resolve().parent.parent


class Printed(Silent):
    """Prints what a long training says of itself."""

    def begin(self, task: str, total: int) -> None:
        print(f"{task} ({total:,})", flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)


def absorption_page(found: AbsorptionSummary) -> str:
    """The first-letter test as a page."""
    r = found.report
    lines = [
        "# First letters: absorption",
        "",
        f"SAE {found.sae} at `{found.hook_point}`; {r.words[0]:,} words to fit on, {r.words[1]:,} "
        f"to test on. The model itself names the first letter of {describe_rate(found.model_right)}"
        ".",
        "",
        "| measure, mean over letters | value |",
        "| --- | --- |",
        f"| F1 of the letter probes | {describe_rate(r.probe_f1)} |",
        f"| main latents per letter | {describe_rate(r.main_latents)} |",
        f"| F1 of the main latents' firing | {describe_rate(r.main_f1)} |",
        f"| absorption rate | {describe_rate(r.absorption)} |",
        f"| its floor: latents of other letters' words | {describe_rate(r.chance)} |",
        f"| plain missing | {describe_rate(r.plain_missing)} |",
        f"| excess over plain missing | {describe_rate(r.excess)} |",
        "",
        "| letter | probe F1 | main latents | their F1 | absorbed | plain missing | excess |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in r.classes:
        cells = (c.main_f1, c.absorption, c.plain_missing, c.excess)
        lines.append(
            f"| {c.name} | {describe_rate(c.probe_f1)} | "
            f"{', '.join(map(str, c.main_latents)) or '-'} | "
            + " | ".join(map(describe_rate, cells))
            + " |"
        )
    return "\n".join([*lines, ""])


def splitting_page(found: SplittingSummary) -> str:
    """Splitting as a page."""
    lines = [
        "# Splitting against width",
        "",
        f"{found.name}: SAEs of {found.steps:,} steps on the same activations, compared on "
        f"{found.tokens:,} held-out tokens. Shares of the narrow SAE's latents that fire on 20 of "
        "them or more, with 95% intervals; the rows of equal width, another seed, are the floor.",
        "",
        "| latents | in | near | kept | pieces per latent | split | split and covered |",
        "| --: | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found.rows:
        f = row.found
        cells = map(describe_rate, (f.near, f.kept, f.pieces, f.split, f.covered))
        wide = f"{row.wide:,}" + (", other seed" if row.floor else "")
        lines.append(f"| {row.narrow:,} | {wide} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("absorption", "splitting"))
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "examples/smollm2/train.yaml")
    parser.add_argument("--words", type=int, default=5000)
    parser.add_argument("--width", type=int, action="append", default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.process_time()
    if args.what == "absorption":
        found = absorption_from(args.file, words=args.words, progress=Printed())
        page = absorption_page(found)
    else:
        found = splitting_from(
            args.file,
            widths=tuple(args.width or (1536, 6144)),
            steps=args.steps,
            tokens=args.tokens,
            progress=Printed(),
        )
        page = splitting_page(found)
    seconds = time.process_time() - began
    print(found.text())
    print(f"{seconds:.0f} s of processor time")
    if args.json is not None:
        report = {**json.loads(found.json()), "processor_seconds": round(seconds, 1)}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")
        args.json.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
