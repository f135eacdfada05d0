"""Every rule of a lock in a table: its scores beside plain baselines, its rates, recalls and cause.

    python benchmarks/rules_table.py reports/library/rules.lock.json [--report FILE] [--json FILE]

Reads the lock, the report.json beside it (for the verdicts of the causal tests), and the shipped
rule files (for the suites that chose each rule). Writes benchmarks/results/rules.md, or `--out
FILE`. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.errors import AuditkitError
from auditkit.pipeline.report_files import read_report
from auditkit.pipeline.rule_files.files import load_rule_documents
from auditkit.rules import read_lock
from benchmarks.rules_facts import table_facts
from benchmarks.rules_markdown import to_markdown
from benchmarks.rules_summary import summarise

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("lock", type=Path, help="the rules.lock.json of an audit")
    parser.add_argument("--report", type=Path, help="its report.json; by default the one beside it")
    parser.add_argument("--rules", action="append", help="rule files; by default the shipped ones")
    parser.add_argument("--out", type=Path, default=RESULTS / "rules.md")
    parser.add_argument("--json", type=Path, help="the same as one JSON document")
    given = parser.parse_args(arguments)
    try:
        text, document = build(given.lock, given.report, given.rules or ["builtin"])
    except AuditkitError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    given.out.write_text(text, encoding="utf-8")
    if given.json:
        given.json.write_text(document, encoding="utf-8")
    print(f"wrote {given.out}")
    return 0


def build(lock: Path, report: Path | None, rules: list[str]) -> tuple[str, str]:
    """The page and the JSON document."""
    beside = lock.with_name("report.json")
    found = report or (beside if beside.is_file() else None)
    facts = table_facts(
        read_lock(lock),
        read_report(found) if found is not None else None,
        load_rule_documents(rules),
    )
    document = json.dumps({**facts, "summary": summarise(facts)}, indent=1, ensure_ascii=False)
    return to_markdown(facts), document + "\n"


if __name__ == "__main__":
    sys.exit(main())
