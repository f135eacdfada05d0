"""A causal test in Markdown: verdict, effect tests, doses, checks and replies."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.confirmations import Confirmation, ReplyExample
from auditkit.report.facts import checks_of, notes_of, tests_of
from auditkit.report.figures import figure, measure, observations, p_value
from auditkit.report.markdown.text import block, plain, table
from auditkit.report.plots import outcome_label
from auditkit.report.wording import VERDICT_MEANINGS


def confirmation_section(c: Confirmation) -> Iterator[str]:
    """One causal test with everything that its verdict rests on."""
    yield from (f"**{plain(c.name)}: {c.verdict.value}.** {plain(c.why)}.", "")
    yield from (f"“{c.verdict.value}” means: {VERDICT_MEANINGS[c.verdict]}.", "")
    yield from _tests(c)
    yield from _doses(c)
    rows = [
        [plain(x.name), plain(measure(x.value, x.unit)), observations(x.value), plain(x.reading)]
        for x in checks_of(c)
    ]
    yield from table(["Check", "Value", "n", "How to read it"], rows)
    for note in notes_of(c):
        yield from (f"{plain(note)}.", "")
    for reply in c.replies:
        yield from _reply(reply)


def _tests(c: Confirmation) -> Iterator[str]:
    rows = [
        [
            t.op if t.dose is None else f"{t.op} at dose {figure(t.dose)}",
            plain(outcome_label(t.metric)),
            plain(measure(t.effect)),
            f"{figure(t.control_mean, 2)} ± {figure(t.control_sd, 2)} (K = {t.controls})",
            plain(measure(t.difference)),
            *(p_value(p) for p in (t.p_sign, t.p_rank, t.p, t.q)),
        ]
        for t in tests_of(c)
    ]
    if rows:
        head = "Test|Outcome|Effect|Controls|Beyond controls|p sign|p rank|p|q"
        yield from table(head.split("|"), rows)


def _doses(c: Confirmation) -> Iterator[str]:
    rows = [
        [
            figure(d.dose),
            plain(measure(d.effect)),
            plain(f"[{figure(d.control_low)}, {figure(d.control_high)}]"),
            figure(d.relative_norm, 2),
        ]
        for d in c.doses
    ]
    if rows:
        yield from table(["Dose", "Effect", "Controls, 5%–95%", "‖Δx‖/‖x‖"], rows)


def _reply(reply: ReplyExample) -> Iterator[str]:
    said = {
        "Prompt": reply.prompt,
        "Untouched": reply.base,
        "Steered": reply.steered,
        "Control of equal norm": reply.control,
    }
    for name, text in said.items():
        yield from (f"{name}:", "", *block(text))
