"""`auditkit rules list`: what is known of each rule, from its file, its lock and its report."""

from __future__ import annotations

import io
import json as json_format
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Calibration, DetectorScore, Lock, LockedRule, NotCalibrated
from auditkit.core.measured import Measure, Measured
from auditkit.pipeline.rule_files.files import RuleSet, load_rule_set
from auditkit.rules import RuleDocument, read_lock

WIDTH = 100
LONGEST = 22
"""Of a rule's id in one line of the table."""
NOT_MEASURED = "not measured"
NO_REPORT = "no report"
_SHORT = {
    "difference of means": "means",
    "logistic regression on dense activations": "logistic",
    "text only (TF-IDF)": "text",
}

Row = dict[str, Any]
Confirmed = Callable[[LockedRule], str]
"""What the causal tests of a rule came to."""


def list_paths(
    paths: Sequence[str], lock: Path | None, *, json: bool, report: Path | None = None
) -> str:
    """A table of rules with what is known of each; `report`: a report.json of the lock's audit, by
    default the one beside it."""
    if report is not None and lock is None:
        raise InvalidInput("--report belongs to a --lock, which is not given")
    loaded = load_rule_set(paths)
    opened = read_lock(lock) if lock is not None else None
    confirmed = _confirmations(lock, report)
    rows = [_row(rule, opened, confirmed) for rule in loaded.rules]
    tuned = _tuned_rows(loaded, opened)
    if json:
        return json_format.dumps([*rows, *tuned], indent=1, ensure_ascii=False)
    if opened is None:
        return _plain_table([*rows, *tuned])
    shown = [_wide_table(rows), *([_plain_table(tuned)] if tuned else []), *_together(opened)]
    return "\n".join(shown)


def _plain_table(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(k for r in rows for k in r))
    widths = {k: max(len(k), *(len(str(r.get(k, ""))) for r in rows)) for k in names}
    lines = ["  ".join(k.ljust(w) for k, w in widths.items())]
    lines += ["  ".join(str(r.get(k, "")).ljust(w) for k, w in widths.items()) for r in rows]
    return "\n".join(line.rstrip() for line in lines)


def _wide_table(rows: Sequence[Row]) -> str:
    """Rules of a lock within 100 columns; long names go on in the next line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("rule", min_width=LONGEST, max_width=LONGEST, overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("res.", no_wrap=True)
    table.add_column("calibrated", max_width=10)
    table.add_column("AUROC", no_wrap=True)
    table.add_column("best baseline", max_width=8)
    table.add_column("recall", no_wrap=True)
    table.add_column("worst variant", max_width=13)
    table.add_column("confirmed", max_width=12)
    for row in rows:
        resolved = row["resolved"]
        bound = resolved in ("yes", "no")
        certified = str(row["calibrated"]).removeprefix("not calibrated: ") if bound else resolved
        cells = [_in_lines(row["rule"]), row["status"], resolved if bound else "–", certified]
        cells += [_dash(row.get("AUROC")), _best_in_short(row), _dash(row.get("recall"))]
        cells += [_worst_in_short(row), row.get("confirmed", "–")]
        table.add_row(*(Text(str(cell)) for cell in cells))
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False, emoji=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _in_lines(rule_id: str) -> str:
    """The id, going on in a new line after a dot or underscore where it is too long for one."""
    lines = [""]
    for part in re.findall(r"[^._]*[._]?", rule_id):
        if lines[-1] and len(lines[-1] + part) > LONGEST:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _dash(value: str | None) -> str:
    return "–" if value in (None, NOT_MEASURED) else str(value)


def _best_in_short(row: Row) -> str:
    name = row.get("best baseline")
    return "–" if not name else f"{row['baseline AUROC']} {_SHORT.get(name, name)}"


def _worst_in_short(row: Row) -> str:
    return f"{row['worst recall']} {row['worst variant']}" if row.get("worst variant") else "–"


def _row(rule: RuleDocument, lock: Lock | None, confirmed: Confirmed) -> Row:
    row: Row = {
        "rule": rule.id,
        "status": rule.status.value,
        "severity": rule.severity.value,
        "unit tests": len(rule.tests.unit),
    }
    if lock is None:
        return row
    locked = next((r for r in lock.rules if r.id == rule.id), None)
    return row | (_locked_row(locked, confirmed) if locked else {"resolved": "not in the lock"})


def _locked_row(locked: LockedRule, confirmed: Confirmed) -> Row:
    own = next((s for s in locked.scores if s.detector == "rule"), None)
    best = _best_baseline(locked.scores)
    worst = locked.worst_variant
    written = locked.robustness[0].recall if locked.robustness else None
    return {
        "status": locked.status.value,
        "resolved": "yes" if all(s.unresolved is None for s in locked.signals) else "no",
        "calibrated": _certificate(locked.calibration),
        "AUROC": _number(own.auroc if own else None),
        "best baseline": best.detector if best else None,
        "baseline AUROC": _number(best.auroc if best else None),
        "recall": _number(own.recall if own else None, digits=2),
        "baseline recall": _number(best.recall if best else None, digits=2),
        "scored on": own.source if own else "",
        "recall as written": _number(written, digits=2),
        "worst variant": worst.variant if worst else None,
        "worst recall": _number(worst.recall if worst else None, digits=2),
        "confirmations": len(locked.confirm),
        "confirmed": confirmed(locked),
    }


def _best_baseline(scores: Sequence[DetectorScore]) -> DetectorScore | None:
    known = [
        (s, s.auroc.value) for s in scores if s.detector != "rule" and isinstance(s.auroc, Measured)
    ]
    return max(known, key=lambda pair: pair[1])[0] if known else None


def _number(value: Measure | None, *, digits: int = 3) -> str:
    return f"{value.value:.{digits}f}" if isinstance(value, Measured) else NOT_MEASURED


def _certificate(found: Calibration | NotCalibrated | None) -> str:
    """The certified rate, or what is missing to it."""
    if found is None:
        return "not used"
    if isinstance(found, Calibration):
        return f"≤ {found.target_fpr:g}"
    if found.needs_more is None:
        return found.said
    return f"not calibrated: needs {found.needs_more:,} more"


def _confirmations(lock: Path | None, report: Path | None) -> Confirmed:
    """Verdicts of the causal tests from a report.json; of a rule that it has in another state
    there are none."""
    path = report if report is not None or lock is None else lock.with_name("report.json")
    if path is None or (report is None and not path.is_file()):
        return lambda _: NO_REPORT
    # Only here: the report's templates are no part of listing rule files.
    from auditkit.pipeline.report_files import read_report

    document = read_report(path)
    digests = {rule.id: rule.digest for rule in document.audit.lock.rules}
    verdicts: Mapping[str, list[str]] = {
        rule_id: [c.verdict.value for c in document.confirmations(rule_id)] for rule_id in digests
    }

    def said(rule: LockedRule) -> str:
        if digests.get(rule.id) != rule.digest:
            return "changed since" if rule.id in digests else "not reported"
        return ", ".join(verdicts[rule.id]) or "not tested"

    return said


def _together(lock: Lock) -> list[str]:
    """What is certified of all rules of a lock together."""
    if not lock.joint:
        return []
    from auditkit.report import joint_sentence

    return [fill(joint_sentence(joint), WIDTH) for joint in lock.joint]


def _tuned_rows(loaded: RuleSet, lock: Lock | None) -> list[Row]:
    """Filters and correlations, each with what it is in a column of its own."""
    known = {} if lock is None else {x.id: x.digest for x in (*lock.filters, *lock.correlations)}
    rows: list[Row] = [
        {
            "rule": c.id,
            "status": c.status.value,
            "severity": c.severity.value,
            "unit tests": len(c.tests.unit),
            "kind": f"correlation ({c.type})",
        }
        for c in loaded.correlations
    ]
    rows += [{"rule": f.id, "kind": "filter", "expires": f.expires or ""} for f in loaded.filters]
    tuned = (*loaded.locked_correlations(), *loaded.locked_filters())
    if lock is not None:
        for row, own in zip(rows, tuned, strict=True):
            found = known.get(own.id)
            same = "yes" if found == own.digest else "changed since"
            row["resolved"] = same if found else "not in the lock"
    return rows
