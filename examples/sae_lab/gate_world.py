"""The gate world: train an SAE on features that are known, and see what it found of them.

    python examples/sae_lab/gate_world.py [--objective topk] [--seed 0] [--threads 2]

Prints the verdict, with floors and ceilings beside, and writes pictures/gate_world.png.
About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import altair as alt
import torch
import vl_convert
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

from auditkit.core.measured import Measured
from auditkit.pipeline.planted.world_training import world_budget, world_objective, world_objectives
from auditkit.pipeline.planted.worlds import (
    FROZEN,
    LEAST_F1,
    TRAINED,
    GateRun,
    WorldRun,
    judge_run,
    short,
    train_in_world,
)
from auditkit.quality.worlds import gate_world
from auditkit.report.picture_style import INK, headline, styled_alone

COLOURS = {
    "trained": "#1f4e79",
    "frozen decoder": "#c05621",
    "ICA": "#2f7d4f",
    "random dictionary": "#9aa2ad",
}
PICTURE = Path(__file__).resolve().parent / "pictures" / "gate_world.png"
COLUMNS = {
    "recall": "MMCS",
    "recall_found": "found",
    "mcc": "MCC",
    "f1": "F1",
    "uniqueness": "unique",
    "shrinkage": "shrink",
    "explained_variance": "EV",
    "l0": "L0",
}
FLOORS = (FROZEN, "ICA", "PCA", "random dictionary")
CEILINGS = ("planted, transpose", "planted, oracle")


def verdict_table(judged: GateRun) -> Table:
    """What was trained, the bounds of the gate, floors and ceilings."""
    bounds = {check.measure: f"≥ {check.bound:g}" for check in judged.verdict.checks}
    bound_of = {
        "recall": bounds["MMCS recall"],
        "f1": bounds["F1"],
        "uniqueness": bounds["uniqueness"],
    }
    table = Table(
        title=f"{judged.objective} in the gate world",
        title_style="bold",
        box=HORIZONTALS,
        padding=(0, 1, 0, 0),  # as wide as 80 columns allow
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for said in COLUMNS.values():
        table.add_column(said, justify="right", no_wrap=True)

    def add(name: str, style: str) -> None:
        found = judged.recoveries[name]
        said = judged.objective if name == TRAINED else name
        table.add_row(said, *(short(getattr(found, m)) for m in COLUMNS), style=style)

    add(TRAINED, "bold")
    table.add_row("the gate", *(bound_of.get(m, "") for m in COLUMNS), end_section=True)
    for name in FLOORS:
        add(name, "")
    table.add_section()
    for name in CEILINGS:
        add(name, "green")
    return table


def feature_rows(run: WorldRun) -> list[dict[str, Any]]:
    """A row per planted feature and dictionary."""
    rows: list[dict[str, Any]] = []
    for name in COLOURS:
        found = run.features(name)
        for feature, cosine, f1 in zip(found.features, found.cosines, found.f1, strict=True):
            rows.append(
                {
                    "dictionary": name,
                    "feature": int(feature),
                    "cosine": float(cosine),
                    "f1": float(f1),
                }
            )
    return rows


def picture(judged: GateRun, run: WorldRun) -> alt.HConcatChart:
    """Feature by feature: does a latent point where the feature does, and fire when it does?"""
    data = alt.Data(values=feature_rows(run))
    colour = alt.Color(
        "dictionary:N",
        title=None,
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=alt.Legend(orient="bottom", symbolType="circle", symbolSize=90, symbolOpacity=1),
    )
    bound = next(check.bound for check in judged.verdict.checks if check.measure == "F1")
    panels = alt.hconcat(_points(data, colour), _ranked(data, colour, bound), spacing=36)
    return styled_alone(panels.properties(title=_title(judged)))


def _points(data: alt.Data, colour: alt.Color) -> alt.Chart:
    """Cosine and F1 of each feature's best latent."""
    return (
        alt.Chart(data)
        .mark_circle(size=34, opacity=0.65)
        .encode(
            x=alt.X(
                "cosine:Q",
                title="cosine of the feature's best latent with it",
                scale=alt.Scale(domain=[0, 1.02], nice=False),
            ),
            y=alt.Y(
                "f1:Q",
                title="F1 of that latent's firing",
                scale=alt.Scale(domain=[0, 1.04], nice=False),
            ),
            color=colour,
        )
        .properties(width=380, height=340)
    )


def _ranked(data: alt.Data, colour: alt.Color, bound: float) -> Any:
    """F1 from the best feature down, beside what the gate asks of the mean."""
    ranked = (
        alt.Chart(data)
        .transform_window(
            rank="row_number()", groupby=["dictionary"], sort=[alt.SortField("f1", "descending")]
        )
        .mark_line(strokeWidth=2.4)
        .encode(
            x=alt.X("rank:Q", title="features, best first", scale=alt.Scale(nice=False)),
            y=alt.Y("f1:Q", title="F1 of the best latent's firing", scale=alt.Scale(domain=[0, 1])),
            color=colour,
        )
        .properties(width=340, height=340)
    )
    gate = (
        alt.Chart(alt.Data(values=[{"f1": bound}]))
        .mark_rule(color=INK, strokeDash=[4, 3])
        .encode(y="f1:Q")
    )
    label = (
        alt.Chart(alt.Data(values=[{"f1": bound, "text": f"gate: mean of {bound:g}"}]))
        .mark_text(align="right", x=336, dy=12, color=INK, fontSize=11)
        .encode(y="f1:Q", text="text:N")
    )
    return ranked + gate + label


def _title(judged: GateRun) -> alt.TitleParams:
    found = judged.recoveries[TRAINED].recall_found
    share = f"{found.value * judged.n_features:.0f}" if isinstance(found, Measured) else "none"
    return headline(
        f"The gate world: {judged.objective} finds {share} of {judged.n_features} features",
        f"{judged.n_features} features in {judged.d_in} dimensions, {judged.true_l0:.0f} on "
        f"every token; {judged.tokens_seen:,} tokens of training. Each point is a feature.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objective", choices=world_objectives(), default="topk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    console, began = Console(), time.perf_counter()
    world = gate_world()
    with console.status(f"training {args.objective} on {world.n_features} planted features"):
        objective, budget = (
            world_objective(args.objective, world),
            world_budget(args.objective, world),
        )
        run = train_in_world(world, objective, budget, seed=args.seed)
        judged = judge_run(args.objective, run, least_f1=LEAST_F1.get(args.objective, 0.9))
    console.print(verdict_table(judged))
    words = "[green]passes[/green]" if judged.passed else "[red]does not pass[/red]"
    console.print(f"{args.objective} {words} the gate ({time.perf_counter() - began:.0f} s).")
    for reason in judged.verdict.reasons:
        console.print(f"  - {reason}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(vl_convert.vegalite_to_png(picture(judged, run).to_dict(), scale=2))
    console.print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
