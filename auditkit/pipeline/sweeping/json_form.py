"""A sweep as one JSON document, and a cell's part of it, kept as soon as it is measured."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.pipeline.provenance import collect_provenance
from auditkit.pipeline.sweeping.cells import BaselinePoint, Cell, CellResult, Sweep

FORMAT = "auditkit-sweep/1"


def render_sweep(sweep: Sweep) -> str:
    """The document; a measure is `{value, n}`, or `{reason}` where it could not be taken."""
    cells = [
        {
            **plain_cell(result),
            "name": result.cell.name,
            "dominated": {
                "explained_variance": standing.on_explained_variance,
                "delta_ce": standing.on_delta_ce,
            },
        }
        for result, standing in zip(sweep.cells, sweep.standings, strict=True)
    ]
    document = {
        "format": FORMAT,
        "name": sweep.name,
        "model": sweep.model,
        "hook_point": sweep.hook_point,
        "cells": cells,
        "baselines": [plain_baseline(point) for point in sweep.baselines],
        "ce_untouched": plain_measure(sweep.base_ce),
        "tokens_left_out_for_their_norm": sweep.tokens_left_out,
        "not_finished": list(sweep.missing),
        "provenance": to_plain(collect_provenance()),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def plain_cell(result: CellResult) -> dict[str, Any]:
    """A cell's result as JSON values."""
    return _plain(result) | {"cell": to_plain(result.cell)}


def plain_baseline(point: BaselinePoint) -> dict[str, Any]:
    """A baseline as JSON values."""
    return _plain(point)


def read_cell(value: Any, where: str) -> CellResult:
    """A cell's result from its JSON values; raise InvalidInput where they are none."""
    try:
        return CellResult(cell=Cell(**value["cell"]), **_read(CellResult, value, but="cell"))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(where, error) from None


def read_baseline(value: Any, where: str) -> BaselinePoint:
    """A baseline from its JSON values; raise InvalidInput where they are none."""
    try:
        return BaselinePoint(**_read(BaselinePoint, value))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(where, error) from None


def _unreadable(where: str, error: Exception) -> InvalidInput:
    return InvalidInput(f"{where}: incomplete ({error})", help="delete it to measure again")


def _plain(record: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        measured = isinstance(value, (Measured, NotMeasured))
        values[field.name] = plain_measure(value) if measured else value
    return values


def _read(kind: type[Any], value: Any, *, but: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.name != but:
            given = value[field.name]
            found[field.name] = read_measure(given) if isinstance(given, dict) else given
    return found


def plain_measure(measure: Measure) -> dict[str, Any]:
    """`{value, n}`, or `{reason}`."""
    if isinstance(measure, Measured):
        return {"value": measure.value, "n": measure.n}
    return {"reason": measure.reason}


def read_measure(value: dict[str, Any]) -> Measure:
    """A measure from `{value, n}` or `{reason}`."""
    if "reason" in value:
        return NotMeasured(value["reason"])
    return Measured(value=value["value"], n=value["n"])
