"""Results of rules' tests, and how a run of them ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from auditkit.core.errors import ExitCode
from auditkit.core.verdicts import Verdict
from auditkit.rules import Outcome
from auditkit.rules.trying.atoms import Atom, RuleCoverage

Kind = Literal["unit", "should_match", "should_not_match"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """One test of one rule; `seconds` None: it ran together with others."""

    rule_id: str
    kind: Kind
    name: str
    outcome: Outcome
    verdict: Verdict
    message: str
    seconds: float | None = None

    def row(self) -> dict[str, Any]:
        """As JSON gives it: without times, so that equal runs give equal bytes."""
        return {k: v for k, v in asdict(self).items() if k != "seconds"}

    def line(self) -> str:
        """As text gives it."""
        kind = "" if self.kind == "unit" else f"{self.kind} "
        return (
            f"{self.outcome.value:<17} {self.rule_id} · {kind}{self.name}  {self.message}".rstrip()
        )


def tally(tests: Sequence[RuleTest]) -> str:
    """How many came out how."""
    counts = Counter(t.outcome.value for t in tests)
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))


def exit_code_of_tests(tests: Sequence[RuleTest]) -> ExitCode:
    """4 where nothing ran or all is unresolved, 1 where a test did not pass (or is unresolved)."""
    if all(t.outcome is Outcome.UNRESOLVED for t in tests):
        return ExitCode.NOTHING_EVALUATED
    return ExitCode.CLEAN if all(t.outcome.good for t in tests) else ExitCode.FINDINGS


def coverage_row(coverage: RuleCoverage) -> dict[str, Any]:
    """A rule's coverage as a JSON object."""
    return {"rule_id": coverage.rule_id, "share": coverage.share, **asdict(coverage)}


def coverage_text(coverages: Sequence[RuleCoverage]) -> str:
    """A table: every comparison with the number of tests that showed it true, and false."""
    lines = ["", "coverage of comparisons (tests that showed each true, and false)"]
    for coverage in coverages:
        lines.append(f"{coverage.share:>5.0%}  {coverage.rule_id}")
        lines += [f"       {_seen(atom)}  {atom.text}" for atom in coverage.atoms]
        lines += [f"       evaluators disagree: {d}" for d in coverage.disagreements]
    lines.append(f"{total_share(coverages):>5.0%}  of all")
    return "\n".join(lines)


def total_share(coverages: Sequence[RuleCoverage]) -> float:
    """Truths seen of all that there are."""
    atoms = [a for c in coverages for a in c.atoms]
    return sum(a.seen for a in atoms) / (2 * len(atoms)) if atoms else 1.0


def _seen(atom: Atom) -> str:
    parts = [
        f"{word} {len(tests)}" if tests else f"never {word}"
        for word, tests in (("true", atom.seen_true), ("false", atom.seen_false))
    ]
    return f"{parts[0]:<11} {parts[1]:<11}"
