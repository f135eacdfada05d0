"""How often causal tests tell planted causes from what only looks like one, over many tiny models.

    python benchmarks/planted_causes.py [--worlds 100] [--circuits 40] [--random 2]
                                        [--state FILE.jsonl] [--json FILE]

A world is a tiny model with a causal, an inert and a broadly damaging latent that fire on the same
tokens (`tests/planted.py`), and random live latents beside them; a circuit has a redundant pair
and a gate (`tests/planted_circuits.py`). Every latent is tested alone, and as one of its world's
family, with as many controls as that family asks for. Finished worlds are kept in `--state`, and
a run goes on where another stopped. `--json FILE` writes the counts, and FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.confirm import ControlPool, confirm_rule, finish_verdicts, plan_controls
from auditkit.core.confirmations import CausalVerdict
from auditkit.core.measured import Measured
from auditkit.core.statistics import binomial_rate
from tests.planted import BROAD, CAUSAL, INERT, PLANTED, SMALL, Planted, planted, rule_on
from tests.planted_circuits import GATE, PAIR, planted_circuits

WORLD, CIRCUIT = "world", "circuit"
EXPECTED = {
    "causal": CausalVerdict.CONFIRMED,
    "inert but correlated": CausalVerdict.DETECTOR_ONLY,
    "broad damage": CausalVerdict.NONSPECIFIC,
    "random live latent": None,
    "one of a redundant pair": CausalVerdict.SUFFICIENT_ONLY,
    "the redundant pair": CausalVerdict.CONFIRMED,
    "one side of a gate": CausalVerdict.NECESSARY_ONLY,
    "both sides of a gate": CausalVerdict.CONFIRMED,
}
Asked = list[tuple[str, tuple[int, ...]]]


def asked_of_world(world: Planted, seed: int, *, random: int) -> Asked:
    """What is tested in one world: name and latents."""
    live = np.flatnonzero(world.inputs.latents.q99 > 0)
    drawn = np.random.default_rng(seed).choice(live[live >= PLANTED], random, replace=False)
    named = {"causal": CAUSAL, "inert but correlated": INERT, "broad damage": BROAD}
    return [
        *((name, (latent,)) for name, latent in named.items()),
        *(("random live latent", (int(k),)) for k in drawn),
    ]


def asked_of_circuits() -> Asked:
    """What is tested in one model with circuits."""
    return [
        *(("one of a redundant pair", (k,)) for k in PAIR),
        ("the redundant pair", PAIR),
        *(("one side of a gate", (k,)) for k in GATE),
        ("both sides of a gate", GATE),
    ]


def verdicts_of(world: Planted, asked: Asked) -> list[dict[str, str]]:
    """Each latent's verdict alone, and among the others."""
    latent, isotropic, covariance = plan_controls(2 * len(asked), 0.05)
    settings = replace(
        SMALL,
        latent_controls=latent,
        isotropic_controls=isotropic,
        covariance_controls=covariance,
    )
    pool, raws = ControlPool(), []
    for _, latents in asked:
        rule = rule_on(*latents)
        raws.append(
            confirm_rule(
                world.model,
                world.sae,
                rule,
                rule.confirm[0],
                world.inputs,
                settings=settings,
                pool=pool,
            )
        )
    family = finish_verdicts(raws)
    return [
        {
            "planted": name,
            "alone": finish_verdicts([raw])[0].verdict.value,
            "family": together.verdict.value,
        }
        for (name, _), raw, together in zip(asked, raws, family, strict=True)
    ]


def report_of(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of verdicts, and the rates that count, with 95% intervals."""
    table: dict[str, Any] = {}
    for name, expected in EXPECTED.items():
        mine = [r for r in rows if r["planted"] == name]
        if not mine:
            continue
        entry: dict[str, Any] = {"n": len(mine), "expected": expected and expected.value}
        for how in ("alone", "family"):
            verdicts = Counter(r[how] for r in mine)
            entry[how] = {
                "verdicts": dict(verdicts.most_common()),
                "confirmed": _rate(verdicts[CausalVerdict.CONFIRMED.value], len(mine)),
                "as planted": _rate(verdicts[expected.value], len(mine)) if expected else None,
            }
        table[name] = entry
    return table


def _rate(hits: int, n: int) -> dict[str, float]:
    found = binomial_rate(hits, n)
    assert isinstance(found, Measured)
    assert found.interval is not None
    return {"value": found.value, "low": found.interval.low, "high": found.interval.high}


def markdown(table: dict[str, Any], worlds: int, circuits: int) -> str:
    """The table as a page."""
    lines = [
        "# Planted causes",
        "",
        f"{worlds} tiny models with three planted latents each, which fire on the same tokens, and "
        f"{circuits} with circuits; every latent tested at q 0.05, alone and as one of its model's "
        "family, with the controls that the family asks for. Exact 95% intervals. Goals: 95% of "
        "the causal latents confirmed; at most 5% of the inert and of the random ones. Written by "
        "`python benchmarks/planted_causes.py`.",
        "",
        "| planted | n | tested | confirmed | as planted | verdicts |",
        "| --- | --: | --- | --- | --- | --- |",
    ]
    for name, entry in table.items():
        for how in ("alone", "family"):
            cell = entry[how]
            verdicts = ", ".join(f"{v} {n}" for v, n in cell["verdicts"].items())
            right = (
                f"{entry['expected']}: {_shown(cell['as planted'])}" if entry["expected"] else ""
            )
            lines.append(
                f"| {name} | {entry['n']} | {how} | {_shown(cell['confirmed'])} | {right} | "
                f"{verdicts} |"
            )
    return "\n".join([*lines, ""])


def _shown(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--circuits", type=int, default=40)
    parser.add_argument("--random", type=int, default=2)
    parser.add_argument("--state", type=Path, default=Path("build/planted-causes.jsonl"))
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.state.parent.mkdir(parents=True, exist_ok=True)
    kept = args.state.read_text().splitlines() if args.state.exists() else []
    done = {(r["kind"], r["seed"]): r["rows"] for r in map(json.loads, kept)}
    wanted = [(WORLD, s) for s in range(args.worlds)] + [(CIRCUIT, s) for s in range(args.circuits)]
    for kind, seed in wanted:
        if (kind, seed) in done:
            continue
        if kind == WORLD:
            world = planted(seed)
            asked = asked_of_world(world, seed, random=args.random)
        else:
            world, asked = planted_circuits(seed), asked_of_circuits()
        done[kind, seed] = verdicts_of(world, asked)
        with args.state.open("a") as file:
            file.write(json.dumps({"kind": kind, "seed": seed, "rows": done[kind, seed]}) + "\n")
        said = ", ".join(f"{r['planted']}: {r['alone']} / {r['family']}" for r in done[kind, seed])
        print(f"{kind} {seed}: {said}", flush=True)
    table = report_of([row for place in wanted for row in done[place]])
    page = markdown(table, args.worlds, args.circuits)
    print(page)
    if args.json is not None:
        args.json.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        args.json.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()
