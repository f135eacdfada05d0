"""`auditkit features`: top, show, contrast, cooccur and search. Needs a store, and no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditkit.cli.options import Json, Store

if TYPE_CHECKING:
    from auditkit.pipeline.features import Where

app = typer.Typer(
    help="Find latents in recordings: what separates prompts, where a latent fires, with what.",
    no_args_is_help=True,
)

In = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="NAME",
        help="Only these prompts: a suite, label or tag; suite:NAME, label:NAME or tag:NAME where "
        "a name is several.",
    ),
]
Recordings = Annotated[
    list[str] | None,
    typer.Option("--recording", help="Only this recording (the start of its id); repeatable."),
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="Only tokens of this role: user, assistant, …; repeatable."),
]
Most = Annotated[int, typer.Option("--most", help="How many to show.")]


@app.command()
def top(
    store: Store,
    by: Annotated[str, typer.Option(help="max, mean, density or fires.")] = "max",
    least: Annotated[int, typer.Option(help="Leave out latents with fewer fires.")] = 1,
    most: Most = 20,
    within: In = None,
    recordings: Recordings = None,
    roles: Roles = None,
    json: Json = False,
) -> None:
    """List the latents that fire most or highest, each with the place where it is highest.

    Examples:

      auditkit features top --store audit.duckdb --in harmful-requests --role user

      auditkit features top --store audit.duckdb --by density --most 50 --json
    """
    from auditkit.pipeline.features import as_json, find_top

    found = find_top(_where(store, recordings, within, roles), by=by, most=most, least=least)
    if json:
        print(as_json(found))
        return
    from auditkit.cli.features_view import show, top_view

    show(top_view(found, by))


@app.command("show")
def show_latent(
    latent: Annotated[int, typer.Argument(help="A latent's index.", metavar="LATENT")],
    store: Store,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with histogram and examples by decile.")
    ] = None,
    sae: Annotated[
        Path | None, typer.Option(help="The SAE's folder: adds the nearest latents.")
    ] = None,
    unembedding: Annotated[
        Path | None,
        typer.Option(help="The model's safetensors file with lm_head: adds logit effects."),
    ] = None,
    most: Most = 10,
    seed: Annotated[int, typer.Option(help="Draws the random contexts.")] = 0,
    within: In = None,
    recordings: Recordings = None,
    roles: Roles = None,
    json: Json = False,
) -> None:
    """Show the texts on which a latent fires highest, and some at random.

    Examples:

      auditkit features show 4091 --store audit.duckdb

      auditkit features show 4091 --store audit.duckdb --sae examples/smollm2/sae --html 4091.html
    """
    from auditkit.pipeline.features import as_json, look_at

    found = look_at(
        _where(store, recordings, within, roles),
        latent,
        most=most,
        seed=seed,
        sae=sae,
        unembedding=unembedding,
        html=html,
    )
    if json:
        print(as_json(found))
        return
    from auditkit.cli.features_view import profile_view, show

    show(profile_view(found, html))


@app.command()
def contrast(
    positive: Annotated[str, typer.Argument(metavar="POS", help="A suite, label or tag.")],
    negative: Annotated[str, typer.Argument(metavar="NEG", help="A suite, label or tag.")],
    store: Store,
    statistic: Annotated[
        str, typer.Option(help="Of each latent over a prompt's tokens: mean or max.")
    ] = "mean",
    either: Annotated[bool, typer.Option(help="Also latents that are higher on NEG.")] = False,
    holdout: Annotated[
        float, typer.Option(help="Share held out where the suites have no splits of their own.")
    ] = 0.5,
    most: Most = 20,
    within: In = None,
    recordings: Recordings = None,
    roles: Roles = None,
    json: Json = False,
) -> None:
    """Find the latents that tell the prompts of POS from those of NEG.

    They are chosen by AUROC on one half of the prompts; the AUROC that counts is of the other.

    Examples:

      auditkit features contrast harmful-requests harmless-requests --store audit.duckdb

      auditkit features contrast label:hostile friendly --store audit.duckdb --role user --either
    """
    from auditkit.pipeline.features import as_json, find_contrast

    found = find_contrast(
        _where(store, recordings, within, roles),
        positive,
        negative,
        statistic=statistic,
        most=most,
        either=either,
        holdout=holdout,
    )
    if json:
        print(as_json(found))
        return
    from auditkit.cli.features_view import contrast_view, show

    show(contrast_view(found))


@app.command()
def cooccur(
    latent: Annotated[int, typer.Argument(help="A latent's index.", metavar="LATENT")],
    store: Store,
    by: Annotated[str, typer.Option(help="jaccard, lift, pmi or both.")] = "jaccard",
    least: Annotated[int, typer.Option(help="Leave out latents with fewer fires in common.")] = 5,
    most: Most = 20,
    within: In = None,
    recordings: Recordings = None,
    roles: Roles = None,
    json: Json = False,
) -> None:
    """List the latents that fire on the same tokens as LATENT, beside what chance would have.

    Examples:

      auditkit features cooccur 4091 --store audit.duckdb

      auditkit features cooccur 4091 --store audit.duckdb --by lift --least 20 --json
    """
    from auditkit.pipeline.features import as_json, find_together

    where = _where(store, recordings, within, roles)
    found = find_together(where, latent, by=by, most=most, least=least)
    if json:
        print(as_json(found))
        return
    from auditkit.cli.features_view import show, together_view

    show(together_view(found))


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="A text, looked for across tokens.")],
    store: Store,
    case: Annotated[bool, typer.Option("--case", help="Tell capitals from small.")] = False,
    most: Most = 20,
    within: In = None,
    recordings: Recordings = None,
    roles: Roles = None,
    json: Json = False,
) -> None:
    """Find the latents that fire on the tokens of TEXT more than on others.

    Examples:

      auditkit features search "phishing" --store audit.duckdb

      auditkit features search "I am an AI" --store audit.duckdb --role assistant --json
    """
    from auditkit.pipeline.features import as_json, find_text

    where = _where(store, recordings, within, roles)
    found = find_text(where, text, most=most, ignore_case=not case)
    if json:
        print(as_json(found))
        return
    from auditkit.cli.features_view import found_view, show

    show(found_view(found))


def _where(
    store: Path, recordings: list[str] | None, within: str | None, roles: list[str] | None
) -> Where:
    from auditkit.pipeline.features import Where

    return Where(
        store=store,
        recordings=tuple(recordings or ()),
        within=within,
        roles=tuple(roles or ()),
    )
