"""Token ids → text that can be sent: whole characters, no special tokens, nothing past a stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

_UNFINISHED = "\ufffd"
_MOST_UNFINISHED = 3
"""How many of them one unfinished character can be: it has at most 4 bytes in UTF-8."""


class TextFlow:
    """Decodes ids one by one; the texts joined are the text of all of them.

    A token's text depends on its neighbours (spaces, characters of several tokens), so each is
    decoded with those before it, from the last border where the text was whole.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], special_ids: Collection[int]
    ) -> None:
        self._decode, self._special = decode, frozenset(special_ids)
        self._ids: list[int] = []
        self._from = self._border = self._sent = 0

    def push(self, token: int) -> str:
        """The text that `token` completes, which may be none."""
        if token in self._special:
            return ""
        self._ids.append(token)
        text = self._window()
        held = min(_MOST_UNFINISHED, len(text) - len(text.rstrip(_UNFINISHED)))
        out = text[self._sent : len(text) - held]
        self._sent = max(self._sent, len(text) - held)
        if not held:
            self._from, self._border = self._border, len(self._ids)
            self._sent = len(self._window())
        return out

    def finish(self) -> str:
        """The text that is left: characters that stayed unfinished."""
        return self._window()[self._sent :]

    def _window(self) -> str:
        return self._decode(self._ids[self._from :])


class StopTexts:
    """Holds text back while it may be the beginning of a stop text, and ends at one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met = False

    def push(self, text: str) -> str:
        """The text that can go; nothing more once a stop text was met, which is left out."""
        if self.met:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.met = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def finish(self) -> str:
        """The reply has ended: what was held back was no stop text."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`, less than the whole of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
