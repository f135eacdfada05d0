"""What `auditkit confirm` prints: verdicts, tests, effect against dose, and texts side by side.

Texts go through `one_line` and into `rich.text.Text`: a terminal obeys escape sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from auditkit.core.confirmations import CausalVerdict, Confirmation
from auditkit.core.locks import LockedRule
from auditkit.pipeline.confirm_latents import LatentCauses
from auditkit.report import figures
from auditkit.report.facts import checks_of, notes_of, tests_of
from auditkit.report.plots import dose_label, dose_rows, outcome_label
from auditkit.report.visible import one_line

_FILE_WIDTH = 160
_PLOT_WIDTH = 56
_REPLIES = 2
_GOOD, _BAD, _OPEN = "bold #009e73", "bold #d55e00", "bold #e69f00"
_STYLES = {
    CausalVerdict.CONFIRMED: _GOOD,
    CausalVerdict.SUFFICIENT_ONLY: _GOOD,
    CausalVerdict.NECESSARY_ONLY: _GOOD,
    CausalVerdict.NONSPECIFIC: _BAD,
    CausalVerdict.DETECTOR_ONLY: _BAD,
    CausalVerdict.INCONCLUSIVE: _OPEN,
    CausalVerdict.INVALID: _OPEN,
}


def print_causes(found: LatentCauses, html: Path | None) -> None:
    """Print it to standard output, in colour on a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(causes_view(found, html))


def causes_view(found: LatentCauses, html: Path | None) -> RenderableType:
    """Every test, one under the other."""
    head = Text(f"{one_line(found.model)}, {found.sae} at {found.hook_point}; ")
    head.append(f"words of {one_line(found.lexicon)}. ")
    tests = sum(len(tests_of(c)) - len(c.other_tests) for _, c in found.results)
    head.append(f"q is corrected over the {figures.counted(tests, 'test')} of this run alone.")
    parts: list[RenderableType] = [head]
    for rule, confirmation in found.results:
        parts += [Text(), *_result(rule, confirmation)]
    if html is not None:
        parts += [Text(), Text(f"page: {html}")]
    return Group(*parts)


def _result(rule: LockedRule, c: Confirmation) -> Iterator[RenderableType]:
    title = Text(f"{rule.title}: ", style="bold")
    title.append(c.verdict.value, style=_STYLES[c.verdict])
    title.append(f"\n{c.why}", style="not bold")
    yield title
    if tests_of(c):
        yield _tests(c)
    yield from _plot(c)
    checks = Text()
    for check in checks_of(c):
        checks.append(f"{check.name}: ", style="dim")
        checks.append(f"{figures.measure(check.value, check.unit)}\n")
    checks.rstrip()
    yield checks
    for note in notes_of(c):
        yield Text(f"· {note}", style="dim")
    yield from _replies(c)


def _tests(c: Confirmation) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("test")
    for name in ("effect [95%]", "controls", "beyond them", "p", "q"):
        table.add_column(name, no_wrap=True)
    for t in tests_of(c):
        at = "" if t.dose is None else f" at {figures.figure(t.dose)}"
        spread = [figures.figure(x, 2) for x in (t.control_mean, t.control_sd)]
        table.add_row(
            f"{t.op}{at}, {outcome_label(t.metric)}",
            figures.measure(t.effect),
            f"{spread[0]} ± {spread[1]}, {t.controls}",
            figures.measure(t.difference),
            figures.p_value(t.p),
            figures.p_value(t.q),
        )
    return table


def _plot(c: Confirmation) -> Iterator[RenderableType]:
    """Effect with its interval (├─●─┤) over the controls' 5% to 95% (░), a line per dose."""
    rows = dose_rows(c)
    if not rows:
        return
    ends = [row[k] for row in rows for k in ("low", "high", "control_low", "control_high")]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0

    def at(value: float) -> int:
        return round((value - low) / span * (_PLOT_WIDTH - 1))

    op = c.steering.op if c.steering is not None else "steer"
    yield Text(f"{outcome_label(c.metric)} against {dose_label(op)}", style="dim")
    for row in rows:
        cells = [" "] * _PLOT_WIDTH
        for place in range(at(row["control_low"]), at(row["control_high"]) + 1):
            cells[place] = "░"
        cells[at(0.0)] = "│"
        first, last = at(row["low"]), at(row["high"])
        for place in range(first, last + 1):
            cells[place] = "─"
        cells[first], cells[last] = "├", "┤"
        cells[at(row["effect"])] = "●"
        line = Text(f"{figures.figure(row['dose'], 2):>6}  ")
        line.append("".join(cells))
        line.append(f"  {figures.figure(row['effect'], 2)}")
        yield line
    yield Text(f"{'':>8}├─●─┤ mean over prompts with its 95% interval   ░ controls, 5% to 95%")


def _replies(c: Confirmation) -> Iterator[RenderableType]:
    if not c.replies:
        return
    table = Table(title="Written on", title_justify="left", title_style="dim", show_lines=True)
    for name in ("prompt", "untouched", "steered", "control of equal norm"):
        table.add_column(name, ratio=1, overflow="fold")
    for r in c.replies[:_REPLIES]:
        table.add_row(*(Text(one_line(t)) for t in (r.prompt, r.base, r.steered, r.control)))
    yield table
