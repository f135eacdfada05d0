"""Admission: so many requests at once, so many waiting, and the rest are told when to come back."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from auditkit.serve.api_errors import ApiError


class Slots:
    """`running` requests hold a slot and `waiting` ones queue for it, first come first served.

    Used from one event loop. `changed` is called after every change of either number.
    """

    def __init__(
        self, concurrency: int, queue_length: int, changed: Callable[[int, int], None]
    ) -> None:
        self._concurrency, self._queue_length = concurrency, queue_length
        self._queue: deque[asyncio.Future[None]] = deque()
        self._recent: deque[float] = deque(maxlen=32)
        self._changed = changed
        self.running = 0

    @property
    def waiting(self) -> int:
        return sum(not f.done() for f in self._queue)

    async def take(self) -> None:
        """Wait for a slot; raises ApiError 429 with Retry-After where the queue is full."""
        if self.running < self._concurrency and not self.waiting:
            self.running += 1
            self._tell()
            return
        if self.waiting >= self._queue_length:
            raise ApiError(
                429,
                f"{self.running} requests are running and {self.waiting} wait: try again later",
                code="queue_full",
                headers={"Retry-After": str(self._retry_after())},
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._tell()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_on()  # the slot came in the moment of leaving
            elif turn in self._queue:
                self._queue.remove(turn)
            raise
        finally:
            self._tell()

    def give_back(self, seconds: float) -> None:
        """Free a slot that was held for `seconds`."""
        self._recent.append(seconds)
        self._hand_on()
        self._tell()

    def _hand_on(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _retry_after(self) -> int:
        usual = sum(self._recent) / len(self._recent) if self._recent else 1.0
        return max(1, math.ceil(usual * (self.waiting + 1) / self._concurrency))

    def _tell(self) -> None:
        self._changed(self.running, self.waiting)
