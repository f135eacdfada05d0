"""An SAE's latents beside neurons, PCA, ICA and random directions, scored by token lookups.

    python benchmarks/lookup.py [TRAIN.yaml] [--sae FOLDER] [--tokens 60000] [--units 300]
                                [--threads 1] [--json FILE]

TRAIN.yaml is examples/smollm2/train.yaml by default, whose text examples/smollm2/make_corpus.py
makes. `--json FILE` also writes FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Silent
from auditkit.pipeline.failures.lookup import LookupSummary, describe_median, lookup_from
from auditkit.quality.lookups.comparison import ALWAYS, BEST, FREQUENCY, SHUFFLED, FamilyScores

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("current token", "previous token", "bigram")


def markdown(found: LookupSummary, seconds: float) -> str:
    """The comparison as a page."""
    low, middle, high = found.densities
    lines = [
        "# Latents beside other directions, scored by token lookups",
        "",
        f"SAE {found.sae}; {found.latents} latents, drawn evenly over density from the "
        f"{found.usable:,} that fire on ten tokens of each half or more; they fire on {low:.3%} to "
        f"{high:.3%} of the tokens (median {middle:.3%}). Lookups fitted on {found.tokens[0]:,} "
        f"tokens of {found.documents[0]} held-out documents, tested on {found.tokens[1]:,} of "
        f"{found.documents[1]} others. Every direction has a threshold at which it fires as often "
        "as the latent beside it. Medians over units with a 95% bootstrap interval over units; "
        f"{seconds:.0f} s of processor time.",
        "",
        "| family | n | F1 | correlation | the latents' F1 minus its own, in pairs |",
        "| --- | --: | --- | --- | --- |",
    ]
    for family in found.families:
        row = family.row(BEST)
        cells = map(describe_median, (row.f1, row.correlation, row.better_f1))
        lines.append(f"| {family.name} | {family.units - family.unscored} | {' | '.join(cells)} |")
    lines += [
        "",
        "Each unit by the best of three lookups, which the fitted half chose. The lookups and the "
        "floors one by one, median F1:",
        "",
        "| family | " + " | ".join((*KINDS, SHUFFLED, FREQUENCY, ALWAYS)) + " |",
        "| --- |" + " --: |" * 6,
    ]
    for family in found.families:
        cells = [_value(family.row(name).f1) for name in (*KINDS, SHUFFLED, FREQUENCY, ALWAYS)]
        lines.append(f"| {family.name} | {' | '.join(cells)} |")
    lines += ["", "Median F1 by how often the units fire:", "", *_bands(found.families), ""]
    notes = [f"- {f.name}: {f.note}" for f in found.families if f.note]
    return "\n".join([*lines, *notes, ""])


def _bands(families: tuple[FamilyScores, ...]) -> list[str]:
    names = [name for name, _ in families[0].bands]
    rows = [
        f"| {f.name} | " + " | ".join(describe_median(m) for _, m in f.bands) + " |"
        for f in families
    ]
    return [f"| family | {' | '.join(names)} |", "| --- |" + " --- |" * len(names), *rows]


def _value(measure: Measure) -> str:
    return "-" if isinstance(measure, NotMeasured) else f"{measure.value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "examples/smollm2/train.yaml")
    parser.add_argument("--sae", type=Path, default=None)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--units", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.process_time()
    found = lookup_from(
        args.file, sae=args.sae, tokens=args.tokens, units=args.units, progress=Silent()
    )
    seconds = time.process_time() - began
    print(found.text())
    print(f"{seconds:.0f} s of processor time")
    if args.json is not None:
        report = {**json.loads(found.json()), "processor_seconds": round(seconds, 1)}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")
        args.json.with_suffix(".md").write_text(markdown(found, seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
