"""What a conversation under watch looks like: tokens coloured by rule, a gauge for each rule.

Everything that a user or a model wrote goes through `visible` first: a terminal obeys escape
sequences, and a hostile prompt would have it do so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from auditkit.core.measured import Measured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Truth
from auditkit.pipeline.monitor_chat import ShownToken, Turn
from auditkit.pipeline.monitor_gauges import Gauge, Heat
from auditkit.report.visible import one_line, visible

# Okabe and Ito's colours: told apart with any kind of colour vision.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#5b8ff9", "#d55e00", "#cc79a7", "#9a9a9a")
_GROUND = (18, 20, 26)
_WIDTH = 22
_TRUTHS = {
    Truth.TRUE: ("● fired", "bold #ff5c5c"),
    Truth.FALSE: ("○ quiet", "#8fbf8f"),
    Truth.UNKNOWN: ("? unknown", "#b8a04a"),
}
TAKEN_BACK = "(the reply was taken back)"
COMMANDS = "/rules  /reset  /save FILE  /quit   ·   Ctrl-C ends a reply"


def colours(gauges: Sequence[Gauge]) -> dict[str, str]:
    """A colour for each rule, in the lock's order."""
    return {g.rule_id: PALETTE[n % len(PALETTE)] for n, g in enumerate(gauges)}


def turn_view(turn: Turn, *, running: bool, rows: int | None = None) -> RenderableType:
    """One exchange with its gauges; `rows` bounds the lines of talk while it is being drawn."""
    palette = colours(turn.gauges)
    parts: list[RenderableType] = [_talk(turn, palette, running=running, rows=rows)]
    parts.append(gauge_table(turn.gauges, palette))
    parts.append(_footer(turn, running=running))
    return Panel(
        Group(*parts), box=ROUNDED, border_style="#3b4252", padding=(0, 1), title=_title(turn)
    )


def _title(turn: Turn) -> Text:
    fired = [g for g in turn.gauges if g.fired]
    if not fired:
        return Text("auditkit monitor", style="#8892a6")
    rules = "rule" if len(fired) == 1 else "rules"
    return Text(f"{len(fired)} {rules} fired in this conversation", style="bold #ff5c5c")


def _talk(
    turn: Turn, palette: Mapping[str, str], *, running: bool, rows: int | None
) -> RenderableType:
    said = [t for t in turn.tokens if not t.generated and t.role is not Role.SYSTEM]
    reply = [t for t in turn.tokens if t.generated]
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=5, justify="right")
    table.add_column(ratio=1)
    table.add_row(Text("you", style="bold #8892a6"), _tokens(said, turn.fired, palette))
    answer = _tokens(reply, turn.fired, palette)
    if not reply and turn.reply:
        answer = Text(visible(turn.reply), style="#d8dee9")
    if turn.withheld:
        answer = Text(TAKEN_BACK, style="bold #ff5c5c")
    if running:
        answer.append("▌", style="#88c0d0")
    if rows is not None and rows > 3:
        answer = _last_lines(answer, rows)
    table.add_row(Text(""), Text(""))
    table.add_row(Text("model", style="bold #8892a6"), answer)
    return table


def _tokens(
    tokens: Sequence[ShownToken], fired: frozenset[str], palette: Mapping[str, str]
) -> Text:
    text = Text(style="#d8dee9", overflow="fold")
    for token in tokens:
        heat = token.heat(fired)
        text.append(visible(token.text), style=_style(heat, fired, palette))
    return text


def _style(heat: Heat | None, fired: frozenset[str], palette: Mapping[str, str]) -> Style:
    if heat is None:
        return Style()
    fires = heat.rule_id in fired
    ground = _mixed(palette[heat.rule_id], (0.25 + 0.6 * heat.value) * (1.0 if fires else 0.4))
    red, green, blue = ground
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 110
    return Style(bgcolor=_hex(ground), color="#101216" if bright else None, bold=fires)


def _mixed(colour: str, share: float) -> tuple[int, int, int]:
    """`colour` over the dark ground, as a terminal that knows no transparency needs it."""
    red, green, blue = (
        round(ground + (int(colour[i : i + 2], 16) - ground) * share)
        for i, ground in zip((1, 3, 5), _GROUND, strict=True)
    )
    return red, green, blue


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{max(0, min(255, part)):02x}" for part in colour)


def _last_lines(text: Text, rows: int) -> Text:
    """The last lines of a long reply; the whole of it is printed once it has ended."""
    lines = text.split("\n", allow_blank=True)
    if len(lines) <= rows:
        return text
    kept = Text("⋮\n", style="#8892a6")
    return kept.append_text(Text("\n").join(lines[-rows:]))


def gauge_table(gauges: Sequence[Gauge], palette: Mapping[str, str]) -> Table:
    """Each rule's score against its threshold (in the middle of the bar), and what it comes to."""
    table = Table(
        box=SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        header_style="#8892a6",
        border_style="#3b4252",
        pad_edge=False,
    )
    table.add_column("rule", ratio=1, no_wrap=True, min_width=16)
    table.add_column("severity", width=8)
    table.add_column("below ┼ above", width=_WIDTH + 1, justify="center")
    table.add_column("score", width=8, justify="right")
    table.add_column("threshold", width=9, justify="right")
    table.add_column("verdict", width=24, no_wrap=True)
    for gauge in gauges:
        table.add_row(*_gauge_row(gauge, palette[gauge.rule_id]))
    return table


def _gauge_row(gauge: Gauge, colour: str) -> list[RenderableType]:
    name = Text("■ ", style=colour)
    name.append(one_line(gauge.rule_id), style="bold" if gauge.fired else "")
    score = f"{gauge.score.value:.3f}" if isinstance(gauge.score, Measured) else "–"
    threshold = "–" if gauge.threshold is None else f"{gauge.threshold:.3f}"
    word, style = _TRUTHS[gauge.truth]
    verdict = Text(word, style=style)
    if gauge.reason is not None:
        verdict.append(f" · {gauge.reason.value}", style="#8892a6")
    if gauge.fired and gauge.truth is not Truth.TRUE:
        verdict.append(" · fired before", style="#ff5c5c")
    return [
        name,
        Text(gauge.severity.value, style="#8892a6"),
        _bar(gauge, colour),
        Text(score),
        Text(f"{'≥' if gauge.rising else '≤'} {threshold}", style="#8892a6"),
        verdict,
    ]


def _bar(gauge: Gauge, colour: str) -> Text:
    """The score as a mark on a scale whose middle is the threshold, filled from the middle on."""
    middle = _WIDTH // 2
    cells = [("─", "#3b4252")] * (_WIDTH + 1)
    if gauge.fill is not None:
        at = round(gauge.fill * _WIDTH)
        low, high = sorted((at, middle))
        beyond = (at > middle) == gauge.rising
        for i in range(low, high + 1):
            cells[i] = ("━", colour if beyond else "#66708a")
        cells[at] = ("◆", colour)
    cells[middle] = ("┼", "#d8dee9") if cells[middle][0] != "◆" else cells[middle]
    bar = Text()
    for character, style in cells:
        bar.append(character, style=style)
    return bar


def _footer(turn: Turn, *, running: bool) -> Text:
    n = sum(t.generated for t in turn.tokens)
    state = "replying…" if running else one_line(turn.stop_reason, 60)
    errors = () if turn.result is None else turn.result.errors
    count = "1 token" if n == 1 else f"{n} tokens"
    text = Text(f"{count} · {state}", style="#8892a6")
    if errors:
        text.append(f" · the monitor failed: {one_line(errors[0], 60)}", style="bold #ff5c5c")
    return text.append(f"   {COMMANDS}", style="#5b6478")


def plain_lines(turn: Turn) -> list[str]:
    """The same without colours or drawing: for pipes, files and screen readers."""
    said = TAKEN_BACK if turn.withheld else visible(turn.reply)
    lines = [f"model: {line}" for line in said.split("\n")]
    for gauge in turn.gauges:
        score = f"{gauge.score.value:.4g}" if isinstance(gauge.score, Measured) else "not measured"
        threshold = "none" if gauge.threshold is None else f"{gauge.threshold:.4g}"
        why = f" ({gauge.reason.value})" if gauge.reason is not None else ""
        before = ", fired before" if gauge.fired and gauge.truth is not Truth.TRUE else ""
        lines.append(
            f"rule: {gauge.rule_id} {gauge.truth.value}{why}, score {score}, "
            f"threshold {threshold}{before}"
        )
    errors = () if turn.result is None else turn.result.errors
    lines += [f"monitor failed: {one_line(error)}" for error in errors]
    return [*lines, f"ended: {one_line(turn.stop_reason)}"]


def talk_rows(height: int, rules: int) -> int:
    """Lines of talk that fit a terminal of `height` lines beside the gauges."""
    return max(4, height - rules - 10 - math.ceil(height * 0.1))
