"""What correlations came to, in words."""

from __future__ import annotations

from auditkit.core.correlations import (
    CorrelationFinding,
    CorrelationMatch,
    CorrelationType,
    GroupBy,
    LockedCorrelation,
)
from auditkit.core.findings import FindingState
from auditkit.core.verdicts import Truth
from auditkit.report.figures import counted, rate

SHOWN = 3

_TYPES = {
    CorrelationType.SEQUENCE: "in this order",
    CorrelationType.CO_OCCURRENCE: "together",
    CorrelationType.COUNT: "counted",
    CorrelationType.POPULATION: "in enough prompts",
}


def members_in_words(c: LockedCorrelation) -> str:
    """Which rules are combined, how, and over what."""
    names = ", ".join(("no " if m.absent else "") + m.rule for m in c.members)
    size = [f"at least {c.at_least:,}"] if c.at_least is not None else []
    if c.share is not None:
        size.append(f"at least {c.share:.0%} of the prompts")
    if c.distinct is not None:
        size.append(f"distinct {c.distinct.value}s")
    if c.within is not None:
        size.append(f"within {counted(c.within.count, c.within.unit.value.removesuffix('s'))}")
    detail = f" ({', '.join(size)})" if size else ""
    return f"{names}, {_TYPES[c.type]}{detail}, per {group_noun(c)}"


def group_noun(c: LockedCorrelation) -> str:
    """What one verdict is about."""
    return f"tag {c.tag}" if c.group_by is GroupBy.TAG else c.group_by.value


def correlation_sentence(finding: CorrelationFinding) -> str:
    """One sentence on what a correlation came to on one suite."""
    decided, where = finding.groups - finding.unknown, f"on {finding.suite}"
    reasons = ", ".join(f"{reason} in {n:,}" for reason, n in finding.unknown_reasons)
    left = f"; {finding.unknown:,} more unknown ({reasons})" if finding.unknown else ""
    if finding.state is FindingState.FIRED:
        held = f"Held in {finding.fired:,} of {counted(decided, 'group')} {where}"
        return f"{held}: {rate(finding.rate)}{left}."
    if finding.state is FindingState.SILENT:
        return f"Did not hold in any of {counted(decided, 'group')} {where}{left}."
    if not finding.groups:
        return f"Unknown {where}: no prompt is in any of its groups."
    return f"Unknown {where}: {reasons}. It says neither yes nor no."


def shown_groups(finding: CorrelationFinding) -> list[CorrelationMatch]:
    """The first few groups in which it held."""
    return [m for m in finding.matches if m.truth is Truth.TRUE][:SHOWN]


def standing_on(match: CorrelationMatch) -> str:
    """The frames that a true verdict stands on."""
    named = [f"{f.rule_id} in frame {f.frame} of {f.prompt_id}" for f in match.frames[:SHOWN]]
    more = len(match.frames) - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more > 0 else "")
