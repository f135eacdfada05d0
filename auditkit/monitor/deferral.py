"""Activations read many at a time, where nothing has to happen at a token.

A decode step gives one token a row, and a product over one token streams all the encoder's weights:
read together, 64 tokens cost about what one does alone. The verdicts are the same; they are only
known later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from auditkit.monitor.columns import Places
from auditkit.monitor.request_rows import Shown
from auditkit.monitor.watched import Entry, WatchedLock

DEFERRED_TOKENS = 64


class Deferral:
    """Passes whose tokens are yet to be read, in the order of the passes."""

    def __init__(self, watches: Sequence[WatchedLock]) -> None:
        self._watches = watches
        self._waiting: list[tuple[Places, Mapping[int, Tensor]]] = []

    def add(self, places: Places, x: Mapping[int, Tensor]) -> None:
        """Keep a pass: for every watched lock, by number, `x` [token, d_in] of its tokens."""
        self._waiting.append((places, x))

    @property
    def is_due(self) -> bool:
        """Are there enough tokens for one reading?"""
        return sum(len(places.rows) for places, _ in self._waiting) >= DEFERRED_TOKENS

    def read(self, fail: Callable[[Exception], None]) -> list[tuple[Places, Shown]]:
        """What every pass showed; tokens that cannot be read are told to `fail` and show None."""
        waiting, self._waiting = self._waiting, []
        shown: list[dict[int, Sequence[Entry] | None]] = [{} for _ in waiting]
        for number, watched in enumerate(self._watches if waiting else ()):
            passes = [x[number] for _, x in waiting]
            for own, entries in zip(shown, _read(watched, passes, fail), strict=True):
                own[number] = entries
        return [(places, own) for (places, _), own in zip(waiting, shown, strict=True)]


def _read(
    watched: WatchedLock, passes: Sequence[Tensor], fail: Callable[[Exception], None]
) -> list[Sequence[Entry] | None]:
    try:
        entries = watched.encode(torch.cat([*passes]))
    except Exception as error:
        if len(passes) == 1:
            fail(error)
            return [None]
        # One bad token must not take the others with it.
        return [_read(watched, [x], fail)[0] for x in passes]
    found: list[Sequence[Entry] | None] = []
    first = 0
    for x in passes:
        found.append(entries[first : first + len(x)])
        first += len(x)
    return found
