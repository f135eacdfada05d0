"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
FailOn = Annotated[
    str,
    typer.Option(
        "--fail-on",
        metavar="SEVERITY",
        help="Exit 1 when a rule of this severity or above fired: info, low, medium, high, "
        "critical, or never.",
    ),
]
Model = Annotated[
    str, typer.Option("--model", help="Hub id, folder, FILE.gguf, or package:NAME/FILE.")
]
Sae = Annotated[
    str, typer.Option("--sae", help="An SAE folder (docs/sae-files.md), or release:RELEASE/SAE_ID.")
]
Store = Annotated[Path, typer.Option("--store", help="The DuckDB file of recordings.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
RulePaths = Annotated[
    list[str] | None,
    typer.Argument(help="Rule files or folders; without any, the shipped library.", metavar="PATH"),
]
