"""`correlations:` as they stand in a rule file: rules in order, together, or by number."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from auditkit.core.correlations import Distinct
from auditkit.core.documents import Document
from auditkit.core.standing import Severity, Status
from auditkit.rules.documents.fields import Expected, Name, Revision, RuleId, Text

GroupName = Annotated[str, Field(pattern=r"^(conversation|label|suite|recording|tag:[^\s:]+)$")]
PromptGroupName = Annotated[str, Field(pattern=r"^(label|suite|recording|tag:[^\s:]+)$")]
WithinText = Annotated[
    str, Field(pattern=r"^[1-9][0-9]{0,6} (tokens?|messages?|exchanges?|frames?)$")
]
AtLeast = Annotated[int, Field(ge=1, le=1_000_000)]
Series = Annotated[dict[RuleId, Text], Field(min_length=1)]

_ONE_SERIES: dict[str, Any] = {"oneOf": [{"required": ["series"]}, {"required": ["prompts"]}]}
_ONE_SIZE: dict[str, Any] = {"anyOf": [{"required": ["at_least"]}, {"required": ["share"]}]}


class MemberDocument(Document):
    """A rule that must match, or must not (`absent`)."""

    rule: RuleId
    absent: bool = False


class CorrelationTest(Document, json_schema_extra=_ONE_SERIES):
    """Verdicts of the members, and the verdict they must give: `series` are one conversation,
    `prompts` the conversations of a group."""

    name: Name
    series: Series | None = None
    prompts: Annotated[tuple[Series, ...], Field(min_length=1)] | None = None
    fires: Expected
    todo: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> CorrelationTest:
        if len(self.model_fields_set & {"series", "prompts"}) != 1:
            raise PydanticCustomError("just_one", "give either 'series' or 'prompts'")
        return self


class CorrelationTests(Document):
    """A correlation's own tests."""

    unit: tuple[CorrelationTest, ...] = ()


class CombinedRules(Document):
    """What every correlation states."""

    id: RuleId
    rev: Revision
    title: Text
    description: str = ""
    status: Status
    severity: Severity
    tags: tuple[Text, ...] = ()
    references: tuple[Text, ...] = ()
    false_positives: Annotated[tuple[Text, ...], Field(min_length=1)]
    tests: CorrelationTests = CorrelationTests()


class SequenceDocument(CombinedRules):
    """Members in this order, in one conversation."""

    type: Literal["sequence"]
    of: Annotated[tuple[MemberDocument, ...], Field(min_length=2, max_length=20)]
    group_by: Literal["conversation"] = "conversation"
    within: WithinText | None = None


class CoOccurrenceDocument(CombinedRules):
    """All members in one group."""

    type: Literal["co_occurrence"]
    of: Annotated[tuple[MemberDocument, ...], Field(min_length=2, max_length=20)]
    group_by: GroupName = "conversation"
    within: WithinText | None = None


class CountDocument(CombinedRules):
    """At least so many matches of the members in one group."""

    type: Literal["count"]
    of: Annotated[tuple[MemberDocument, ...], Field(min_length=1, max_length=20)]
    at_least: AtLeast
    distinct: Distinct | None = None
    group_by: GroupName = "conversation"
    within: WithinText | None = None


class PopulationDocument(CombinedRules, json_schema_extra=_ONE_SIZE):
    """At least so many, or such a share, of a group's prompts in which all members match."""

    type: Literal["population"]
    of: Annotated[tuple[MemberDocument, ...], Field(min_length=1, max_length=20)]
    group_by: PromptGroupName
    at_least: AtLeast | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _size(self) -> PopulationDocument:
        if not self.model_fields_set & {"at_least", "share"}:
            raise PydanticCustomError("nothing_given", "give 'at_least', 'share', or both")
        return self


CorrelationDocument = Annotated[
    SequenceDocument | CoOccurrenceDocument | CountDocument | PopulationDocument,
    Field(discriminator="type"),
]
