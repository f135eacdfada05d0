"""An SAE's score as one table: measure, value with interval and n, floors in columns."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.measured import Measure, NotMeasured
from auditkit.report.figures import figure, interval, observations
from auditkit.report.score_document import Beside, DensityCurve, ScoreDocument, ScorePart, ScoreRow
from auditkit.report.visible import one_line

TITLES = {
    "fidelity": "Reconstruction and sparsity",
    "loss": "What the model loses on reconstructions",
    "geometry": "Directions",
    "stability": "Stability over seeds",
    "ablation": "What an ablated latent does to the next token's logits",
    "probing": "k-sparse probing of labelled texts",
}
KEPT = "†"
NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The rows of one group, as text."""

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """Cells ready to be printed; `headers` name the columns of every section."""

    headers: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]


def lay_out_score(doc: ScoreDocument) -> TableView:
    """The cells of all measures; what was not measured points to its numbered reason."""
    reasons: dict[str, int] = {}
    high_norm = any(
        row.without_high_norm is not None and row.without_high_norm != row.value
        for row in doc.rows()
    )
    columns = tuple(c.name for c in doc.columns)
    extra = ("without high-norm tokens",) if high_norm else ()
    sections = tuple(
        Section(
            title=TITLES[part.group] + (f" {KEPT}" if part.kept else ""),
            rows=tuple(_cells(row, columns, high_norm, reasons) for row in part.rows),
        )
        for part in doc.parts
    )
    noted = {row.name: row.note for row in doc.rows() if row.note}
    return TableView(
        headers=("measure", "value", "unit", "n", *extra, *columns),
        sections=sections,
        notes=tuple(noted.items()),
        reasons=tuple(reasons),
        remarks=tuple(_remarks(doc, high_norm)),
    )


def _cells(
    row: ScoreRow, columns: Sequence[str], high_norm: bool, reasons: dict[str, int]
) -> tuple[str, ...]:
    beside = {b.column: b for b in row.beside}
    without = () if not high_norm else (_plain(row.without_high_norm, reasons),)
    return (
        row.name,
        _value(row.value, reasons),
        row.unit,
        observations(row.value),
        *without,
        *(_beside(beside.get(name), reasons) for name in columns),
    )


def _value(value: Measure, reasons: dict[str, int]) -> str:
    text = _plain(value, reasons)
    if isinstance(value, NotMeasured) or value.interval is None:
        return text
    return f"{text} {interval(value.interval)}"


def _beside(beside: Beside | None, reasons: dict[str, int]) -> str:
    if beside is None:
        return NONE
    return _plain(beside.value, reasons) + (f" {KEPT}" if beside.kept else "")


def _plain(value: Measure | None, reasons: dict[str, int]) -> str:
    if value is None:
        return NONE
    if isinstance(value, NotMeasured):
        number = reasons.setdefault(one_line(value.reason), len(reasons) + 1)
        return f"n/m [{number}]"
    return figure(value.value, 4)


def _remarks(doc: ScoreDocument, high_norm: bool) -> list[str]:
    text = doc.text
    said = [
        f"Brackets: 95% intervals. {NONE}: the measure makes no sense there. n/m: not measured, "
        "for the numbered reason."
    ]
    fidelity = doc.part("fidelity")
    high = None if fidelity is None else fidelity.high_norm_tokens
    if text.norm_limit is not None and high is not None and not high_norm:
        said.append(
            f"{high:,} of {text.tokens:,} tokens have a norm above "
            f"{figure(text.norm_limit)} (10 times the median): measures without them are the same."
        )
    if fidelity is not None and fidelity.densities:
        said.append(_densities(fidelity.densities[0]))
    if any(part.kept for part in doc.parts) or any(
        b.kept for row in doc.rows() for b in row.beside
    ):
        earlier = doc.kept_from
        on = f", on {earlier.tokens:,} tokens of another draw of the text" if earlier else ""
        said.append(f"{KEPT} measured in an earlier run and kept{on}.")
    return said


def _densities(curve: DensityCurve) -> str:
    counts = " ".join(f"{n:,}" for n in curve.counts)
    return (
        f"{curve.column}: latents by log10 of their density, in equal bins from "
        f"{curve.edges[0]:g} to {curve.edges[-1]:g}: {counts}; silent {curve.silent:,}."
    )


def score_markdown(doc: ScoreDocument) -> str:
    """The table as Markdown, with its notes and the probes of each task."""
    view = lay_out_score(doc)
    lines = [_line(view.headers), _line(["---"] * len(view.headers))]
    for section in view.sections:
        lines.append(_line([f"**{section.title}**", *[""] * (len(view.headers) - 1)]))
        lines += [_line(row) for row in section.rows]
    for remark in view.remarks:
        lines += ["", remark]
    if view.notes:
        lines += ["", *(f"- {name}: {note}" for name, note in view.notes)]
    if view.reasons:
        lines += ["", "Not measured:", ""]
        lines += [f"- [{n}] {reason}" for n, reason in enumerate(view.reasons, 1)]
    lines += ["", "Held against:", ""]
    lines += [f"- {c.name}: {c.note}" for c in doc.columns]
    probing = doc.part("probing")
    if probing is not None and probing.probes:
        lines += ["", *_tasks_markdown(probing)]
    return "\n".join(lines) + "\n"


def task_rows(part: ScorePart) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of the probes of each task: the SAE's own, then a dense one."""
    own = part.probes[0].scores[0].column
    ks = [s.k for s in part.probes[0].scores if s.column == own]
    names = [f"AUROC, k = {k}" for k in ks]
    dense = [s for s in part.probes[0].scores if s.column != own and s.k is None]
    headers = ("task", "fitted on", "tested on", "larger class", *names)
    headers += tuple(f"AUROC, {s.column}" for s in dense)
    rows: list[tuple[str, ...]] = []
    for task in part.probes:
        scores = {(s.column, s.k): s for s in task.scores}
        cells = [_value(scores[own, k].auroc, {}) for k in ks]
        cells += [_value(scores[s.column, None].auroc, {}) for s in dense]
        larger = _value(task.majority, {}).split(" ")[0]
        rows.append((task.name, f"{task.fitted_on}", f"{task.tested_on}", larger, *cells))
    return headers, rows


def _tasks_markdown(part: ScorePart) -> list[str]:
    headers, rows = task_rows(part)
    return [
        "Probes of each task, tested on the half that chose and fitted nothing:",
        "",
        _line(headers),
        _line(["---"] * len(headers)),
        *map(_line, rows),
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def score_terminal(doc: ScoreDocument, *, width: int = 140) -> str:
    """The table for a terminal `width` columns wide; bold only where output is a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    view = lay_out_score(doc)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=sys.stdout.isatty(),
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(Text(one_line(f"{doc.sae.name} on {doc.model.name}, {doc.sae.hook_point}")))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(view.headers[0], min_width=28)
    for header in view.headers[1:2] + view.headers[3:]:
        wrapped = header not in ("value", "n")  # headers of floors wrap, numbers do not
        table.add_column(
            header,
            justify="left" if header == "value" else "right",
            no_wrap=not wrapped,
            max_width=11 if wrapped else None,
        )
    for section in view.sections:
        table.add_section()
        table.add_row(Text(section.title, style="bold"))
        for name, value, unit, *others in section.rows:
            said = f"{name} ({unit})" if " " in unit else name
            table.add_row(*(Text(one_line(cell)) for cell in (said, value, *others)))
    console.print(table)
    for remark in view.remarks:
        console.print(Text(remark))
    for number, reason in enumerate(view.reasons, 1):
        console.print(Text(f"[{number}] {reason}"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
