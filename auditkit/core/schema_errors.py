"""What pydantic finds wrong in a document → diagnostics with their places in its text (AK01x)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from auditkit.core.diagnostics import Diagnostic, Level
from auditkit.core.source_map import Path, SourceMap

_MESSAGES = {"missing": "AK011", "extra_forbidden": "AK010"}


def schema_diagnostics(
    error: ValidationError, model: type[BaseModel], value: Any, source: SourceMap
) -> list[Diagnostic]:
    """One diagnostic for each error of `model` in the document's plain `value`."""
    names = sorted(set(_field_names(model)))
    details = _without_echoes(error.errors(include_url=False))
    return [_schema_error(d, value, source, names) for d in details]


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """A list whose items are all wrong is not reported as too short as well."""
    places = [d["loc"] for d in details]
    return [
        d
        for d in details
        if d["type"] != "too_short"
        or not any(len(p) > len(d["loc"]) and p[: len(d["loc"])] == d["loc"] for p in places)
    ]


def _schema_error(
    error: ErrorDetails, value: Any, source: SourceMap, names: list[str]
) -> Diagnostic:
    at = _existing(value, error["loc"])
    kind, last = error["type"], str(error["loc"][-1]) if error["loc"] else ""
    code = _MESSAGES.get(kind, "AK012" if kind.endswith(("_type", "_parsing")) else "AK013")
    help = None
    if kind == "extra_forbidden":
        message = f"unknown key {last!r}"
        close = difflib.get_close_matches(last, names, n=1)
        help = f"did you mean {close[0]!r}?" if close else None
    elif kind == "missing":
        message = f"the key {last!r} is missing"
    else:
        message = _wording(error)
        where = ".".join(str(p) for p in at)
        message = f"{where}: {message}" if where else message
    return Diagnostic(
        code=code,
        level=Level.ERROR,
        message=message,
        span=source.span(at, key=kind == "extra_forbidden"),
        help=help,
    )


def _wording(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    if error["type"] == "too_short":
        return f"at least {limits['min_length']} wanted, not {limits['actual_length']}"
    if error["type"] == "too_long":
        return f"at most {limits['max_length']} allowed"
    return error["msg"][:1].lower() + error["msg"][1:]


def _existing(value: Any, loc: tuple[str | int, ...]) -> Path:
    """Follow a pydantic location through the document, skipping the names of union members."""
    at: list[str | int] = []
    for part in loc:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        at.append(part)
    return tuple(at)


def _field_names(model: type[BaseModel], seen: set[type] | None = None) -> Iterator[str]:
    seen = seen if seen is not None else set()
    if model in seen:
        return
    seen.add(model)
    for name, info in model.model_fields.items():
        yield info.alias or name
        for inner in _models_in(info.annotation):
            yield from _field_names(inner, seen)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
