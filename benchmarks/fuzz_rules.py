"""Fuzz the readers of rule files: conditions, YAML texts, documents, patterns.

    python benchmarks/fuzz_rules.py --inputs 100000 --seed 1

Writes benchmarks/results/fuzz_rules.json. An input that ends in anything but a diagnostic, or that
takes more than a second of processor time, is a failure and is written down.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzzed_rules import inputs, read

RESULT = Path(__file__).parent / "results" / "fuzz_rules.json"
LIMIT_SECONDS = 1.0
WARM_UP = 0.2
"""The share of the inputs after which memory is first measured: caches are filled by then."""


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Read `count` inputs; what came out, how long the slowest took, how memory grew."""
    outcomes: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    failures: list[dict[str, str]] = []
    memory: list[float] = []
    started = time.time()
    for number, given in enumerate(inputs(seed, count)):
        before = time.process_time()
        try:
            outcomes[f"{given.kind} {'taken' if read(given) else 'refused'}"] += 1
        except Exception as error:
            outcomes[f"{given.kind} failed"] += 1
            told = f"{type(error).__name__}: {error}"[:300]
            failures.append({"kind": given.kind, "text": ascii(given.text[:300]), "error": told})
        took = time.process_time() - before
        slowest[given.kind] = max(slowest.get(given.kind, 0.0), took)
        if took > LIMIT_SECONDS:
            failures.append(
                {"kind": given.kind, "text": ascii(given.text[:300]), "error": f"{took:.2f} s"}
            )
        if number % (count // 10 or 1) == 0 and number >= WARM_UP * count:
            memory.append(round(resident_mib(), 1))
    return {
        "inputs": count,
        "seed": seed,
        "python": platform.python_version(),
        "seconds": round(time.time() - started, 1),
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_cpu_seconds": {k: round(v, 3) for k, v in sorted(slowest.items())},
        "resident_mib_from_20_percent_on": memory,
        "failures": len(failures),
        "first_failures": failures[:20],
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = fuzz(given.inputs, given.seed)
    text = json.dumps(result, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    raise SystemExit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
