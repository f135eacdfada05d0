"""Why a rule came to its verdict on one recorded frame, with the tokens it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import lift
from auditkit.core.locks import Frame, Lock, LockedRule
from auditkit.core.prompts import Role
from auditkit.core.recordings import Recording
from auditkit.findings.prompt_rows import read_active, read_tokens, read_twins
from auditkit.rules import SignalPool, TokenSignals, split_frames
from auditkit.rules.explaining.verdict_tree import FrameExplanation, explain_frame
from auditkit.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameToken:
    """A token of a frame's prompt. `place` counts the frame's eligible tokens from 0 (None: the
    rule does not look at it); `values` are the signals' in their order, None where not covered."""

    token: int
    text: str
    role: Role
    place: int | None
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedFrame:
    """A verdict with everything it stands on.

    `tokens` are those from the frame's first eligible one to its last (the whole prompt's where
    there is none). `same`: the recording is of the lock's model and SAE; otherwise the verdict is
    unknown, whatever the condition says.
    """

    rule: LockedRule
    recording: Recording
    prompt_id: str
    frame: int
    frames: int
    same: bool
    signals: tuple[str, ...]
    tokens: tuple[FrameToken, ...]
    explanation: FrameExplanation


def explain_recorded(
    rule: LockedRule, lock: Lock, store: Store, recording: Recording, prompt: str, frame: int
) -> ExplainedFrame:
    """Explain a rule's verdict on a frame of a recording, as the stream evaluator comes to it.

    Raises InvalidInput where the recording has no such prompt, or the prompt no such frame.
    """
    rows = read_tokens(store, recording.id, prompt)
    if not rows:
        raise InvalidInput(f"the recording {recording.id} has no prompt {prompt!r}")
    frames = _frames(rule, lock, rows)
    if frame >= len(frames):
        raise InvalidInput(
            f"{prompt!r} has {len(frames)} frames in this rule's scope, counted from 0, "
            f"and no frame {frame}"
        )
    members = frames[frame]
    values = _values(rule, store, recording, rows)
    seen = [TokenSignals(role=Role(rows[i]["role"]), values=values[i]) for i in members]
    places = {index: place for place, index in enumerate(members)}
    shown = range(members[0], members[-1] + 1) if members else range(len(rows))
    return ExplainedFrame(
        rule=rule,
        recording=recording,
        prompt_id=prompt,
        frame=frame,
        frames=len(frames),
        same=lock.model.digest == recording.model.digest
        and lock.sae.digest == recording.sae.digest,
        signals=tuple(s.name for s in rule.signals),
        tokens=tuple(
            FrameToken(
                token=rows[i]["token"],
                text=rows[i]["text"],
                role=Role(rows[i]["role"]),
                place=places.get(i),
                values=tuple(None if v is None else lift(v) for v in values[i].values()),
            )
            for i in shown
        ),
        explanation=explain_frame(rule, seen, _twin(rule, lock, store, recording, prompt, frame)),
    )


def _frames(rule: LockedRule, lock: Lock, rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    placed = [(Role(r["role"]), r["message"], r["mask"]) for r in rows]
    return split_frames(rule.frame, rule.scope, lock.masked, placed)


def _values(
    rule: LockedRule, store: Store, recording: Recording, rows: Sequence[dict[str, Any]]
) -> list[dict[str, int | None]]:
    """Every signal's value at the tokens of a prompt."""
    active = read_active(store, recording.id, rows, rule.signals)
    lacking = store.lacks_directions(
        recording.id, [s.direction.digest for s in rule.signals if s.direction]
    )
    pools = {
        s.name: SignalPool(s)
        for s in rule.signals
        if s.unresolved is None and not (s.direction and s.direction.digest in lacking)
    }
    return [
        {
            s.name: pools[s.name].value(*active[row["token"]])
            if s.name in pools and row["covered"]
            else None
            for s in rule.signals
        }
        for row in rows
    ]


def _twin(
    rule: LockedRule, lock: Lock, store: Store, recording: Recording, prompt: str, frame: int
) -> list[TokenSignals] | None:
    """The tokens that a frame is compared with; None where there are none, or nothing asks."""
    if rule.frame is not Frame.PAIRED_MESSAGE:
        return None
    twin = read_twins(store, recording.id).get(prompt)
    rows = [] if twin is None else read_tokens(store, recording.id, twin)
    frames = _frames(rule, lock, rows)
    if frame >= len(frames):
        return None
    values = _values(rule, store, recording, rows)
    return [TokenSignals(role=Role(rows[i]["role"]), values=values[i]) for i in frames[frame]]
