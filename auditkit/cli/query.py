"""`auditkit query`: SQL on a store, reading only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json
from auditkit.core.errors import InvalidInput


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input.")],
    store: Annotated[Path, typer.Option("--store", help="The DuckDB file of recordings.")],
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    limit: Annotated[int, typer.Option(help="Rows at most; 0: all.")] = 1000,
    timeout: Annotated[
        float | None, typer.Option(help="Stop after this many seconds.", min=0.001)
    ] = None,
) -> None:
    """Run one SELECT on a store, which is opened for reading only.

    Nothing outside the store can be read or written. SHOW TABLES lists tables and views,
    DESCRIBE NAME their columns.

    Examples:

      auditkit query "SELECT suite, prompts, tokens FROM suites" --store audit.duckdb

      auditkit query "FROM latents ORDER BY max DESC" --store audit.duckdb --csv
    """
    from auditkit.pipeline.query import query_csv, query_json, query_store

    if json and csv:
        raise InvalidInput("--json and --csv are two formats", help="give one of them")
    text = sys.stdin.read() if sql == "-" else sql
    result = query_store(store, text, limit=limit, timeout=timeout)
    if json:
        print(query_json(result))
    elif csv:
        sys.stdout.write(query_csv(result))
    else:
        from auditkit.cli.query_view import show_result

        show_result(result)
    if result.cut and not json:
        shown = f"{len(result.rows):,}"
        print(f"note: only the first {shown} rows; --limit 0 shows all", file=sys.stderr)
