"""`auditkit query`: a user's SQL on a store, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from auditkit.store.querying import QueryResult, run_query


def query_store(store: Path, sql: str, *, limit: int, timeout: float | None) -> QueryResult:
    """Run one SELECT; a `limit` of 0 is none. Errors as of `run_query`."""
    return run_query(store, sql, limit=None if limit == 0 else limit, timeout=timeout)


def query_json(result: QueryResult) -> str:
    """Columns with types, rows as objects, and whether rows are missing."""
    rows = [
        {c: _plain(v) for c, v in zip(_distinct(result.columns), row, strict=True)}
        for row in result.rows
    ]
    document = {
        "columns": [
            {"name": n, "type": t}
            for n, t in zip(_distinct(result.columns), result.types, strict=True)
        ],
        "rows": rows,
        "cut": result.cut,
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def query_csv(result: QueryResult) -> str:
    """RFC 4180, with a header; NULL is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(result.columns)
    writer.writerows(["" if v is None else v for v in row] for row in result.rows)
    return out.getvalue()


def _distinct(columns: tuple[str, ...]) -> list[str]:
    """Names of columns, the second `x` as `x_1`: an object holds a name once."""
    names: list[str] = []
    for column in columns:
        name, n = column, 0
        while name in names:
            n += 1
            name = f"{column}_{n}"
        names.append(name)
    return names


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity, dates or bytes: those are written as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
