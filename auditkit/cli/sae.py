"""`auditkit sae`: train, sweep, compare, score, import, export and inspect sparse autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli import sae_failures, sae_files, sae_gate, sae_repair
from auditkit.cli.options import Json, Quiet
from auditkit.cli.processes import require_one_process

app = typer.Typer(
    help="Sparse autoencoders: train, sweep, compare, score, import, export, inspect.",
    no_args_is_help=True,
)

_GROUPS = "Groups: fidelity, loss, geometry, stability, ablation, probing."


@app.command()
def train(
    file: Annotated[Path, typer.Argument(help="A train.yaml.", metavar="TRAIN.yaml")],
    latent_shards: Annotated[
        int,
        typer.Option(help="Under torchrun: over how many processes the latents are sharded."),
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Harvest activations and train an SAE on them, as TRAIN.yaml says.

    Several SAEs in one file share one pass over the model (docs/training.md). Killed or stopped
    with Ctrl-C, it goes on where it was when started again. Started by torchrun, all processes
    train the one SAE: each a share of the tokens, or of the latents (docs/distributed.md).

    Examples:

      auditkit sae train examples/smollm2/train.yaml

      torchrun --nproc-per-node 2 -m auditkit sae train train.yaml --latent-shards 2
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.train import train_from

    with Bars(quiet=quiet) as bars:
        said = train_from(file, latent_shards=latent_shards, progress=bars)
    if said:
        print(said)


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

    require_one_process("sae compare")
    with Bars(quiet=quiet) as bars:
        print(compare_from(file, progress=bars))


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help="The train.yaml it came from.", metavar="TRAIN.yaml")
    ],
    sae: Annotated[Path | None, typer.Option(help="Another SAE folder to score.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="An SAE of the same hook point to show beside it; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for card, page and document; the SAE's own by default."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Measure this group alone; repeatable. {_GROUPS}")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Leave this group out; repeatable.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Held-out tokens to measure on.")] = 60_000,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what was measured on the same content.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure an SAE on held-out text, floors beside it; write its card and a page of plots.

    README.md, score.json and score.html go into the SAE's folder, or to --out. Groups that are
    left out keep what the last score of the same weights said. Seed stability and the trained
    floors need the SAEs that `auditkit sae compare` trains; without them the card keeps what it
    said, or says that they were not measured, and why. Stopped with Ctrl-C, it goes on after the
    last group that was finished.

    Examples:

      auditkit sae score examples/smollm2/train.yaml

      auditkit sae score train.yaml --sae other/sae --only fidelity --only loss --json

      auditkit sae score train.yaml --beside jumprelu/sae --out build/score
    """
    import shutil

    from auditkit.cli.console import Bars
    from auditkit.pipeline.scoring.score import score_from

    require_one_process("sae score")
    with Bars(quiet=quiet) as bars:
        outcome = score_from(
            file,
            sae=sae,
            tokens=tokens,
            beside=beside or (),
            out=out,
            only=only or (),
            skip=skip or (),
            again=again,
            progress=bars,
        )
    width = max(100, shutil.get_terminal_size((160, 50)).columns)
    print(outcome.json() if json else outcome.text(width=width))


@app.command()
def sweep(
    file: Annotated[
        Path, typer.Argument(help="A train.yaml with a `sweep` block.", metavar="SWEEP.yaml")
    ],
    only_finished: Annotated[
        bool,
        typer.Option("--only-finished", help="Train nothing: compare the cells that are finished."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a grid of SAEs on one harvest, and show the Pareto frontier.

    Explained variance and ΔCE stand against L0, beside PCA and a random dictionary; table, picture
    and page go into the sweep's output folder. Finished cells are kept; killed or stopped with
    Ctrl-C, the cell under way goes on from its checkpoint.

    Examples:

      auditkit sae sweep examples/sae_lab/sweep/sweep.yaml

      auditkit sae sweep sweep.yaml --only-finished --json
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.sweeping.sweep import sweep_from

    require_one_process("sae sweep")
    with Bars(quiet=quiet) as bars:
        outcome = sweep_from(file, only_finished=only_finished, progress=bars)
    if json:
        print(outcome.json())
        return
    from auditkit.cli.sae_view import show, sweep_view

    show(sweep_view(outcome.sweep))
    for path in outcome.files:
        print(path)


app.command("import")(sae_files.import_sae)
app.command("export")(sae_files.export_sae)
app.command("inspect")(sae_files.inspect)
app.command("lookup")(sae_failures.lookup)
app.command("absorption")(sae_failures.absorption)
app.command("splitting")(sae_failures.splitting)
app.command("repair")(sae_repair.repair)
app.command("gate")(sae_gate.gate)
