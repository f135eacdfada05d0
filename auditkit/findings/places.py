"""Where the frames of rules lie in their conversations: tokens, messages and exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditkit.core.correlations import SpanUnit
from auditkit.core.locks import Frame, LockedRule, Scope
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules import split_frames
from auditkit.store import Store

Ends = tuple[int, int]
Extent = Mapping[SpanUnit, Ends]

_TOKENS = """
SELECT prompt, token, text, role, message, mask FROM tokens
WHERE recording = ? AND list_contains(?::VARCHAR[], prompt) ORDER BY token
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """The tokens of one prompt in order, with its frames, cut when they are first asked for."""

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    placed: tuple[tuple[Role, int, int], ...]
    masked: TokenMask
    cut: dict[tuple[Frame, Scope, TokenMask], list[list[int]]] = field(
        default_factory=dict[tuple[Frame, Scope, TokenMask], list[list[int]]]
    )

    def frame(self, rule: LockedRule, number: int) -> list[int]:
        """The places of the eligible tokens of a rule's frame."""
        return self._frames(rule.frame, rule.scope, self.masked)[number]

    def text(self, rule: LockedRule, number: int) -> str:
        """The text of the eligible tokens of a rule's frame."""
        return "".join(self.texts[i] for i in self.frame(rule, number))

    def role(self, token: int) -> Role:
        """Whose token it is, by its number in the recording."""
        return self.placed[self.tokens.index(token)][0]

    def extent(self, rule: LockedRule, number: int) -> Extent:
        """First and last token, message and exchange of a rule's frame.

        A frame without an eligible token lies where its tokens would be: those that its scope
        skips, or else all of it.
        """
        inside = self.frame(rule, number) or self._all_of(rule, number)
        exchanges = self._exchanges()
        return {
            SpanUnit.TOKENS: (inside[0], inside[-1]),
            SpanUnit.MESSAGES: (self.placed[inside[0]][1], self.placed[inside[-1]][1]),
            SpanUnit.EXCHANGES: (exchanges[inside[0]], exchanges[inside[-1]]),
            SpanUnit.FRAMES: (number, number),
        }

    def _all_of(self, rule: LockedRule, number: int) -> list[int]:
        skipped = self._frames(rule.frame, Scope(roles=rule.scope.roles), self.masked)[number]
        return skipped or self._frames(rule.frame, Scope(), TokenMask.NONE)[number]

    def _exchanges(self) -> list[int]:
        whole = self._frames(Frame.EXCHANGE, Scope(), TokenMask.NONE)
        return [number for number, inside in enumerate(whole) for _ in inside]

    def _frames(self, frame: Frame, scope: Scope, masked: TokenMask) -> list[list[int]]:
        key = (frame, scope, masked)
        if key not in self.cut:
            self.cut[key] = split_frames(frame, scope, masked, self.placed)
        return self.cut[key]


def read_prompt_tokens(
    store: Store, recording: str, prompts: Sequence[str], masked: TokenMask
) -> dict[str, PromptTokens]:
    """The tokens of some prompts of a recording."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in store.query(_TOKENS, [recording, list(prompts)]).to_pylist() if prompts else ():
        rows.setdefault(row["prompt"], []).append(row)
    return {
        prompt: PromptTokens(
            tokens=tuple(r["token"] for r in own),
            texts=tuple(r["text"] for r in own),
            placed=tuple((Role(r["role"]), r["message"], r["mask"]) for r in own),
            masked=masked,
        )
        for prompt, own in rows.items()
    }
