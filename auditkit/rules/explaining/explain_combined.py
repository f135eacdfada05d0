"""What a filter or a correlation means, in words."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.correlations import (
    CorrelationType,
    Distinct,
    GroupBy,
    LockedCorrelation,
    SpanUnit,
)
from auditkit.core.filters import FilterException, LockedFilter

_GROUPS = {
    GroupBy.CONVERSATION: "in one conversation",
    GroupBy.LABEL: "among the prompts of one recording with the same label",
    GroupBy.SUITE: "among the prompts of one suite",
    GroupBy.RECORDING: "among the prompts of one recording",
}


def explain_filter(tuning: LockedFilter) -> str:
    """A filter in plain words."""
    end = f" until {tuning.expires}" if tuning.expires else ", without an end"
    lines = [
        f"{tuning.id} rev {tuning.rev} (filter)",
        tuning.title,
        f"digest {tuning.digest}",
        "",
        f"From {tuning.date}{end} ({tuning.author}), matches of these rules are excused: "
        f"{', '.join(tuning.rules)}.",
        f"Reason: {tuning.reason.strip()}",
        "An excused match stays on record as true, with this filter's id. It is one where",
        *(f"  - {' and '.join(_asked(e))}" for e in tuning.exceptions),
    ]
    return "\n".join(lines) + "\n"


def _asked(e: FilterException) -> Iterator[str]:
    for what, names in (
        ("the suite is", e.suites),
        ("the prompt's label is", e.labels),
        ("the prompt has the tag", e.tags),
        ("the prompt is", e.prompts),
        ("the firing token is said by", e.roles),
    ):
        if names:
            yield f"{what} {' or '.join(names)}"
    if e.text is not None:
        yield f"the frame's text contains /{e.text}/"
    if e.rule is not None:
        yield f"{e.rule} is true on the same frame"


def explain_correlation(c: LockedCorrelation) -> str:
    """A correlation in plain words."""
    lines = [
        f"{c.id} rev {c.rev} (correlation, {c.status.value}, {c.severity.value})",
        c.title,
        *([c.description.strip()] if c.description else []),
        f"digest {c.digest}",
        "",
        f"Holds where, {group_in_words(c)}, {_claim(c)}.",
        "A match that a filter excuses is none. Unknown members leave it unknown wherever they "
        "could change it.",
        f"Known to be wrong on: {'; '.join(c.false_positives)}.",
    ]
    return "\n".join(lines) + "\n"


def group_in_words(c: LockedCorrelation) -> str:
    """What is looked at together."""
    if c.group_by is GroupBy.TAG:
        return f"among the prompts of one recording with the same tag {c.tag}:…"
    return _GROUPS[c.group_by]


def _claim(c: LockedCorrelation) -> str:
    absent = [m.rule for m in c.members if m.absent]
    present = " and ".join(c.present)
    if c.type is CorrelationType.SEQUENCE:
        steps = ", then ".join(f"no {m.rule}" if m.absent else m.rule for m in c.members)
        return f"these match in this order: {steps}{_span(c)}"
    without = f", and {' or '.join(absent)} nowhere" if absent else ""
    if c.type is CorrelationType.CO_OCCURRENCE:
        return f"{present} match{_span(c)}{without}"
    if c.type is CorrelationType.COUNT:
        counted = {None: "frames", Distinct.RULE: "rules", Distinct.PROMPT: "prompts"}[c.distinct]
        return f"at least {c.at_least} {counted} match, of {present}{_span(c)}{without}"
    sizes = [f"at least {c.at_least}"] if c.at_least is not None else []
    sizes += [f"at least {c.share:.4g} of all"] if c.share is not None else []
    return f"{' and '.join(sizes)} prompts have a match of {present}{without}"


def _span(c: LockedCorrelation) -> str:
    if c.within is None:
        return ""
    unit = c.within.unit.value
    noun = unit.removesuffix("s") if c.within.count == 1 else unit
    at_once = "" if c.within.unit is SpanUnit.FRAMES else ", from the first to the last"
    return f" within {c.within.count} {noun}{at_once}"
