"""Where the frames of rules lie in a conversation: tokens, messages and exchanges.

The conversation may still grow: frames are cut as far as its tokens go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from auditkit.core.correlations import SpanUnit
from auditkit.core.locks import Frame, LockedRule, Scope
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules.streaming.frames import FrameAssembler

Placed = tuple[Role, int, int]
"""A token's role, message index and mask bits."""
Extent = Mapping[SpanUnit, tuple[int, int]]

_UNENDED = 1 << 40
"""Where a unit ends that still goes on: beyond every conversation."""
_SIZES = {Frame.TOKEN: 0, Frame.MESSAGE: 1, Frame.PAIRED_MESSAGE: 1, Frame.EXCHANGE: 2}
_UNITS = {SpanUnit.TOKENS: 0, SpanUnit.MESSAGES: 1, SpanUnit.EXCHANGES: 2}


class _Cut:
    """The frames of one kind and scope, and how many tokens were cut into them."""

    __slots__ = ("assembler", "frames", "taken")

    def __init__(self, frame: Frame, scope: Scope, masked: TokenMask) -> None:
        self.assembler = FrameAssembler(frame, scope, masked)
        self.frames: dict[int, list[int]] = {}
        self.taken = 0

    def take(self, placed: list[Placed]) -> dict[int, list[int]]:
        for index in range(self.taken, len(placed)):
            found = self.assembler.place(*placed[index])
            if found.frame is not None:
                members = self.frames.setdefault(found.frame, [])
                if found.epos is not None:
                    members.append(index)
        self.taken = len(placed)
        return self.frames


class FramePlaces:
    """The tokens of one conversation in order, with frames that are cut when first asked for."""

    def __init__(self, masked: TokenMask, placed: Iterable[Placed] = ()) -> None:
        self.masked = masked
        self.placed = list(placed)
        self._cuts: dict[tuple[Frame, Scope, TokenMask], _Cut] = {}

    def push(self, role: Role, message: int, mask: int) -> None:
        """Add the conversation's next token."""
        self.placed.append((role, message, mask))

    def copy(self) -> FramePlaces:
        """Another conversation that goes on from here."""
        return FramePlaces(self.masked, self.placed)

    def frame(self, rule: LockedRule, number: int) -> list[int]:
        """The places of the eligible tokens of a rule's frame."""
        return self._frames(rule.frame, rule.scope, self.masked)[number]

    def extent(self, rule: LockedRule, number: int, *, ended: bool = True) -> Extent:
        """First and last token, message and exchange of a rule's frame.

        A frame without an eligible token lies where its tokens would be: those that its scope
        skips, or else all of it. One that has not `ended` may still grow: what it may grow into
        ends beyond every conversation.
        """
        inside = self.frame(rule, number) or self._all_of(rule, number)
        first, last = inside[0], inside[-1]
        extent = {
            SpanUnit.TOKENS: (first, last),
            SpanUnit.MESSAGES: (self.placed[first][1], self.placed[last][1]),
            SpanUnit.EXCHANGES: (self._exchange(first), self._exchange(last)),
            SpanUnit.FRAMES: (number, number),
        }
        if ended:
            return extent
        size = _SIZES.get(rule.frame, len(_SIZES))
        return {
            unit: (begin, _UNENDED if size > _UNITS.get(unit, len(_UNITS)) else end)
            for unit, (begin, end) in extent.items()
        }

    def _all_of(self, rule: LockedRule, number: int) -> list[int]:
        skipped = self._frames(rule.frame, Scope(roles=rule.scope.roles), self.masked)[number]
        return skipped or self._frames(rule.frame, Scope(), TokenMask.NONE)[number]

    def _exchange(self, place: int) -> int:
        frames = self._frames(Frame.EXCHANGE, Scope(), TokenMask.NONE)
        return next(n for n in reversed(frames) if frames[n] and frames[n][0] <= place)

    def _frames(self, frame: Frame, scope: Scope, masked: TokenMask) -> dict[int, list[int]]:
        key = (frame, scope, masked)
        if key not in self._cuts:
            self._cuts[key] = _Cut(*key)
        return self._cuts[key].take(self.placed)
