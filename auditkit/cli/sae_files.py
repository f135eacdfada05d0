"""`auditkit sae import`, `export` and `inspect`: SAEs as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Json

SOURCES = (
    "A SAELens folder, Gemma Scope's params.npz or its folder, a sparsify folder, a "
    "dictionary_learning folder, or release:RELEASE/SAE_ID."
)
Source = Annotated[str, typer.Argument(help=SOURCES, metavar="SOURCE")]
Place = Annotated[
    str | None,
    typer.Option(
        "--hook-point",
        help="Where it reads, as blocks.12.hook_resid_post, where the source does not say so.",
    ),
]


class Target(StrEnum):
    """The formats that an SAE is exported in."""

    SAELENS = "saelens"
    SPARSIFY = "sparsify"
    DICTIONARY_LEARNING = "dictionary_learning"


class Stored(StrEnum):
    """How weights are stored."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def import_sae(
    source: Source,
    out: Annotated[Path, typer.Argument(help="The SAELens folder to write.", metavar="OUT")],
    hook_point: Place = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    dtype: Annotated[
        Stored, typer.Option(help="How weights are stored; float32 changes none of them.")
    ] = Stored.FLOAT32,
    json: Json = False,
) -> None:
    """Bring in an SAE of another tool, as a SAELens folder.

    Weights are checked, and read back after writing. Exit code 2: it cannot be read, or something
    stands at OUT.

    Examples:

      auditkit sae import release:gpt2-small-res-jb/blocks.8.hook_resid_pre saes/gpt2-8

      auditkit sae import gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 saes/gemma-20

      auditkit sae import sparsify-run/layers.10 saes/mine

      auditkit sae import ae-folder saes/mine --hook-point blocks.4.hook_mlp_out
    """
    from auditkit.pipeline import sae_files

    made = sae_files.import_sae(source, out, hook_point=hook_point, name=name, dtype=dtype.value)
    print(made.json() if json else made.text())


def export_sae(
    sae: Source,
    out: Annotated[Path, typer.Argument(help="The folder to write.", metavar="OUT")],
    written: Annotated[
        Target, typer.Option("--format", help="Whose format to write.")
    ] = Target.SAELENS,
    json: Json = False,
) -> None:
    """Write an SAE as another tool reads it, in float32.

    What the format cannot express is refused with exit code 2: sparsify has topk SAEs alone, and
    neither it nor dictionary_learning normalises activations token by token.

    Examples:

      auditkit sae export examples/smollm2/sae out --format sparsify

      auditkit sae export saes/gemma-20 out --format dictionary_learning --json
    """
    from auditkit.pipeline import sae_files
    from auditkit.saes import ExportFormat

    made = sae_files.export_sae(sae, out, export_format=ExportFormat(written.value))
    print(made.json() if json else made.text())


def inspect(
    sae: Source,
    hook_point: Place = None,
    json: Json = False,
) -> None:
    """Show what an SAE is: architecture, flags, widths, digest, weights, card.

    Its weights are checked on the way: what is damaged, of the wrong shape, or not finite ends
    with exit code 2 and says what is wrong.

    Examples:

      auditkit sae inspect examples/smollm2/sae

      auditkit sae inspect gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 --json
    """
    from auditkit.pipeline.inspect_sae import inspect_sae

    found = inspect_sae(sae, hook_point=hook_point)
    if json:
        print(found.json())
        return
    from auditkit.cli.sae_view import inspect_view, show

    show(inspect_view(found))
