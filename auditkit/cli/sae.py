"""`auditkit sae`: train, compare, score and inspect sparse autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json, Quiet

app = typer.Typer(help="Sparse autoencoders: train, compare, score, inspect.", no_args_is_help=True)


@app.command()
def train(
    file: Annotated[Path, typer.Argument(help="A train.yaml.", metavar="TRAIN.yaml")],
    quiet: Quiet = False,
) -> None:
    """Harvest activations and train an SAE on them, as TRAIN.yaml says.

    Killed or stopped with Ctrl-C, it goes on where it was when started again.

    Examples:

      auditkit sae train examples/smollm2/train.yaml
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.train import train_from

    with Bars(quiet=quiet) as bars:
        print(train_from(file, progress=bars))


@app.command()
def compare(
    file: Annotated[
        Path,
        typer.Argument(help="A train.yaml with a `comparisons` block.", metavar="TRAIN.yaml"),
    ],
    quiet: Quiet = False,
) -> None:
    """Train what an SAE is held against: a second seed, a frozen decoder, a random model.

    TRAIN.yaml's `comparisons` says which of them, in how many steps, and into which folder;
    `auditkit sae score` then measures with them. What is there already is left as it is; killed or
    stopped with Ctrl-C, it goes on where it was when started again.

    Examples:

      auditkit sae compare examples/smollm2/train.yaml
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.comparisons import compare_from

    with Bars(quiet=quiet) as bars:
        print(compare_from(file, progress=bars))


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help="The train.yaml it came from.", metavar="TRAIN.yaml")
    ],
    sae: Annotated[Path | None, typer.Option(help="Another SAE folder to score.")] = None,
    tokens: Annotated[int, typer.Option(help="Held-out tokens to measure on.")] = 60_000,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure an SAE on held-out text, floors beside it, and write its card.

    Seed stability and the trained floors need the SAEs that `auditkit sae compare` trains; without
    them the card says that they were not measured, and why.

    Examples:

      auditkit sae score examples/smollm2/train.yaml

      auditkit sae score train.yaml --sae other/sae --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.score import score_from

    with Bars(quiet=quiet) as bars:
        outcome = score_from(file, sae=sae, tokens=tokens, progress=bars)
    print(outcome.json() if json else outcome.text())


@app.command()
def inspect(
    sae: Annotated[str, typer.Argument(help="A SAELens folder, or release:RELEASE/SAE_ID.")],
    json: Json = False,
) -> None:
    """Show what an SAE is: architecture, flags, widths, digest, card.

    Examples:

      auditkit sae inspect examples/smollm2/sae
    """
    from auditkit.pipeline.inspect_sae import inspect_sae

    print(inspect_sae(sae, json=json))
