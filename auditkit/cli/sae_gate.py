"""`auditkit sae gate`: an objective on a world whose true features are known."""

from __future__ import annotations

from typing import Annotated

import typer

from auditkit.cli.options import Json, Quiet
from auditkit.cli.processes import require_one_process
from auditkit.core.errors import ExitCode


def gate(
    objective: Annotated[str, typer.Option(help="The objective, as train.yaml names it.")] = "topk",
    seed: Annotated[int, typer.Option(help="Of the world and of training.")] = 0,
    floors: Annotated[bool, typer.Option(help="Measure floors and ceilings beside it.")] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train an objective on a world whose true features are known, and judge what it found.

    A correct trainer passes; the table shows floors and ceilings beside. Exit code 1: it did not
    pass.

    Examples:

      auditkit sae gate

      auditkit sae gate --objective jumprelu --no-floors --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.planted.worlds import run_gate

    require_one_process("sae gate")
    with Bars(quiet=quiet) as bars:
        outcome = run_gate(objective, seed=seed, floors=floors, progress=bars)
    print(outcome.json() if json else outcome.text())
    if not outcome.passed:
        raise typer.Exit(int(ExitCode.FINDINGS))
