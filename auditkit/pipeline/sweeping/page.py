"""A sweep as one self-contained HTML page: the picture, and a table with n beside every figure."""

from __future__ import annotations

from jinja2 import Environment, select_autoescape
from markupsafe import Markup

from auditkit.core.measured import Measure, Measured
from auditkit.pipeline.sweeping.cells import Sweep

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ sweep.name }}: Pareto frontier</title>
<style>
body { font: 15px/1.5 "Liberation Sans", Arial, sans-serif; color: #1b2129; margin: 2rem auto;
       max-width: 62rem; padding: 0 1rem; }
figure { margin: 0 0 1.5rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: #5b6673; padding-bottom: .4rem; }
th, td { border-bottom: 1px solid #e3e7ec; padding: .3rem .7rem; text-align: right; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
th { font-weight: 600; }
small, .missing { color: #5b6673; }
tr.dominated td { color: #5b6673; }
</style>
</head>
<body>
<h1>{{ sweep.name }}</h1>
<p>SAEs at <code>{{ sweep.hook_point }}</code> of {{ sweep.model }}, on held-out text.
{% if sweep.tokens_left_out %}{{ "{:,}".format(sweep.tokens_left_out) }} tokens of a norm above ten
times the median are left out.{% endif %}
{% if sweep.missing %}Not finished: {{ sweep.missing | join(", ") }}.{% endif %}</p>
<figure role="img" aria-label="Explained variance and ΔCE against L0">{{ svg }}</figure>
<div class="wide">
<table>
<caption>A point is dominated where another SAE is as sparse or sparser and as good or better, and
one of the two strictly.</caption>
<thead><tr><th>SAE</th><th>steps</th><th>L0</th><th>explained variance</th><th>ΔCE (nats)</th>
<th>dead</th><th>standing</th></tr></thead>
<tbody>
{% for result, standing in rows %}
<tr class="{{ 'frontier' if standing.mark == 'frontier' else 'dominated' }}">
<td>{{ result.cell.name }}</td><td>{{ "{:,}".format(result.steps) }}</td>
<td>{{ figure(result.l0, "{:.1f}") }}</td>
<td>{{ figure(result.explained_variance, "{:.4f}") }}</td>
<td>{{ figure(result.delta_ce, "{:.4f}") }}</td>
<td>{{ figure(result.dead, "{:.1%}") }}</td><td>{{ standing.mark }}</td></tr>
{% endfor %}
{% for point in sweep.baselines %}
<tr class="dominated"><td>{{ point.kind }}</td><td></td><td>{{ point.k }}</td>
<td>{{ figure(point.explained_variance, "{:.4f}") }}</td>
<td>{{ figure(point.delta_ce, "{:.4f}") }}</td><td></td><td>baseline</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p><small>Cross-entropy of the untouched model: {{ figure(sweep.base_ce, "{:.4f}") }} nats per
token. Definitions: docs/measures.md.</small></p>
</body>
</html>
"""


def render_page(sweep: Sweep, svg: str) -> str:
    """The page with its picture; it asks for nothing from the network."""
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True)
    return environment.from_string(_PAGE).render(
        sweep=sweep,
        rows=list(zip(sweep.cells, sweep.standings, strict=True)),
        svg=Markup(svg),  # ours, with text escaped by the renderer
        figure=_figure,
    )


def _figure(measure: Measure, form: str) -> Markup:
    if isinstance(measure, Measured):
        return Markup("{} <small>n {}</small>").format(form.format(measure.value), f"{measure.n:,}")
    return Markup('<span class="missing">not measured: {}</span>').format(measure.reason)
