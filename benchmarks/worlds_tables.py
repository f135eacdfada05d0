"""The tables of `worlds.py`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from auditkit.core.measured import Measured
from auditkit.core.statistics import measure_mean
from auditkit.pipeline.planted.world_training import world_budget, world_objectives
from auditkit.quality.worlds import WorldSize
from benchmarks.worlds_trainers import (
    FROZEN,
    PEER_TRAINER,
    TOKENS_MEASURED,
    UNTRAINED,
    any_world,
)

MEASURES = {
    "recall": "MMCS",
    "recall_found": "found (cos > 0.9)",
    "recall_over_random": "MMCS over random",
    "precision": "MMCS of latents",
    "mcc": "MCC",
    "f1": "F1",
    "uniqueness": "unique",
    "splitting": "splitting",
    "shrinkage": "shrinkage",
    "absorption_excess": "absorption excess",
    "explained_variance": "EV",
    "l0": "L0",
    "dead_rate": "dead",
}


def summarise(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds with its 95% interval, for each world, size and trainer."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["world"], cell["size"], cell["trainer"]), []).append(cell)
    rows: list[dict[str, Any]] = []
    for (world, size, trainer), members in groups.items():
        measures: dict[str, Any] = {}
        for name in members[0]["measures"]:
            values = [m["measures"][name] for m in members if m["measures"][name] is not None]
            mean = measure_mean(values)
            measures[name] = None
            if isinstance(mean, Measured):
                measures[name] = {"mean": mean.value, "n": mean.n}
                if mean.interval is not None:
                    measures[name]["interval"] = [mean.interval.low, mean.interval.high]
        seconds = float(np.median([m["processor_seconds"] for m in members]))
        rows.append(
            {
                "world": world,
                "size": size,
                "trainer": trainer,
                "seeds": len(members),
                "processor_seconds": seconds,
                "measures": measures,
            }
        )
    return rows


def report(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything measured, with the facts of each world."""
    worlds = []
    for name, size in dict.fromkeys((c["world"], c["size"]) for c in cells):
        world = any_world(name, WorldSize(size))
        worlds.append(
            {
                "world": name,
                "size": size,
                "d_in": world.d_in,
                "features": world.n_features,
                "d_sae": world.d_sae,
                "k": world.k,
                "true_l0": world.true_l0,
                "rho": world.coherence().value,
                "training_tokens": world_budget("topk", world).tokens,
            }
        )
    return {
        "units": {
            "l0": "latents per token",
            "processor_seconds": "s, training, one thread",
            "everything else": "share or ratio, no unit",
        },
        "tokens_measured": TOKENS_MEASURED,
        "interval": "95%, BCa over seeds of the training; none below three seeds",
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "worlds": worlds,
        "rows": summarise(cells),
    }


def markdown(found: dict[str, Any]) -> str:
    """A section for each world and size."""
    lines = [
        "# Planted worlds",
        "",
        "What dictionaries find of features that are known. Means over seeds of the training, "
        "the world staying the same, with 95% intervals over seeds where there are three or more; "
        f"measured on {found['tokens_measured']:,} fresh tokens. Trained rows come first, then the "
        "floors (a decoder that is not trained, random rows, PCA, ICA), then the ceilings: the "
        "planted dictionary with its transpose as encoder, and with an oracle.",
    ]
    order = [*world_objectives(), PEER_TRAINER, FROZEN, *UNTRAINED]
    for world in found["worlds"]:
        rows = [
            r for r in found["rows"] if (r["world"], r["size"]) == (world["world"], world["size"])
        ]
        rows.sort(key=lambda r: order.index(r["trainer"]))
        shown = {m: said for m, said in MEASURES.items() if any(r["measures"][m] for r in rows)}
        lines += [
            "",
            f"## {world['world']}, {world['size']}",
            "",
            f"{world['features']:,} features in {world['d_in']} dimensions, ρ {world['rho']:.3f}, "
            f"{world['true_l0']:.2f} a token; {world['d_sae']:,} latents, k {world['k']}; topk "
            f"trained on {world['training_tokens']:,} tokens.",
            "",
            "| | seeds | " + " | ".join(shown.values()) + " | processor s |",
            "| --- | --: |" + " --: |" * (len(shown) + 1),
        ]
        for row in rows:
            cells = " | ".join(_cell(row["measures"][m]) for m in shown)
            lines.append(
                f"| {row['trainer']} | {row['seeds']} | {cells} | {row['processor_seconds']:.1f} |"
            )
    return "\n".join([*lines, ""])


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    text = f"{value['mean']:.3f}"
    if "interval" in value:
        low, high = value["interval"]
        text += f" ({low:.3f}–{high:.3f})"
    return text
