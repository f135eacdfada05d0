"""Planted worlds: what SAEs of every objective, and SAELens's, find of features that are known.

    python benchmarks/worlds.py [--size small] [--world NAME ...] [--trainer NAME ...] [--seeds 3]
                                [--cells FILE.jsonl] [--json FILE] [--threads 1] [--report-only]

A cell is a world, a size, a trainer and a seed; finished cells are kept in FILE.jsonl (beside the
JSON by default), and a run goes on where another stopped. The seed is of the training: the world
stays the same. `saelens-zipf` is a world made by SAELens's own generator, an independent check of
ours. `--json FILE` writes the table, and FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.pipeline.planted.world_training import world_objectives
from auditkit.quality.worlds import PlantedWorld, WorldKind, WorldSize
from benchmarks.worlds_tables import markdown, report
from benchmarks.worlds_trainers import (
    FROZEN,
    PEER_TRAINER,
    PEER_WORLD,
    UNTRAINED,
    any_world,
    run_cell,
)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Finished cells; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    cells: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return cells


def run_missing(args: argparse.Namespace, cells_at: Path) -> None:
    """Run what is not in the file yet, seed by seed, so that a table stands early."""
    done = {(c["world"], c["size"], c["trainer"], c["seed"]) for c in read_cells(cells_at)}
    size = WorldSize(args.size)
    with tempfile.TemporaryDirectory() as temporary:
        worlds: dict[str, PlantedWorld] = {}
        for seed in range(args.seeds):
            for trainer in args.trainer:
                if seed and trainer.startswith("planted"):
                    continue  # nothing in it depends on a seed
                for name in args.world:
                    if (name, size.value, trainer, seed) in done:
                        continue
                    world = worlds.setdefault(name, any_world(name, size))
                    cell = run_cell(world, trainer, seed, Path(temporary) / name)
                    with cells_at.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(cell) + "\n")
                    print(f"{name:14} {trainer:22} seed {seed}: {_line(cell)}", flush=True)


def _line(cell: dict[str, Any]) -> str:
    """A cell in a few words; a dash for what was not measured."""
    shown = {"MMCS": "recall", "F1": "f1", "EV": "explained_variance", "L0": "l0"}
    measures = cell["measures"]
    said = (
        f"{name} " + ("–" if measures[key] is None else f"{measures[key]:.3f}")
        for name, key in shown.items()
    )
    return " ".join([*said, f"({cell['processor_seconds']:.0f} s)"])


def main() -> None:
    kinds, ours = [*(k.value for k in WorldKind), PEER_WORLD], world_objectives()
    known = [*ours, PEER_TRAINER, FROZEN, *UNTRAINED]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small", choices=[s.value for s in WorldSize])
    parser.add_argument("--world", action="append", choices=kinds)
    parser.add_argument("--trainer", action="append", choices=known)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=Path("worlds.json"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    args.world, args.trainer = args.world or kinds, args.trainer or known
    torch.set_num_threads(args.threads)
    cells_at = args.cells or args.json.with_suffix(".jsonl")
    cells_at.parent.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        run_missing(args, cells_at)
    found = report(read_cells(cells_at))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    args.json.with_suffix(".md").write_text(markdown(found), encoding="utf-8")
    print(f"{args.json} and {args.json.with_suffix('.md')}")


if __name__ == "__main__":
    main()
