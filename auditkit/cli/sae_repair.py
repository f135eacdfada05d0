"""`auditkit sae repair`: feature suppression undone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json, Quiet
from auditkit.cli.processes import require_one_process


class Form(StrEnum):
    """Where the new scales go."""

    AUTO = "auto"
    GATED = "gated"
    DECODER = "decoder"


def repair(
    file: Annotated[
        Path,
        typer.Argument(help="The train.yaml it came from; FILE#NAME.", metavar="TRAIN.yaml"),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.", metavar="OUT")],
    sae: Annotated[Path | None, typer.Option(help="Another SAE folder to repair.")] = None,
    rows: Annotated[int, typer.Option(help="At most so many tokens to fit on.")] = 131_072,
    prior_fires: Annotated[
        float, typer.Option(help="Tokens that each latent's old decoder row counts for.")
    ] = 10.0,
    form: Annotated[
        Form, typer.Option(help="Where scales go; auto: gated for ReLU, else decoder.")
    ] = Form.AUTO,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Undo feature suppression: the same latents fire, their scales and decoder are fitted anew.

    After Wright & Sharkey 2024, on the activations of TRAIN.yaml; γ and explained variance before
    and after are measured on rows that are held out. docs/training.md says which form to take.

    Examples:

      auditkit sae repair train.yaml saes/repaired

      auditkit sae repair train.yaml#layer-5 saes/repaired --form decoder --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.repair import repair_from
    from auditkit.training import RepairForm, RepairPlan

    require_one_process("sae repair")
    plan = RepairPlan(rows=rows, prior_fires=prior_fires, form=RepairForm(form.value))
    with Bars(quiet=quiet) as bars:
        outcome = repair_from(file, out, sae=sae, plan=plan, progress=bars)
    print(outcome.json() if json else outcome.text())
