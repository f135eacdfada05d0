"""`auditkit sae lookup`, `absorption` and `splitting`: how an SAE's latents fail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json, Quiet
from auditkit.cli.processes import require_one_process

Train = Annotated[Path, typer.Argument(help="The train.yaml it came from.", metavar="TRAIN.yaml")]
Other = Annotated[Path | None, typer.Option("--sae", help="Another SAE folder to look at.")]
Tokens = Annotated[int, typer.Option(help="Held-out tokens to measure on.")]


def lookup(
    file: Train,
    sae: Other = None,
    tokens: Tokens = 60_000,
    units: Annotated[int, typer.Option(help="Directions of each kind to score.")] = 300,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare an SAE's latents with neurons, PCA, ICA and random directions, by token lookups.

    Every direction fires as often as the latent beside it; docs/failure-modes.md says what a score
    means.

    Examples:

      auditkit sae lookup examples/smollm2/train.yaml

      auditkit sae lookup train.yaml --sae other/sae --units 100 --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.failures.lookup import lookup_from

    require_one_process("sae lookup")
    with Bars(quiet=quiet) as bars:
        outcome = lookup_from(file, sae=sae, tokens=tokens, units=units, progress=bars)
    print(outcome.json() if json else outcome.text())


def absorption(
    file: Train,
    sae: Other = None,
    words: Annotated[int, typer.Option(help="Words to test on.")] = 5_000,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test whether an SAE absorbs the first letters of words (Chanin et al. 2024).

    Says `not applicable` where linear probes cannot read the letters (F1 below 0.6).

    Examples:

      auditkit sae absorption examples/smollm2/train.yaml

      auditkit sae absorption train.yaml --words 2000 --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.failures.absorption import absorption_from

    require_one_process("sae absorption")
    with Bars(quiet=quiet) as bars:
        outcome = absorption_from(file, sae=sae, words=words, progress=bars)
    print(outcome.json() if json else outcome.text())


def splitting(
    file: Train,
    width: Annotated[
        list[int], typer.Option(help="A number of latents; give at least two, narrow to wide.")
    ],
    steps: Annotated[int | None, typer.Option(help="Training steps, if not the file's.")] = None,
    tokens: Tokens = 60_000,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the SAE at several widths with two seeds each, and count what splits.

    A narrow SAE's latent is split where several of a wider one share it; a second seed of equal
    width is the floor.

    Examples:

      auditkit sae splitting examples/smollm2/train.yaml --width 1536 --width 6144

      auditkit sae splitting train.yaml --width 512 --width 2048 --steps 500 --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.failures.splitting import splitting_from

    require_one_process("sae splitting")
    with Bars(quiet=quiet) as bars:
        outcome = splitting_from(
            file, widths=tuple(width), steps=steps, tokens=tokens, progress=bars
        )
    print(outcome.json() if json else outcome.text())
