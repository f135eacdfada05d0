"""Dose-response plots as SVG: the effect with its interval beside the band of the controls."""

from __future__ import annotations

from html import escape
from typing import Any

from auditkit.core.confirmations import Confirmation
from auditkit.core.locks import ConfirmPlan
from auditkit.core.measured import Measured
from auditkit.report.picture_style import INK, MUTED, styled
from auditkit.report.visible import one_line

EFFECT = "#1f4e79"
BAND = "#c3cad3"

WIDTH, HEIGHT = 560, 250

OUTCOMES = {
    "lexicon_logodds": "change of log-odds of the lexicon's words (nats)",
    "lexeme_rate": "change of the rate of the lexicon's words (share of words)",
}


def outcome_label(metric: str) -> str:
    """What an outcome measures, with its unit."""
    return OUTCOMES.get(metric, f"change of {metric}")


def dose_label(op: str) -> str:
    """What a dose is, with its unit."""
    verb = {"steer": "steering", "clamp": "clamping"}.get(op, op)
    return f"dose of {verb} (multiples of the latents' 99th percentile)"


def dose_rows(confirmation: Confirmation) -> list[dict[str, float]]:
    """One row per dose whose effect was measured; the interval is the point where none is."""
    rows: list[dict[str, float]] = []
    for point in confirmation.doses:
        effect = point.effect
        if not isinstance(effect, Measured):
            continue
        ends = effect.interval
        rows.append(
            {
                "dose": point.dose,
                "effect": effect.value,
                "low": ends.low if ends else effect.value,
                "high": ends.high if ends else effect.value,
                "control_low": point.control_low,
                "control_high": point.control_high,
                "control_mean": point.control_mean,
            }
        )
    return rows


def dose_response_svg(confirmation: Confirmation, plan: ConfirmPlan | None) -> str | None:
    """Inline SVG of effect against dose, or None where no dose was measured.

    The same confirmation gives the same text.
    """
    rows = dose_rows(confirmation)
    if not rows:
        return None
    op = plan.intervene.op if plan is not None else "steer"
    import vl_convert  # a second to load, and only needed where there is a plot

    svg = vl_convert.vegalite_to_svg(
        _chart(rows, dose_label(op), outcome_label(confirmation.metric)).to_dict()
    )
    return _inline(svg, f"Effect of {confirmation.name} against dose")


def _chart(rows: list[dict[str, float]], x_title: str, y_title: str) -> Any:
    import altair as alt

    base = alt.Chart(alt.Data(values=rows))
    x = alt.X("dose:Q", title=x_title, scale=alt.Scale(zero=True, nice=False, padding=12))
    y_axis = alt.Y("low:Q", title=y_title)
    band = base.mark_area(color=BAND, opacity=0.55).encode(
        x=x, y=alt.Y("control_low:Q", title=y_title), y2="control_high:Q"
    )
    controls = base.mark_line(color=MUTED, strokeDash=[4, 3], strokeWidth=1.2).encode(
        x=x, y="control_mean:Q"
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=INK, strokeWidth=1)
    bars = base.mark_rule(color=EFFECT, strokeWidth=2).encode(x=x, y=y_axis, y2="high:Q")
    line = base.mark_line(color=EFFECT, strokeWidth=2).encode(x=x, y="effect:Q")
    points = base.mark_point(color=EFFECT, fill=EFFECT, size=48, opacity=1).encode(
        x=x, y="effect:Q"
    )
    layers = alt.layer(band, zero.encode(y="zero:Q"), controls, bars, line, points)
    return styled(layers.properties(width=WIDTH - 70, height=HEIGHT - 50))


def _inline(svg: str, title: str) -> str:
    """The SVG scaled by the page, named for readers who cannot see it."""
    label = escape(one_line(title))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
