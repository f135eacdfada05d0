"""Toy models of superposition (Elhage et al. 2022), reproduced: three pictures in a few minutes.

    python examples/sae_lab/toy_models.py [--out examples/sae_lab/pictures] [--threads 2] [--quick]

Trains the models, writes toy-gram.png (who is represented, who shares dimensions with whom),
toy-dimensions.png (dimensions per feature against sparsity) and toy-phases.png (what becomes of an
extra feature: theory beside training), and toy-models.json with the numbers in them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import toy_pictures

from auditkit.quality.theory import (
    PhaseCell,
    PhasePlan,
    ToyModels,
    ToyPlan,
    agreement,
    map_phases,
    measure_packing,
    train_toy_models,
)

PICTURES = Path(__file__).resolve().parent / "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is trained: the whole reproduction, or enough to see that it runs."""

    steps: int
    batch: int
    cells: int
    starts: int
    phase_steps: int


WHOLE = Scale(steps=2500, batch=512, cells=17, starts=6, phase_steps=500)
QUICK = Scale(steps=60, batch=64, cells=3, starts=2, phase_steps=40)
GRAM_SPARSITIES = (0.0, 0.7, 0.9, 0.97, 0.99)
INVERSE_DENSITIES = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.4, 2.8, 3.3, 4.0, 5.5, 7.5, 11, 20, 40, 100)


def gram_models(scale: Scale) -> ToyModels:
    """20 features of falling importance in 5 dimensions, from dense to very sparse."""
    return train_toy_models(
        ToyPlan(
            features=20,
            hidden=5,
            sparsities=GRAM_SPARSITIES,
            importance_decay=0.7,
            steps=scale.steps,
            batch_size=2 * scale.batch,
        )
    )


def dimension_models(scale: Scale) -> ToyModels:
    """80 features of equal importance in 10 dimensions, over two decades of sparsity."""
    return train_toy_models(
        ToyPlan(
            features=80,
            hidden=10,
            sparsities=tuple(1 - 1 / v for v in INVERSE_DENSITIES),
            steps=scale.steps,
            batch_size=scale.batch,
        )
    )


def phase_cells(hidden: int, scale: Scale) -> tuple[PhaseCell, ...]:
    """hidden + 1 features in `hidden` dimensions, densities 1 to 0.01, importances 0.1 to 10."""
    densities = torch.logspace(0, -2, scale.cells, dtype=torch.float64).tolist()
    importances = torch.logspace(-1, 1, scale.cells, dtype=torch.float64).tolist()
    return map_phases(
        PhasePlan(
            hidden=hidden,
            densities=tuple(densities),
            importances=tuple(importances),
            starts=scale.starts,
            steps=scale.phase_steps,
        )
    )


def numbers(
    gram: ToyModels, dimensions: ToyModels, phases: dict[str, tuple[PhaseCell, ...]]
) -> dict[str, Any]:
    """What the pictures show, as numbers."""
    packing = measure_packing(dimensions.W)
    shapes = measure_packing(gram.W)
    return {
        "gram": [
            {
                "sparsity": s,
                "represented": int((shapes.norms[i] > 0.5).sum()),
                "in superposition": int(
                    ((shapes.norms[i] > 0.5) & (shapes.overlap[i] > 0.25)).sum()
                ),
                "loss": float(gram.loss[i]),
            }
            for i, s in enumerate(gram.plan.sparsities)
        ],
        "dimensions": [
            {
                "inverse density": v,
                "dimensions per feature": float(packing.dimensions_per_feature[i]),
                "represented": int((packing.norms[i] > 0.5).sum()),
                "median dimensionality": _median(packing.dimensionality[i], packing.norms[i]),
            }
            for i, v in enumerate(INVERSE_DENSITIES)
        ],
        "phases": {
            name: {
                "cells": len(cells),
                "agreement": agreement(cells),
                "median loss over theory's": float(
                    torch.tensor([c.found_loss / c.expected_loss for c in cells]).median()
                ),
            }
            for name, cells in phases.items()
        },
    }


def _median(share: torch.Tensor, norms: torch.Tensor) -> float:
    learnt = share[norms > 0.5]
    return float(learnt.median()) if len(learnt) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PICTURES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scale = QUICK if args.quick else WHOLE
    began = time.perf_counter()

    def timed(name: str, make: Callable[[], Any]) -> Any:
        found = make()
        print(f"{time.perf_counter() - began:6.1f} s  {name}", flush=True)
        return found

    gram = timed("20 features in 5 dimensions", lambda: gram_models(scale))
    dimensions = timed("80 features in 10 dimensions", lambda: dimension_models(scale))
    phases = {
        name: timed(f"phase diagram, {name}", lambda h=hidden: phase_cells(h, scale))
        for name, hidden in (("2 features in 1 dimension", 1), ("3 features in 2 dimensions", 2))
    }
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "toy-gram": toy_pictures.gram_spec(gram),
        "toy-dimensions": toy_pictures.dimensions_spec(dimensions),
        "toy-phases": toy_pictures.phases_spec(phases),
    }
    for name, spec in pictures.items():
        (args.out / f"{name}.png").write_bytes(toy_pictures.png(spec))
    text = json.dumps(numbers(gram, dimensions, phases), indent=1)
    (args.out / "toy-models.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"{time.perf_counter() - began:6.1f} s  pictures in {args.out}")


if __name__ == "__main__":
    main()
