"""Filters and correlations as records: their rules by id, their digests."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from auditkit.core.correlations import (
    CorrelationMember,
    CorrelationType,
    GroupBy,
    LockedCorrelation,
    SpanUnit,
    Within,
)
from auditkit.core.filters import FilterException, LockedFilter
from auditkit.core.fingerprint import fingerprint
from auditkit.rules.documents.correlation_documents import (
    CorrelationDocument,
    CountDocument,
    PopulationDocument,
)
from auditkit.rules.documents.filter_documents import ExceptionDocument, FilterDocument

_FILTER_MEANING = {"id", "rules", "exceptions", "expires"}
_CORRELATION_MEANING = {
    "id", "type", "of", "group_by", "within", "at_least", "share", "distinct",
}  # fmt: skip


def tuned_rules(patterns: Sequence[str], rule_ids: Sequence[str]) -> tuple[str, ...]:
    """The rules that ids or globs (`*`, `?`) name, in the order of `rule_ids`."""
    return tuple(r for r in rule_ids if any(fnmatchcase(r, p) for p in patterns))


def filter_digest(document: FilterDocument) -> str:
    """SHA-256 over what a filter excuses, in which rules, until when; not its prose."""
    return fingerprint(document.model_dump(mode="json", include=_FILTER_MEANING))


def correlation_digest(document: CorrelationDocument) -> str:
    """SHA-256 over what a correlation asks of which rules; not its prose, status or tests."""
    return fingerprint(document.model_dump(mode="json", include=_CORRELATION_MEANING))


def lock_filter(document: FilterDocument, rule_ids: Sequence[str]) -> LockedFilter:
    """The filter with those of `rule_ids` that it tunes."""
    return LockedFilter(
        id=document.id,
        rev=document.rev,
        digest=filter_digest(document),
        title=document.title,
        reason=document.reason,
        author=document.author,
        date=document.date,
        expires=document.expires,
        rules=tuned_rules(document.rules, rule_ids),
        exceptions=tuple(map(_exception, document.exceptions)),
    )


def _exception(document: ExceptionDocument) -> FilterException:
    return FilterException(
        suites=document.suites or (),
        labels=document.labels or (),
        tags=document.tags or (),
        prompts=document.prompts or (),
        roles=document.roles or (),
        text=document.text,
        rule=document.rule,
    )


def lock_correlation(document: CorrelationDocument) -> LockedCorrelation:
    """The correlation as a record."""
    kind, _, key = document.group_by.partition(":")
    sized = document if isinstance(document, CountDocument | PopulationDocument) else None
    within = None if isinstance(document, PopulationDocument) else document.within
    return LockedCorrelation(
        id=document.id,
        rev=document.rev,
        digest=correlation_digest(document),
        title=document.title,
        description=document.description,
        severity=document.severity,
        status=document.status,
        tags=document.tags,
        false_positives=document.false_positives,
        type=CorrelationType(document.type),
        members=tuple(CorrelationMember(rule=m.rule, absent=m.absent) for m in document.of),
        group_by=GroupBy(kind),
        tag=key or None,
        within=None if within is None else _within(within),
        at_least=None if sized is None else sized.at_least,
        share=document.share if isinstance(document, PopulationDocument) else None,
        distinct=document.distinct if isinstance(document, CountDocument) else None,
    )


def _within(text: str) -> Within:
    count, unit = text.split()
    return Within(count=int(count), unit=SpanUnit(unit if unit.endswith("s") else unit + "s"))
