"""A rule's conclusion in one run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import Measure
from auditkit.core.standing import Severity
from auditkit.core.verdicts import Match


class FindingState(StrEnum):
    """What a rule came to in a run."""

    FIRED = "fired"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule's matches on one suite, counted and ranked.

    `fp` is stable: the same rule on the same model and suite gives the same fingerprint in every
    run, so that runs can be compared. `filtered` counts, by filter, the true matches that a filter
    excuses: they are among `matches` and not among the `fired`.
    """

    fp: str
    rule_id: str
    rule_digest: str
    suite: str
    state: FindingState
    severity: Severity
    frames: int
    fired: int
    unknown: int
    unknown_reasons: tuple[tuple[str, int], ...]
    rate: Measure
    matches: tuple[Match, ...]
    filtered: tuple[tuple[str, int], ...] = ()


def finding_fingerprint(rule_id: str, model_name: str, suite: str) -> str:
    """Name a finding `fp1:…` by what it is about, not by what it measured."""
    return "fp1:" + fingerprint({"rule": rule_id, "model": model_name, "suite": suite}, length=16)
