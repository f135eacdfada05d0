"""Which rule files a command means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.core.correlations import LockedCorrelation
from auditkit.core.errors import NothingEvaluated
from auditkit.core.filters import LockedFilter
from auditkit.rules import (
    CorrelationDocument,
    FilterDocument,
    RuleDocument,
    load_rules,
    lock_correlation,
    lock_filter,
)
from auditkit.suites import library_root

BUILTIN = "builtin"


def rule_paths(paths: Sequence[str], *, base: Path | None = None) -> list[Path]:
    """The given paths (relative ones start at `base`); none, or `builtin`: the shipped library."""
    return [
        library_root() if path == BUILTIN else (base or Path()) / Path(path).expanduser()
        for path in paths or [BUILTIN]
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """Rules with the filters that tune them and the correlations that combine them."""

    rules: tuple[RuleDocument, ...]
    filters: tuple[FilterDocument, ...] = ()
    correlations: tuple[CorrelationDocument, ...] = ()

    def locked_filters(self) -> tuple[LockedFilter, ...]:
        """The filters, each with the rules that it tunes."""
        ids = [rule.id for rule in self.rules]
        return tuple(lock_filter(f, ids) for f in self.filters)

    def locked_correlations(self) -> tuple[LockedCorrelation, ...]:
        """The correlations as records."""
        return tuple(map(lock_correlation, self.correlations))


def load_rule_set(paths: Sequence[str], *, base: Path | None = None) -> RuleSet:
    """Everything in some files or folders; raises like `load_rule_documents`."""
    files = load_rules(rule_paths(paths, base=base))
    found = RuleSet(
        rules=tuple(rule for file in files for rule in file.rules),
        filters=tuple(f for file in files for f in file.filters),
        correlations=tuple(c for file in files for c in file.correlations),
    )
    if not found.rules:
        named = ", ".join(paths)
        raise NothingEvaluated(f"no rules in {named}", help="name rule files, or folders of them")
    return found


def load_rule_documents(paths: Sequence[str], *, base: Path | None = None) -> list[RuleDocument]:
    """The rules of some files or folders; raises DocumentError, or NothingEvaluated for none."""
    return list(load_rule_set(paths, base=base).rules)
