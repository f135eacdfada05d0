"""Two generations side by side, a step of one and a step of the other by turns.

On a machine that is now fast and now slow (other tenants, clocks), two runs of four seconds one
after the other differ by ten per cent for no reason of their own. Two generations that take turns
at every token meet the same moods, so their ratio is that of their own work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

Pause = Callable[[], None]


class Turn(StoppingCriteria):
    """Ends no generation, but hands the turn over after every token."""

    def __init__(self, pause: Pause) -> None:
        self._pause = pause

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        del scores
        self._pause()
        return torch.zeros(len(input_ids), dtype=torch.bool)


class _Runner(threading.Thread):
    """One of the two: a thread that runs only while it has the turn, and clocks that time."""

    def __init__(self, work: Callable[[Pause], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.turn = threading.Semaphore(0)
        self.other: _Runner | None = None
        self.seconds = 0.0
        self.done = False
        self.error: BaseException | None = None
        self._since = 0.0

    def run(self) -> None:
        self._take()
        try:
            self._work(self._pause)
        except BaseException as error:  # told to the caller by `lockstep`
            self.error = error
        self._stop_clock()
        self.done = True
        self._hand_over()

    def _pause(self) -> None:
        self._stop_clock()
        if self.other is not None and not self.other.done:
            self._hand_over()
            self._take()
        else:
            self._since = time.perf_counter()

    def _take(self) -> None:
        self.turn.acquire()
        self._since = time.perf_counter()

    def _stop_clock(self) -> None:
        self.seconds += time.perf_counter() - self._since

    def _hand_over(self) -> None:
        if self.other is not None:
            self.other.turn.release()


def lockstep(
    first: Callable[[Pause], None], second: Callable[[Pause], None]
) -> tuple[float, float]:
    """Seconds that each of the two took in its own turns; `first` has the first one.

    Each is called with a function to be called between its steps.
    """
    a, b = _Runner(first), _Runner(second)
    a.other, b.other = b, a
    a.start()
    b.start()
    a.turn.release()
    a.join()
    b.join()
    for runner in (a, b):
        if runner.error is not None:
            raise runner.error
    return a.seconds, b.seconds
