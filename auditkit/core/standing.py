"""How grave what a rule finds is, and how far the rule has been proven."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How grave a finding is, least first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Status(StrEnum):
    """How far a rule has been proven."""

    EXPERIMENTAL = "experimental"
    TEST = "test"
    STABLE = "stable"
    DEPRECATED = "deprecated"
