"""A sweep's Pareto frontier as a picture: explained variance and ΔCE against L0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auditkit.core.measured import Measure, Measured
from auditkit.pipeline.sweeping.cells import Sweep, counts
from auditkit.report.picture_style import INK, headline, styled_alone

COLOURS = ("#1f4e79", "#c05621", "#2f7d4f", "#7a3e9d", "#9b2c3d", "#5f6b1f", "#0e7490", "#8a6d1a")
BASELINES = ("#6b7280", "#a3a9b3")
WIDTH, HEIGHT = 400, 320


def pareto_svg(spec: dict[str, Any]) -> str:
    """The picture as SVG; the same specification gives the same text."""
    import vl_convert  # a second to load, and only needed where there is a plot

    return vl_convert.vegalite_to_svg(spec)


def pareto_png(spec: dict[str, Any]) -> bytes:
    """The picture as PNG, two pixels to a point."""
    import vl_convert

    return vl_convert.vegalite_to_png(spec, scale=2)


def pareto_spec(sweep: Sweep) -> dict[str, Any]:
    """The picture as a Vega-Lite specification, data included."""
    import altair as alt

    panels = [
        _panel(sweep, "explained_variance", "explained variance (centred, share)", dominated=0),
        _panel(sweep, "delta_ce", "ΔCE (nats per token, lower is better)", dominated=1),
    ]
    chart = alt.hconcat(*panels, spacing=36).resolve_scale(color="shared", shape="shared")
    title = headline(
        f"{sweep.name}: {sweep.hook_point} of {_short(sweep.model)}", *_subtitle(sweep)
    )
    return styled_alone(chart.properties(title=title)).to_dict()


def _panel(sweep: Sweep, measure: str, y_title: str, *, dominated: int) -> Any:
    """One measure against L0: cells, the frontier through those not dominated, baselines."""
    import altair as alt

    cells = _cell_rows(sweep, measure, dominated)
    baselines = _baseline_rows(sweep, measure)
    series = list(dict.fromkeys(row["series"] for row in cells))
    kinds = list(dict.fromkeys(row["series"] for row in baselines))
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(
            domain=[*series, *kinds],
            range=[*(COLOURS[i % len(COLOURS)] for i in range(len(series))), *BASELINES][
                : len(series) + len(kinds)
            ],
        ),
        legend=alt.Legend(orient="bottom", columns=2, symbolStrokeWidth=2.5, labelLimit=260),
    )
    x = alt.X(
        "l0:Q",
        title="L0 (active latents per token)",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=alt.Axis(values=_ticks(cells, baselines), format="~r"),
    )
    positive = measure == "delta_ce" and all(r["value"] > 0 for r in [*cells, *baselines])
    scale = alt.Scale(type="log" if positive else "linear", zero=False, nice=False, padding=12)
    y = alt.Y("value:Q", title=y_title, scale=scale, axis=alt.Axis(tickCount=8, format="~r"))
    base = alt.Chart(alt.Data(values=cells)).encode(x=x, y=y)
    floor = alt.Chart(alt.Data(values=baselines)).encode(x=x, y=y, color=colour)
    frontier = (
        base.transform_filter("datum.standing == 'frontier'")
        .mark_line(color=INK, strokeWidth=1, strokeDash=[2, 3], interpolate="linear")
        .encode(order="l0:Q")
    )
    lines = base.mark_line(strokeWidth=1.6, opacity=0.75).encode(color=colour, order="l0:Q")
    held = base.transform_filter("datum.standing == 'frontier'").mark_point(
        filled=True, size=80, opacity=1
    )
    beaten = base.transform_filter("datum.standing != 'frontier'").mark_point(
        filled=True, size=64, opacity=1, fill="white", strokeWidth=1.8
    )
    return alt.layer(
        floor.mark_line(strokeWidth=1.4, strokeDash=[5, 3]),
        lines,
        frontier,
        held.encode(color=colour),
        beaten.encode(stroke=_stroke(colour)),
    ).properties(width=WIDTH, height=HEIGHT)


def _stroke(colour: Any) -> Any:
    """The same scale and legend for the outline of a hollow point."""
    import altair as alt

    return alt.Stroke.from_dict(colour.to_dict())


def _cell_rows(sweep: Sweep, measure: str, dominated: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for result, standing in zip(sweep.cells, sweep.standings, strict=True):
        value: Measure = getattr(result, measure)
        if not (isinstance(value, Measured) and isinstance(result.l0, Measured)):
            continue
        if result.l0.value <= 0:
            continue  # an SAE that is wholly dead has no place on a log axis; the table has it
        beaten = (standing.on_explained_variance, standing.on_delta_ce)[dominated]
        rows.append(
            {
                "l0": result.l0.value,
                "value": value.value,
                "series": result.cell.series,
                "standing": "dominated" if beaten else "frontier",
            }
        )
    return rows


def _baseline_rows(sweep: Sweep, measure: str) -> list[dict[str, Any]]:
    return [
        {"l0": float(point.k), "value": value.value, "series": point.kind}
        for point in sweep.baselines
        if isinstance(value := getattr(point, measure), Measured)
    ]


def _ticks(*groups: Sequence[dict[str, Any]]) -> list[float]:
    """Powers of two over the data."""
    values = [row["l0"] for rows in groups for row in rows] or [1.0]
    powers = [2.0**i for i in range(-3, 18)]
    return [p for p in powers if min(values) / 1.5 <= p <= max(values) * 1.5]


def _subtitle(sweep: Sweep) -> list[str]:
    """What was trained and on how much each point was measured."""
    seen = sorted({result.tokens_seen for result in sweep.cells})
    spans = "–".join(f"{n:,}" for n in dict.fromkeys((seen[0], seen[-1]))) if seen else "no"
    tokens = counts([r.explained_variance for r in sweep.cells])
    predictions = counts([r.delta_ce for r in sweep.cells])
    missing = f" {len(sweep.missing)} not finished." if sweep.missing else ""
    return [
        f"{len(sweep.cells)} SAEs, each trained on {spans} tokens. Held-out text: "
        f"n = {tokens} tokens (left), {predictions} predictions (right).{missing}",
        "Filled: no other SAE is as sparse and as good. Hollow: dominated. Dashed grey: baselines.",
    ]


def _short(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]
