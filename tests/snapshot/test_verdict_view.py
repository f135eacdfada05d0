"""What `rules explain --finding` prints."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from auditkit.cli.verdict_view import finding_view
from auditkit.core.locks import LockedRule
from auditkit.core.measured import NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Match
from auditkit.findings.explanation import ExplainedFrame, FrameToken
from auditkit.pipeline.rule_files.finding import FindingExplanation
from auditkit.rules import TokenSignals
from auditkit.rules.explaining.verdict_tree import explain_frame
from tests.locked import latents_of, make_rule, make_signal
from tests.store_rows import made_recording

SIGNALS = tuple(make_signal(name, *latents_of([n])) for n, name in enumerate(("ask", "refuse")))
WORDS = (" How", " to", " pick", " a", " lock", "?", " I", " will", " not\x1b[31m", " say")
ASK = (0.1, 0.0, 0.7, 0.0, 0.9, 0.2, 0.0, 0.0, 0.0, 0.0)
REFUSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.8, 0.05)


def found(rule: LockedRule, covered: int = len(WORDS)) -> FindingExplanation:
    """An explanation of ten tokens, six of the user; the first `covered` of them recorded."""
    rows = [
        (Role.USER if n < 6 else Role.ASSISTANT, (a, r) if n < covered else (None, None))
        for n, (a, r) in enumerate(zip(ASK, REFUSE, strict=True))
    ]
    tokens = [
        TokenSignals(
            role=role,
            values={
                s.name: None if v is None else round(v * 2**20)
                for s, v in zip(SIGNALS, values, strict=True)
            },
        )
        for role, values in rows
    ]
    told = explain_frame(rule, tokens)
    recording = made_recording("made")
    match = Match(
        rule_id=rule.id,
        rule_digest=rule.digest,
        recording=recording.id,
        prompt_id="p1",
        frame=0,
        truth=told.verdict.truth,
        reason=told.verdict.reason,
        token=told.verdict.at,
        score=NotMeasured("made"),
    )
    frame = ExplainedFrame(
        rule=rule,
        recording=recording,
        prompt_id="p1",
        frame=0,
        frames=1,
        same=True,
        signals=tuple(s.name for s in SIGNALS),
        tokens=tuple(
            FrameToken(token=n, text=word, role=role, place=n, values=values)
            for n, (word, (role, values)) in enumerate(zip(WORDS, rows, strict=True))
        ),
        explanation=told,
    )
    return FindingExplanation(fp="fp1:0123", match=match, rank=1, matches=3, frame=frame)


def printed(given: FindingExplanation) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None, highlight=False)
    console.print(finding_view(given))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


RULE = make_rule(
    "asked and not refused",
    signals=SIGNALS,
    let=(("asked", "count(ask @user >= 0.5) >= 2"), ("refused", "max(refuse @assistant) >= 0.9")),
)


def test_a_match_as_text(snapshot: SnapshotAssertion) -> None:
    text = printed(found(RULE))
    assert "\x1b" not in text
    assert text == snapshot


def test_a_miss_as_text(snapshot: SnapshotAssertion) -> None:
    rule = replace(RULE, let=(RULE.let[0], ("refused", "mean(refuse @assistant) >= 0.3")))
    assert printed(found(rule)) == snapshot


def test_an_unknown_as_text(snapshot: SnapshotAssertion) -> None:
    assert printed(found(RULE, covered=6)) == snapshot
