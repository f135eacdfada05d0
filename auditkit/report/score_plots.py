"""Plots of an SAE's score as inline SVG: densities, norms, errors, frontiers, effects, probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from auditkit.core.measured import Measured
from auditkit.report.picture_style import INK, styled
from auditkit.report.score_document import Distribution, ScoreDocument, ScorePart
from auditkit.report.visible import one_line

WIDTH, HEIGHT = 480, 250
# Okabe and Ito's colours, told apart by most readers, on light paper and on dark.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f98", "#a0522d")
Row = dict[str, float | str]
Order = Sequence[str]
OWN = "SAE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot with what it shows in words."""

    title: str
    svg: str
    caption: str


def score_figures(doc: ScoreDocument) -> list[Figure]:
    """Every plot that the document has data for; the same document gives the same text."""
    fidelity, effects, probing = (doc.part(g) for g in ("fidelity", "ablation", "probing"))
    order = (OWN, *(c.name for c in doc.columns))
    found: list[Figure | None] = []
    if fidelity is not None:
        found += [_densities(fidelity, order), _norms(fidelity), _errors(fidelity, order)]
        found += [_explained(doc, fidelity, order), _losses(doc, order)]
    if effects is not None:
        found.append(_effects(effects, order))
    if probing is not None:
        found.append(_probes(probing, order))
    return [figure for figure in found if figure is not None]


def _densities(part: ScorePart, order: Order) -> Figure | None:
    rows: list[Row] = [
        {"dictionary": d.column, "x": left, "y": count}
        for d in part.densities
        for left, count in zip((*d.edges[:-1], d.edges[-1]), (*d.counts, 0), strict=True)
    ]
    silent = ", ".join(f"{d.column} {d.silent:,}" for d in part.densities if d.silent)
    return _figure(
        "How often latents fire",
        _steps(rows, "log10 of the share of tokens on which a latent fires", "latents", order),
        "Latents per quarter of a decade. Silent on these tokens: " + (silent or "none") + ".",
    )


def _norms(part: ScorePart) -> Figure | None:
    names = {"norm": "‖x‖", "norm_hat": "‖x̂‖", "error": "‖x − x̂‖"}
    own = part.distributions[0].column if part.distributions else ""
    rows = [
        row
        for d in part.distributions
        if d.column == own and d.quantity in names
        for row in _shares(d, names[d.quantity], log=True)
    ]
    return _figure(
        "Norms of activations, reconstructions and errors",
        _steps(rows, "log10 of the norm", "share of tokens", ()),
        f"{own}: tokens per twentieth of a decade.",
    )


def _errors(part: ScorePart, order: Order) -> Figure | None:
    rows = [
        row
        for d in part.distributions
        if d.quantity == "relative_error"
        for row in _shares(d, d.column, log=False)
    ]
    return _figure(
        "Relative errors",
        _steps(rows, "‖x − x̂‖ / ‖x‖", "share of tokens", order),
        "Tokens per fortieth; what is above 1.5 is counted at the right end.",
    )


def _shares(d: Distribution, name: str, *, log: bool) -> list[Row]:
    total = sum(d.counts) or 1
    edges = [math.log10(e) if log and e > 0 else e for e in d.edges]
    heights = [*(c / total for c in d.counts), 0.0]
    return [{"dictionary": name, "x": x, "y": y} for x, y in zip(edges, heights, strict=True)]


def _explained(doc: ScoreDocument, part: ScorePart, order: Order) -> Figure | None:
    rows: list[Row] = [
        {"dictionary": p.curve, "x": p.l0, "y": p.explained_variance} for p in part.frontier
    ]
    return _figure(
        "Explained variance against L0",
        _scatter(rows, "explained variance (centred)", order),
        f"{doc.text.tokens:,} held-out tokens. Up and left is better; a line joins what differs "
        "only in the number of terms.",
    )


def _losses(doc: ScoreDocument, order: Order) -> Figure | None:
    l0, losses = (_by_column(doc, name) for name in ("L0", "ΔCE"))
    rows: list[Row] = [
        {"dictionary": name, "x": l0[name], "y": losses[name]} for name in losses if name in l0
    ]
    return _figure(
        "Loss on reconstructions against L0",
        _scatter(rows, "ΔCE (nats per token)", order),
        "The model's rise in cross-entropy when it runs on reconstructions. Down and left is "
        "better.",
    )


def _by_column(doc: ScoreDocument, name: str) -> dict[str, float]:
    """A measure of the SAE and of everything beside it, where it was taken."""
    found: dict[str, float] = {}
    for row in doc.rows():
        if row.name == name:
            values = [(OWN, row.value), *((b.column, b.value) for b in row.beside)]
            found = {column: v.value for column, v in values if isinstance(v, Measured)}
    return found


def _scatter(rows: Sequence[Row], y_title: str, order: Order) -> Any:
    if len(rows) < 2:
        return None
    import altair as alt

    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("x:Q", title="L0 (terms per token)", scale=_log_scale(18)),
        y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
        color=_colour([str(r["dictionary"]) for r in rows], order),
    )
    lines = base.mark_line(strokeWidth=1.6).encode(order="x:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        shape=alt.Shape("dictionary:N", legend=None)
    )
    return alt.layer(lines, points)


def _effects(part: ScorePart, order: Order) -> Figure | None:
    rows: list[Row] = []
    for curve in part.effects:
        rising = sorted(curve.effective_logits)
        rows += [
            {"dictionary": curve.column, "x": value, "y": (i + 1) / len(rising)}
            for i, value in enumerate(rising)
        ]
    chart = _steps(
        rows,
        "effective number of logits moved, (‖Δ‖₁/‖Δ‖₂)²",
        "share of latents below",
        order,
        log=True,
    )
    return _figure(
        "On how many logits one latent acts",
        chart,
        f"Each latent's mean over its fires; of {part.vocabulary or 0:,} logits. Controls move the "
        "same tokens by the same norm. Further left is sparser.",
    )


def _probes(part: ScorePart, order: Order) -> Figure | None:
    rows: list[Row] = []
    for task in part.probes:
        for score in task.scores:
            if isinstance(score.auroc, Measured):
                name = "all" if score.k is None else str(score.k)
                rows.append({"dictionary": score.column, "x": name, "y": score.auroc.value})
    if not rows:
        return None
    import altair as alt

    ks = [*map(str, sorted({s.k for t in part.probes for s in t.scores if s.k})), "all"]
    x = alt.X("x:N", title="features used (k)", sort=ks, axis=alt.Axis(labelAngle=0))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=x, color=_colour([str(r["dictionary"]) for r in rows], order), xOffset="dictionary:N"
    )
    y = alt.Y("y:Q", title="held-out AUROC", scale=alt.Scale(zero=False, domainMax=1))
    dots = base.mark_circle(size=16, opacity=0.45).encode(y=y)
    means = base.mark_tick(thickness=3, width=13).encode(
        y=alt.Y("mean(y):Q", title="held-out AUROC")
    )
    return _figure(
        "k-sparse probing",
        alt.layer(dots, means),
        f"A dot is a task ({len(part.probes)} of them), a bar their mean. 0.5 is chance.",
    )


def _steps(
    rows: Sequence[Row], x_title: str, y_title: str, order: Order, *, log: bool = False
) -> Any:
    if not rows:
        return None
    import altair as alt

    scale = _log_scale(6) if log else alt.Scale(zero=False)
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=scale),
            y=alt.Y("y:Q", title=y_title),
            color=_colour([str(r["dictionary"]) for r in rows], order),
        )
    )


def _log_scale(padding: int) -> Any:
    import altair as alt

    return alt.Scale(type="log", nice=False, padding=padding)


def _colour(names: Sequence[str], order: Order) -> Any:
    """A colour for each name, the same in every plot for what has a place in `order`."""
    import altair as alt

    shown = set(names)
    ranked = [*order, *(n for n in dict.fromkeys(names) if n not in order)]
    palette = {n: PALETTE[i % len(PALETTE)] for i, n in enumerate(ranked) if n in shown}
    return alt.Color(
        "dictionary:N",
        sort=list(palette),
        scale=alt.Scale(domain=list(palette), range=list(palette.values())),
        legend=alt.Legend(title=None, orient="bottom", columns=3, labelLimit=220),
    )


def _figure(title: str, chart: Any, caption: str) -> Figure | None:
    if chart is None:
        return None
    import altair as alt
    import vl_convert  # a second to load, and only needed where there is a plot

    drawn = styled(
        chart.properties(width=WIDTH - 70, height=HEIGHT - 50),
        legend=alt.LegendConfig(
            labelColor=INK, labelFontSize=12, symbolStrokeWidth=3, symbolOpacity=1
        ),
    )
    svg = vl_convert.vegalite_to_svg(drawn.to_dict())
    label = escape(one_line(title))
    return Figure(
        title=title,
        svg=svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1),
        caption=caption,
    )
