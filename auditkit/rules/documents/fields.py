"""Kinds of values that several documents of a rule file share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Text = Annotated[str, Field(min_length=1)]
RuleId = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=120)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Revision = Annotated[int, Field(ge=1)]
Expected = bool | Literal["unknown"]
"""What a unit test expects."""
