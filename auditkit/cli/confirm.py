"""`auditkit confirm`: do latents cause what one thinks they do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from auditkit.cli.options import Json, Quiet


def confirm(
    file: Annotated[
        Path,
        typer.Argument(
            help="An audit.yaml: its model, SAE, store and sizes are used.", metavar="AUDIT.yaml"
        ),
    ],
    latents: Annotated[
        str,
        typer.Option(
            help="Latents by number, a weight beside one where it is not 1: 4091,120:-0.5."
        ),
    ],
    lexicon: Annotated[
        str, typer.Option(help="The words that they should move: lexicon/NAME or a YAML file.")
    ],
    together: Annotated[
        bool, typer.Option("--together", help="One test of all, not one of each.")
    ] = False,
    op: Annotated[Literal["steer", "clamp"], typer.Option(help="How they are pushed.")] = "steer",
    doses: Annotated[
        str, typer.Option(help="Multiples of the 99th percentile of their active values.")
    ] = "0.5,1,2",
    decrease: Annotated[
        bool, typer.Option("--decrease", help="The words should become rarer.")
    ] = False,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE",
            help="Prompts on which they fire, which did not choose them: to be ablated on, and for "
            "the positive control.",
        ),
    ] = None,
    negative: Annotated[
        str | None, typer.Option(metavar="SUITE", help="Prompts without the concept.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEXICON",
            help="Words that should not move, for specificity; repeatable. Without any, all other "
            "lexicons of the library.",
        ),
    ] = None,
    level: Annotated[
        float, typer.Option("--q", help="False discovery rate over the tests of this run.")
    ] = 0.05,
    replies: Annotated[
        bool, typer.Option(help="Write replies untouched, steered and under a control.")
    ] = True,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with the plots.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test by steering and ablation whether latents cause the words of a lexicon.

    Against matched latents, random directions and the sign turned round, with damage, specificity
    and a verdict that can come out negative. Trials are kept in the audit's store: killed and
    started again, none is run twice. Without --positive nothing is ablated, and the best verdict
    is "sufficient only". Exits with 4 where no verdict was reached.

    Examples:

      auditkit confirm examples/smollm2/audit.yaml --latents 4091 --lexicon lexicon/hostility

      auditkit confirm audit.yaml --latents 12,877:-0.5 --together --lexicon words.yaml \\
        --positive builtin/harmful-requests --negative builtin/harmless-requests --html out.html
    """
    from auditkit.cli.confirm_view import print_causes
    from auditkit.cli.console import Bars
    from auditkit.pipeline.confirm_latents import LatentQuestion, confirm_latents

    asked = LatentQuestion(
        latents=latents,
        lexicon=lexicon,
        together=together,
        op=op,
        doses=_doses(doses),
        decrease=decrease,
        q=level,
        positive=positive,
        negative=negative,
        beside=tuple(beside or ()),
        replies=replies,
    )
    with Bars(quiet=quiet) as bars:
        found = confirm_latents(file, asked, html=html, progress=bars)
    if json:
        print(found.json())
    else:
        print_causes(found, html)
    raise typer.Exit(int(found.exit_code))


def _doses(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(-100 <= d <= 100 for d in found) or not any(d > 0 for d in found):
        raise typer.BadParameter(
            f"{text!r}: expected numbers such as 0.5,1,2", param_hint="--doses"
        )
    return found
