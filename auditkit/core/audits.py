"""Everything one audit concluded and what it stands on: what a report is built from."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.core.confirmations import Confirmation
from auditkit.core.correlations import CorrelationFinding
from auditkit.core.findings import Finding
from auditkit.core.locks import Lock
from auditkit.core.measured import Measure
from auditkit.core.prompts import Role
from auditkit.core.recordings import Recording
from auditkit.core.verdicts import Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token of a shown match; `activation` is the signals' largest value relative to the
    largest of the whole conversation (0 to 1), None where the token was not covered."""

    text: str
    role: Role
    masked: bool
    generated: bool
    activation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalOnTokens:
    """A signal's value on each token of a shown match, in its unit; None: not covered."""

    signal: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchView:
    """A match with its conversation, token by token, for a reader to check.

    `fired_at` is the place of the firing token in `tokens`.
    """

    rule_id: str
    suite: str
    prompt_id: str
    frame: int
    truth: Truth
    score: Measure
    fired_at: int | None
    tokens: tuple[TokenView, ...]
    signals: tuple[SignalOnTokens, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSummary:
    """A recorded suite: where it comes from and how much of it was looked at."""

    name: str
    title: str
    source: str
    licence: str
    recording: str
    use: str
    prompts: int
    tokens: int
    eligible_tokens: int
    masked: tuple[tuple[str, int], ...]
    generated_tokens: int
    covered_tokens: int
    activations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMeasure:
    """A measure with its name, its unit and a note for the reader."""

    name: str
    value: Measure
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One audit, whole.

    `sae_quality` are the SAE's measures on held-out text, from its card; `fidelity` are those
    measured on the audited prompts themselves.
    """

    name: str
    title: str
    description: str
    subject: tuple[Recording, ...]
    lock: Lock
    suites: tuple[SuiteSummary, ...]
    findings: tuple[Finding, ...]
    views: tuple[MatchView, ...]
    confirmations: tuple[Confirmation, ...]
    sae_quality: tuple[NamedMeasure, ...]
    fidelity: tuple[NamedMeasure, ...]
    limits: tuple[str, ...]
    correlations: tuple[CorrelationFinding, ...] = ()
