"""The house's style of pictures: colours, font, and what every chart is configured with."""

from __future__ import annotations

from typing import Any

# Drawn in the light theme's colours; the page restyles them by these values in the dark.
INK = "#1b2129"
MUTED = "#5b6673"
GRID = "#e3e7ec"
FONT = "Liberation Sans, Arial, sans-serif"


def styled(chart: Any, *, legend: Any = None, **axis: Any) -> Any:
    """An Altair chart inside a page, on whose background and in whose margins it stands.

    `legend` is an altair.LegendConfig where there is a legend; `axis` changes what axes are
    configured with.
    """
    return _configured(chart, legend, axis, background="transparent", padding=6)


def styled_alone(chart: Any, *, legend: Any = None, **axis: Any) -> Any:
    """An Altair chart that is a picture of its own, on white; `legend` and `axis` as of `styled`,
    with a legend of the house's colours by default."""
    import altair as alt

    if legend is None:
        legend = alt.LegendConfig(labelFontSize=12, labelColor=INK)
    return _configured(chart, legend, axis, background="white", padding=14)


def headline(text: str, *subtitle: str) -> Any:
    """An altair.TitleParams for a picture of its own: a title with lines below it."""
    import altair as alt

    return alt.TitleParams(
        text=text,
        subtitle=list(subtitle),
        anchor="start",
        color=INK,
        subtitleColor=MUTED,
        fontSize=15,
        subtitleFontSize=11,
        subtitlePadding=6,
        offset=14,
    )


def _configured(chart: Any, legend: Any, axis: dict[str, Any], **page: Any) -> Any:
    import altair as alt

    usual: dict[str, Any] = {
        "labelColor": MUTED,
        "titleColor": INK,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    }
    return chart.configure(
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(**(usual | axis)),
        **({} if legend is None else {"legend": legend}),
        **page,
    )
