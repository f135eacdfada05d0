"""What one verdict looks like: the condition's tree with its values, the tokens, the nearest flip.

Prompts and tokens go through `visible` first: a terminal obeys escape sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from auditkit.core.measured import NotMeasured
from auditkit.core.verdicts import Truth
from auditkit.findings.explanation import ExplainedFrame, FrameToken
from auditkit.pipeline.rule_files.finding import FindingExplanation
from auditkit.report.visible import one_line
from auditkit.rules.explaining.flip import Move
from auditkit.rules.explaining.verdict_tree import Comparison, FrameExplanation, VerdictNode
from auditkit.rules.lowered.spelling import spell_number

# Okabe and Ito's colours: told apart with any kind of colour vision.
_STYLES = {Truth.TRUE: "bold #d55e00", Truth.FALSE: "#009e73", Truth.UNKNOWN: "#e69f00"}
_SHADES = ("on #1d3b53", "on #7a5c14", "on #8f3d07")
_FILE_WIDTH = 160
_SHOWN = 400
"""Tokens of a frame that are shown; of a longer one, those around its carrying tokens."""


def print_finding(found: FindingExplanation) -> None:
    """Print it to standard output, in colour on a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(finding_view(found))


def finding_view(found: FindingExplanation) -> RenderableType:
    """Everything about one match, top down: verdict, tree, tokens, flip."""
    frame = found.frame
    parts: list[RenderableType] = [
        _title(found),
        Text(),
        _tree(frame.explanation.root, frame),
        Text(),
        _tokens(frame),
        Text(),
        *_turning(frame.explanation),
    ]
    return Group(*parts)


def _title(found: FindingExplanation) -> Text:
    frame, match = found.frame, found.match
    title = Text(f"{frame.rule.id} ", style="bold")
    title.append(match.truth.value, style=_STYLES[match.truth])
    if match.reason is not None:
        title.append(f" ({match.reason.value})")
    at = frame.explanation.verdict.at
    if match.truth is Truth.TRUE and at is not None:
        text = next(t.text for t in frame.tokens if t.place == at)
        title.append(f", at token {at} “{one_line(text)}”")
    if match.filtered_by is not None:
        title.append(f", excused by the filter {match.filtered_by}")
    place = f"{one_line(frame.prompt_id)} · frame {frame.frame} of {frame.frames}"
    title.append(f"\n{frame.recording.suite} · {place} · match {found.rank} of {found.matches}")
    title.append(f" · {found.fp}")
    if not frame.same:
        title.append("\nThe recording is of another model or SAE than the lock: ")
        title.append("what follows is what the condition says, not the verdict.")
    return title


def _tree(root: VerdictNode, frame: ExplainedFrame) -> Tree:
    tree = Tree(_label(root, frame), guide_style="#8892a6")
    _grow(tree, root, frame)
    return tree


def _grow(tree: Tree, node: VerdictNode, frame: ExplainedFrame) -> None:
    for operand in node.operands:
        _grow(tree.add(_label(operand, frame)), operand, frame)


def _label(node: VerdictNode, frame: ExplainedFrame) -> Text:
    label = Text()
    label.append(f"{node.truth.value:<8}", style=_STYLES[node.truth])
    if node.name is not None:
        label.append(f"{node.name}: ", style="italic")
    if node.comparison is None:
        count = f" {node.k}" if node.kind == "at least" else ""
        label.append(f"{node.kind}{count}" if node.operands else node.text)
    else:
        label.append(node.text)
        label.append(f"   {_value(node.comparison)}", style="bold")
        label.append(_margin(node.comparison))
    if node.reason is not None:
        label.append(f"   {node.reason.value}", style=_STYLES[Truth.UNKNOWN])
    for line in _carriers(node, frame):
        label.append(f"\n        {line}", style="#8892a6")
    return label


def _value(comparison: Comparison) -> str:
    if comparison.low is None and comparison.high is None:
        return "not known"
    if comparison.value is not None and comparison.twin is not None:
        own = comparison.value + comparison.twin
        parts = " here, ".join(_place(v) for v in (own, comparison.twin))
        return f"{_place(comparison.value)} ({parts} in the twin)"
    if comparison.value is not None:
        return "no such token" if math.isinf(comparison.value) else spell_number(comparison.value)
    low = "−∞" if comparison.low is None else spell_number(comparison.low)
    high = "∞" if comparison.high is None else spell_number(comparison.high)
    return f"{low} to {high}"


def _margin(comparison: Comparison) -> str:
    move = comparison.move
    return "" if move is None else f"   turns over at {_place(move.after)} ({move.cost:.1%} away)"


def _place(value: float) -> str:
    return "no such token" if math.isinf(value) else spell_number(value)


def _carriers(node: VerdictNode, frame: ExplainedFrame) -> Iterator[str]:
    by_place = {t.place: t for t in frame.tokens}
    for place in node.tokens:
        token = by_place[place]
        values = " ".join(
            f"{name} {'not covered' if value is None else spell_number(value)}"
            for name, value in zip(frame.signals, token.values, strict=True)
        )
        yield f"{place:>4} “{one_line(token.text, 24)}”  {values}"


def _tokens(frame: ExplainedFrame) -> Text:
    """The frame's text: tokens that carry a comparison in brackets, ▸ before the firing one."""
    carrying = set(_places(frame.explanation.root))
    if not any(t.place is not None for t in frame.tokens):
        return Text("The frame has no token that this rule looks at.", style="#8892a6")
    text = Text(overflow="fold")
    tops = [
        max((t.values[i] or 0.0 for t in frame.tokens), default=0.0)
        for i in range(len(frame.signals))
    ]
    shown = _around(frame, carrying)
    for number, token in enumerate(frame.tokens):
        if number not in shown:
            if number == 0 or number - 1 in shown:
                text.append(" … ", style="dim")
            continue
        written = one_line(token.text)
        if token.place is None:
            text.append(written, style="dim")
            continue
        fired = token.place == frame.explanation.verdict.at
        marked = f"{'▸' if fired else ''}[{written}]" if token.place in carrying else written
        if fired and token.place not in carrying:
            marked = f"▸{written}"
        text.append(marked, style=_shade(token, tops))
    return text


def _around(frame: ExplainedFrame, carrying: set[int]) -> set[int]:
    if len(frame.tokens) <= _SHOWN:
        return set(range(len(frame.tokens)))
    places = carrying | {frame.explanation.verdict.at}
    numbers = [n for n, t in enumerate(frame.tokens) if t.place is not None and t.place in places]
    return {n + d for n in numbers or [0] for d in range(-20, 21)}


def _shade(token: FrameToken, tops: list[float]) -> str:
    share = max(
        ((v or 0.0) / top for v, top in zip(token.values, tops, strict=True) if top > 0),
        default=0.0,
    )
    return "" if share < 0.25 else _SHADES[min(2, int((share - 0.25) * 4))]


def _places(node: VerdictNode) -> Iterator[int]:
    yield from node.tokens
    for operand in node.operands:
        yield from _places(operand)


def _turning(explained: FrameExplanation) -> Iterator[Text]:
    if explained.missing:
        yield Text("What is missing, and what it would settle", style="bold")
        for part in explained.missing:
            yield Text(
                f"  {part.text}: {part.reason.value}; if true → {part.if_true.value}, "
                f"if false → {part.if_false.value}"
                + ("" if part.decides else " (it alone settles nothing)")
            )
        return
    flip = explained.flip
    if isinstance(flip, NotMeasured):
        yield Text(f"Smallest change that turns it over: none found ({flip.reason})")
        return
    to = "true" if flip.truth else "false"
    yield Text(f"Smallest change that turns it {to} (distance {flip.cost:.1%})", style="bold")
    for move in flip.moves:
        yield Text(f"  {_change(move, explained)}")


def _change(move: Move, explained: FrameExplanation) -> str:
    statistic = explained.statistics[move.aggregate]
    return f"{statistic}: {_place(move.before)} → {_place(move.after)} ({move.cost:.1%})"
