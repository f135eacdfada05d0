"""SAEs and sweeps in the terminal, as rich tables.

What files say goes through `one_line` and into `rich.text.Text`, never into markup: a terminal
obeys escape sequences, and rich obeys brackets.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from auditkit.core.measured import Measure, Measured
from auditkit.pipeline.inspect_sae import Inspected
from auditkit.pipeline.sweeping.cells import Sweep, counts
from auditkit.report import figures
from auditkit.report.visible import one_line


def show(view: RenderableType) -> None:
    """Print to standard output, coloured where that is a terminal."""
    Console(highlight=False).print(view)


def inspect_view(found: Inspected) -> RenderableType:
    """Identity, weights and card of an SAE."""
    identity = found.identity
    sparsity = f", k {identity.k}" if identity.k is not None else ""
    head = Text(one_line(identity.name), style="bold")
    head.append(
        f"\n{identity.architecture}{sparsity}: {identity.d_sae:,} latents, d_in {identity.d_in}, "
        f"{found.parameters / 1e6:,.1f} million parameters",
        style="not bold",
    )
    parts: list[RenderableType] = [head, _identity_table(found), _weights_table(found)]
    if found.silent_rows:
        parts.append(Text(f"{found.silent_rows:,} decoder rows are zero.", style="yellow"))
    parts += [Text(f"note: {one_line(note)}", style="yellow") for note in found.notes]
    return Group(*parts, _card_table(found))


def sweep_view(sweep: Sweep) -> RenderableType:
    """Every cell of a sweep with its standing, then the baselines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("SAE", no_wrap=True)
    for name in ("steps", "L0", "explained variance", "ΔCE (nats)", "dead"):
        table.add_column(name, justify="right")
    table.add_column("standing")
    for result, standing in zip(sweep.cells, sweep.standings, strict=True):
        table.add_row(
            Text(result.cell.name),
            f"{result.steps:,}",
            _number(result.l0, "{:.1f}"),
            _number(result.explained_variance, "{:.4f}"),
            _number(result.delta_ce, "{:.4f}"),
            _number(result.dead, "{:.1%}"),
            Text(standing.mark, style="bold" if standing.mark == "frontier" else "dim"),
        )
    for point in sweep.baselines:
        table.add_row(
            Text(point.kind, style="dim"),
            "",
            str(point.k),
            _number(point.explained_variance, "{:.4f}"),
            _number(point.delta_ce, "{:.4f}"),
            "",
            Text("baseline", style="dim"),
        )
    head = Text(_measured_on(sweep))
    if sweep.missing:
        head.append(f"\nNot finished: {', '.join(sweep.missing)}.", style="yellow")
    return Group(head, table)


def _measured_on(sweep: Sweep) -> str:
    tokens = counts([c.explained_variance for c in sweep.cells])
    predictions = counts([c.delta_ce for c in sweep.cells])
    left_out = f", {sweep.tokens_left_out:,} of high norm left out" if sweep.tokens_left_out else ""
    return (
        f"{one_line(sweep.name)} at {sweep.hook_point}: L0, explained variance and dead latents on "
        f"n = {tokens} held-out tokens{left_out}; ΔCE on n = {predictions} predictions."
    )


def _number(measure: Measure, form: str) -> Text:
    if isinstance(measure, Measured):
        return Text(form.format(measure.value))
    return Text(f"not measured: {one_line(measure.reason)}", style="yellow")


def _identity_table(found: Inspected) -> Table:
    identity = found.identity
    rows = {
        "source": found.source,
        "hook point": identity.hook_point,
        "model": identity.model_name or "not stated",
        "activations": identity.normalize_activations,
        "b_dec subtracted from the input": "yes" if identity.apply_b_dec_to_input else "no",
        "scaled by decoder norms": "yes" if identity.rescale_acts_by_decoder_norm else "no",
        "weights (SHA-256)": identity.weights_sha256,
        "digest": found.digest,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(one_line(value)))
    return table


def _weights_table(found: Inspected) -> Table:
    table = _table("over latents", left=1)
    for name in ("smallest", "median", "largest"):
        table.add_column(name, justify="right")
    for name, spread in found.weights.items():
        numbers = (figures.figure(v) for v in (spread.low, spread.median, spread.high))
        table.add_row(name, *numbers)
    return table


def _card_table(found: Inspected) -> Table:
    table = _table("card", left=1)
    for name in ("value", "unit", "n"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for measure in found.measures:
        value, name = measure.value, Text(one_line(measure.name))
        if isinstance(value, Measured):
            table.add_row(name, figures.figure(value.value, 4), measure.unit, f"{value.n:,}")
        else:
            table.add_row(name, Text(f"not measured: {one_line(value.reason)}", style="dim"))
    return table


def _table(*names: str, left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return table
