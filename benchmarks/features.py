"""How long each verb of `auditkit features` takes over ten million activations.

    python benchmarks/features.py [--activations 10000000] [--rounds 7] [--store FILE] [--json FILE]

The store is made (benchmarks/features_store.py) unless FILE is there. Cold: the first call after
opening the store, in a fresh connection each round (the operating system's cache is left alone).
Warm: the second call of the same round. Verbs take turns. The goal is a warm median below 1 s;
processor seconds are those of all threads, which other work on the machine does not inflate.
`--json FILE` also writes FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.measured import NotMeasured
from auditkit.features import (
    Scope,
    contrast,
    fires_together,
    open_scope,
    profile_latent,
    search_text,
    select,
    top_latents,
)
from auditkit.store import Store, open_store
from benchmarks.features_store import PLANTED, make_store

GOAL = 1.0
NO = NotMeasured("not part of the benchmark")
VERBS: dict[str, Callable[[Store, Scope], object]] = {
    "top": lambda s, c: top_latents(s, c, None, by="max", most=20),
    "show": lambda s, c: profile_latent(s, c, PLANTED, directions=NO),
    "contrast": lambda s, c: contrast(s, c, ("yes", select(c, "yes")), ("no", select(c, "no"))),
    "cooccur": lambda s, c: fires_together(s, c, PLANTED),
    "search": lambda s, c: search_text(s, c, " the of"),
}


def measure(path: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per verb: cold and warm on the clock, and warm on the processors."""
    found = {v: {"cold": [], "warm": [], "processor": []} for v in VERBS}
    for number in range(rounds):
        for verb in list(VERBS)[:: 1 if number % 2 == 0 else -1]:
            with open_store(path, read_only=True) as store:
                scope = open_scope(store)
                for kind in ("cold", "warm"):
                    clock, processor = time.perf_counter(), time.process_time()
                    VERBS[verb](store, scope)
                    found[verb][kind].append(time.perf_counter() - clock)
                found[verb]["processor"].append(time.process_time() - processor)
    return found


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        f"# The workbench over {report['activations']:,} activations",
        "",
        f"{report['processors']} processors, load average {report['load']:.1f} during the run "
        "(1 per busy processor), medians over "
        f"n = {report['rounds']} rounds, seconds; goal: warm below {GOAL:g}.",
        "",
        "| verb | cold | warm | warm, processor | goal |",
        "| --- | --: | --: | --: | --- |",
    ]
    for verb, row in report["verbs"].items():
        met = "met" if row["warm"] < GOAL else "not met"
        lines.append(
            f"| {verb} | {row['cold']:.2f} | {row['warm']:.2f} | {row['processor']:.2f} | {met} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activations", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.store or Path(folder) / "made.duckdb"
        if not path.exists():
            make_store(path, given.activations)
        with open_store(path, read_only=True) as store:
            held = store.query("SELECT count(*) AS n FROM activations")["n"][0].as_py()
        found = measure(path, given.rounds)
    report: dict[str, Any] = {
        "activations": held,
        "rounds": given.rounds,
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "goal": GOAL,
        "verbs": {v: {k: statistics.median(x) for k, x in row.items()} for v, row in found.items()},
        "seconds": found,
    }
    print(markdown(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
        given.json.with_suffix(".md").write_text(markdown(report))


if __name__ == "__main__":
    main()
