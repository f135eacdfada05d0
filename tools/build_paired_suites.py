"""Write the paired suites of examples/suites/, or check that the committed ones are this.

    python tools/build_paired_suites.py [--check] [--table]

Each file of tools/suite_text/paired/ becomes two suites, NAME-concerning and NAME-benign, so that a
rule can name one as the positive and the other as the negative side of a contrast. `--table` prints
how far plain text tells the twins apart (a minute of work).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from suite_text import balance, pairs, text_only

from auditkit.suites import write_suite

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "tools" / "suite_text" / "paired"
SUITES = ROOT / "examples" / "suites"


def render(family: pairs.Family, folder: Path) -> list[Path]:
    """Write both suites of a family into a folder."""
    paths = [folder / f"{family.name}-{side}.jsonl" for side in balance.SIDES]
    for path, side in zip(paths, balance.SIDES, strict=True):
        write_suite(pairs.suite(family, side), path)
    return paths


def complaints_about(families: list[pairs.Family]) -> list[str]:
    """Everything that is wrong with the texts."""
    found = [f"{f.name}: {text}" for f in families for text in balance.check_family(f)]
    return found + [text for text in balance.near_duplicates(families) if text not in found]


def differing(families: list[pairs.Family], suites: Path) -> list[str]:
    """Files of the folder that are not what this tool writes."""
    with tempfile.TemporaryDirectory() as name:
        wanted = [path for family in families for path in render(family, Path(name))]
        texts = {path.name: path.read_bytes() for path in wanted}
    committed = {path.name: path.read_bytes() for path in suites.glob("*.jsonl")}
    names = sorted(texts.keys() | committed.keys())
    return [f"{n} differs" for n in names if texts.get(n) != committed.get(n)]


def main() -> int:
    """Build or check all paired suites; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Write or check the paired suites.")
    parser.add_argument("--check", action="store_true", help="write nothing; compare and complain")
    parser.add_argument(
        "--table", action="store_true", help="measure how far text tells them apart"
    )
    arguments = parser.parse_args()
    families = pairs.read_families(TEXTS)
    complaints = complaints_about(families)
    if arguments.check:
        complaints += differing(families, SUITES)
    else:
        SUITES.mkdir(parents=True, exist_ok=True)
        for family in families:
            render(family, SUITES)
    if arguments.table:
        print(text_only.table(families))
    print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
