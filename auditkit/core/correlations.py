"""Rules combined: what a correlation asks of its members' matches, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.findings import FindingState
from auditkit.core.measured import Measure
from auditkit.core.standing import Severity, Status
from auditkit.core.verdicts import Reason, Truth


class CorrelationType(StrEnum):
    """How members are combined: in order, together, often enough, in enough prompts."""

    SEQUENCE = "sequence"
    CO_OCCURRENCE = "co_occurrence"
    COUNT = "count"
    POPULATION = "population"


class GroupBy(StrEnum):
    """What a correlation concludes about: matches of one group are looked at together."""

    CONVERSATION = "conversation"
    LABEL = "label"
    TAG = "tag"
    SUITE = "suite"
    RECORDING = "recording"


class Distinct(StrEnum):
    """What a count counts, instead of frames."""

    RULE = "rule"
    PROMPT = "prompt"


class SpanUnit(StrEnum):
    """In what the stretch of a conversation is measured in which members must lie."""

    TOKENS = "tokens"
    MESSAGES = "messages"
    EXCHANGES = "exchanges"
    FRAMES = "frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """At most `count` consecutive units, first and last included."""

    count: int
    unit: SpanUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationMember:
    """A rule that must match, or (`absent`) must not."""

    rule: str
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedCorrelation:
    """A correlation of locked rules; `tag` is the key of the tags it groups by."""

    id: str
    rev: int
    digest: str
    title: str
    description: str
    severity: Severity
    status: Status
    tags: tuple[str, ...]
    false_positives: tuple[str, ...]
    type: CorrelationType
    members: tuple[CorrelationMember, ...]
    group_by: GroupBy
    tag: str | None = None
    within: Within | None = None
    at_least: int | None = None
    share: float | None = None
    distinct: Distinct | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """The rules that must match, in order."""
        return tuple(m.rule for m in self.members if not m.absent)

    @property
    def rules(self) -> tuple[str, ...]:
        """Every rule it looks at, once."""
        return tuple(dict.fromkeys(m.rule for m in self.members))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedFrame:
    """A frame on which a member matched."""

    rule_id: str
    recording: str
    prompt_id: str
    frame: int
    token: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationMatch:
    """A correlation's verdict on one group; `frames` are the matches that a true one stands on."""

    correlation_id: str
    correlation_digest: str
    suite: str
    group: str
    truth: Truth
    reason: Reason | None
    frames: tuple[MatchedFrame, ...] = ()

    def __post_init__(self) -> None:
        if (self.truth is Truth.UNKNOWN) != (self.reason is not None):
            raise ValueError("an unknown verdict carries a reason, and no other does")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationFinding:
    """A correlation's verdicts on the groups of one suite, counted.

    `fp` is stable, like that of a rule's finding. `rate` is over decided groups.
    """

    fp: str
    correlation_id: str
    correlation_digest: str
    suite: str
    state: FindingState
    severity: Severity
    groups: int
    fired: int
    unknown: int
    unknown_reasons: tuple[tuple[str, int], ...]
    rate: Measure
    matches: tuple[CorrelationMatch, ...]
