"""The toy models' pictures, as Vega-Lite specifications with their data."""

from __future__ import annotations

from typing import Any

import altair as alt

from auditkit.quality.theory import Outcome, PhaseCell, ToyModels, measure_packing
from auditkit.report.picture_style import INK, MUTED, headline, styled_alone

BLUE, ORANGE, PALE = "#1f4e79", "#c05621", "#d8dde3"
SCALE = 1.25
PHASES = {Outcome.NOT_REPRESENTED: PALE, Outcome.DEDICATED: BLUE, Outcome.SUPERPOSITION: ORANGE}
SHAPES = (
    (1.0, "1: a dimension of its own"),
    (0.75, "3/4 tetrahedron"),
    (2 / 3, "2/3 triangle"),
    (0.5, "1/2 antipodal pair"),
    (0.4, "2/5 pentagon"),
)


def png(spec: dict[str, Any]) -> bytes:
    """The picture as PNG, below 200 kB."""
    import vl_convert

    return vl_convert.vegalite_to_png(spec, scale=SCALE)


def gram_spec(models: ToyModels) -> dict[str, Any]:
    """W_i·W_j of each model, and below it how long each direction is and how much it overlaps."""
    gram, packing = models.gram, measure_packing(models.W)
    columns = [
        alt.vconcat(
            _heat(gram[i].tolist(), title=f"sparsity {s:g}", legend=i == len(gram) - 1),
            _bars(packing.norms[i].tolist(), packing.overlap[i].tolist(), last=i == len(gram) - 1),
            spacing=8,
        ).resolve_scale(color="independent")
        for i, s in enumerate(models.plan.sparsities)
    ]
    chart = alt.hconcat(*columns, spacing=14).resolve_scale(color="independent")
    plan = models.plan
    return _finished(
        chart,
        f"{plan.features} features in {plan.hidden} dimensions, importance "
        f"{plan.importance_decay:g} per step down",
        "Above: products W_i·W_j of the features' directions. Dense features: the most important "
        "get a dimension each, the others none.",
        "Sparse ones share dimensions. Below: length of W_i, coloured by how far others overlap "
        "with it, Σ (Ŵ_i·W_j)² over j ≠ i.",
    )


def _heat(values: list[list[float]], *, title: str, legend: bool) -> Any:
    rows = [
        {"i": i, "j": j, "v": round(v, 4)}
        for i, row in enumerate(values)
        for j, v in enumerate(row)
    ]
    axis = alt.Axis(labels=False, ticks=False, title=None, domain=False, grid=False)
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("j:O", axis=axis),
            y=alt.Y("i:O", axis=axis),
            color=alt.Color(
                "v:Q",
                scale=alt.Scale(
                    domain=[-1, 0, 1], range=[ORANGE, "#ffffff", BLUE], interpolate="rgb"
                ),
                legend=alt.Legend(title="W_i·W_j", values=[-1, 0, 1], gradientLength=110)
                if legend
                else None,
            ),
        )
        .properties(
            width=150, height=150, title=alt.TitleParams(title, color=INK, fontSize=12, offset=6)
        )
    )


def _bars(norms: list[float], overlaps: list[float], *, last: bool) -> Any:
    rows = [
        {"i": i, "norm": round(n, 4), "overlap": round(min(o, 1.0), 4)}
        for i, (n, o) in enumerate(zip(norms, overlaps, strict=True))
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=alt.Y("i:O", axis=None),
            x=alt.X(
                "norm:Q",
                scale=alt.Scale(domain=[0, 1.3]),
                axis=alt.Axis(title="length of W_i", values=[0, 0.5, 1], grid=False),
            ),
            color=alt.Color(
                "overlap:Q",
                scale=alt.Scale(
                    domain=[0, 0.5, 1], range=[BLUE, "#a98a9a", ORANGE], interpolate="rgb"
                ),
                legend=alt.Legend(title="overlap", values=[0, 0.5, 1], gradientLength=110)
                if last
                else None,
            ),
        )
        .properties(width=150, height=150)
    )


def dimensions_spec(models: ToyModels) -> dict[str, Any]:
    """D* and every represented feature's own share of a dimension, against 1/(1 − S)."""
    packing = measure_packing(models.W)
    inverse = [1 / (1 - s) for s in models.plan.sparsities]
    line = [
        {"x": x, "y": float(d)}
        for x, d in zip(inverse, packing.dimensions_per_feature, strict=True)
    ]
    points = [
        {"x": x, "y": round(float(share), 4)}
        for i, x in enumerate(inverse)
        for share, norm in zip(packing.dimensionality[i], packing.norms[i], strict=True)
        if norm > 0.5
    ]
    x = alt.X(
        "x:Q",
        title="1/(1 − S): samples per firing of a feature",
        scale=alt.Scale(type="log", domain=[0.95, 110], nice=False),
        axis=alt.Axis(values=[1, 2, 3, 5, 10, 20, 50, 100], format="~r"),
    )
    y = alt.Y("y:Q", title="dimensions per feature", scale=alt.Scale(domain=[0, 1.1]))
    marks = [{"y": at, "label": label} for at, label in SHAPES]
    rules = (
        alt.Chart(alt.Data(values=marks))
        .mark_rule(color=MUTED, strokeDash=[3, 4], strokeWidth=0.8)
        .encode(y="y:Q")
    )
    labels = (
        alt.Chart(alt.Data(values=marks))
        .mark_text(align="right", baseline="bottom", color=MUTED, fontSize=11, dy=-1)
        .encode(y="y:Q", text="label:N", x=alt.value(616))
    )
    drawn = alt.layer(
        rules,
        labels,
        alt.Chart(alt.Data(values=points))
        .mark_circle(size=16, color=BLUE, opacity=0.25)
        .encode(x=x, y=y),
        alt.Chart(alt.Data(values=line))
        .mark_line(color=ORANGE, strokeWidth=2.2, point=alt.OverlayMarkDef(color=ORANGE, size=34))
        .encode(x=x, y=y),
    ).properties(width=620, height=360)
    plan = models.plan
    return _finished(
        drawn,
        f"{plan.features} features of equal importance in {plan.hidden} dimensions",
        "Orange: D*, hidden dimensions over the sum of all squared lengths |W_i|², model by model.",
        "Blue: each represented feature's own share of a dimension, |W_i|² / Σ (Ŵ_i·W_j)² over j.",
    )


def phases_spec(phases: dict[str, tuple[PhaseCell, ...]]) -> dict[str, Any]:
    """What becomes of an extra feature: theory at the left, training at the right."""
    rows = [
        alt.hconcat(
            _phase(cells, "expected", f"{name}: theory"),
            _phase(cells, "found", f"{name}: training"),
            spacing=28,
        )
        for name, cells in phases.items()
    ]
    return _finished(
        alt.vconcat(*rows, spacing=22).resolve_scale(color="shared"),
        "The phase change: what becomes of one extra feature",
        "Theory: which of a few weights written down by hand has the least loss.",
        "Training: all weights free, gradient descent on the exact expected loss, best of several "
        "starts.",
    )


def _phase(cells: tuple[PhaseCell, ...], field: str, title: str) -> Any:
    names = {"density": "feature density 1 − S", "importance": "relative importance"}
    axes = {name: sorted({round(getattr(c, name), 6) for c in cells}) for name in names}
    rows = [
        {
            "density": round(c.density, 6),
            "importance": round(c.importance, 6),
            "outcome": getattr(c, field).value,
        }
        for c in cells
    ]

    def axis(name: str) -> alt.Axis:
        ticks = axes[name][:: max(1, (len(axes[name]) - 1) // 4)]
        return alt.Axis(title=names[name], values=ticks, format=".2~r", grid=False, labelAngle=0)

    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("density:O", sort="descending", axis=axis("density")),
            y=alt.Y("importance:O", sort="descending", axis=axis("importance")),
            color=alt.Color(
                "outcome:N",
                title="the extra feature",
                scale=alt.Scale(domain=[o.value for o in PHASES], range=list(PHASES.values())),
                legend=alt.Legend(orient="bottom", titleOrient="left"),
            ),
        )
        .properties(
            width=270, height=230, title=alt.TitleParams(title, color=INK, fontSize=12, offset=6)
        )
    )


def _finished(chart: Any, title: str, *subtitle: str) -> dict[str, Any]:
    """The chart with its title and the house's fonts and colours."""
    return styled_alone(
        chart.properties(title=headline(title, *subtitle)),
        legend=alt.LegendConfig(labelFontSize=11, labelColor=INK, titleColor=MUTED),
        labelFontSize=11,
        titlePadding=6,
    ).to_dict()
