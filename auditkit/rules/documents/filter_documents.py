"""`filters:`, as they stand in a rule file: typed exceptions, and never conditions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from auditkit.core.documents import Document
from auditkit.core.prompts import Role
from auditkit.rules.documents.fields import Revision, RuleId, Text

RuleGlob = Annotated[str, Field(pattern=r"^[a-z0-9*?._-]+$", max_length=120)]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Names = Annotated[tuple[Text, ...], Field(min_length=1)]

_SOMETHING: dict[str, Any] = {"minProperties": 1}


class ExceptionDocument(Document, json_schema_extra=_SOMETHING):
    """One kind of match that is excused; of several keys all must hold."""

    suites: Names | None = None
    labels: Names | None = None
    tags: Names | None = None
    prompts: Names | None = None
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    rule: RuleId | None = None

    @model_validator(mode="after")
    def _something(self) -> ExceptionDocument:
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_given", "an exception names what it excuses")
        return self


class FilterDocument(Document):
    """What some rules are excused from, why, who says so, and until when."""

    id: RuleId
    rev: Revision
    title: Text
    rules: Annotated[tuple[RuleGlob, ...], Field(min_length=1)]
    reason: Text
    author: Text
    date: Day
    expires: Day | None = None
    exceptions: Annotated[tuple[ExceptionDocument, ...], Field(min_length=1)]
