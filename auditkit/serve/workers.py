"""Run an engine in worker threads and read what it writes from the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from types import TracebackType

from auditkit.serve.api_errors import ApiError
from auditkit.serve.chat_request import ChatRequest
from auditkit.serve.engine import Ended, Engine, Event
from auditkit.serve.slots import Slots


class Exchange:
    """One request in work: its events, as they come from the thread that writes them."""

    def __init__(self, engine: Engine, request: ChatRequest, *, deadline: float) -> None:
        self._engine, self._request, self._deadline = engine, request, deadline
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._cancelled = threading.Event()
        self.ended: Ended | None = None

    def cancel(self) -> None:
        """Have the writing end at its next token."""
        self._cancelled.set()

    async def next(self) -> Event:
        """The next event; raises what the engine raised, and ApiError 504 past the deadline."""
        left = self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                event = await self._events.get()
        except TimeoutError:
            self.cancel()
            raise timed_out() from None
        if isinstance(event, BaseException):
            raise event
        if event is None:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        return event

    def write(self) -> None:
        """Write the reply; runs in a worker thread and never raises."""
        last: BaseException | None = None
        try:
            for event in self._engine.chat(self._request, self._cancelled.is_set):
                if isinstance(event, Ended):
                    self.ended = event
                self._post(event)
        except BaseException as error:
            last = error
        self._post(last)

    def _post(self, event: Event | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Workers:
    """A bounded pool of threads behind a bounded queue."""

    def __init__(self, engine: Engine, slots: Slots, concurrency: int) -> None:
        self._engine, self._slots = engine, slots
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="auditkit-serve")
        self._open: set[Exchange] = set()

    @asynccontextmanager
    async def exchange(
        self, request: ChatRequest, *, deadline: float
    ) -> AsyncGenerator[Exchange, None]:
        """Wait for a slot and begin; on leaving, what is still being written is cancelled.

        Leaving waits for the thread, which takes a token's time: whatever the rules have seen by
        then is in `ended`, and a client cannot hide from them by hanging up. Raises ApiError 429
        where the queue is full and 504 where the deadline passes in it.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._slots.take()
        except TimeoutError:
            raise timed_out() from None
        began = time.monotonic()
        exchange = Exchange(self._engine, request, deadline=deadline)
        self._open.add(exchange)
        try:
            done = asyncio.get_running_loop().run_in_executor(self._pool, exchange.write)
        except BaseException:
            self._leave(exchange, began)
            raise
        done.add_done_callback(lambda _: self._leave(exchange, began))
        try:
            yield exchange
        finally:
            exchange.cancel()
            await asyncio.wait([done])

    def _leave(self, exchange: Exchange, began: float) -> None:
        self._open.discard(exchange)
        self._slots.give_back(time.monotonic() - began)

    def close(self) -> None:
        """Cancel what is in work and wait for its threads."""
        for exchange in tuple(self._open):
            exchange.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def timed_out() -> ApiError:
    return ApiError(504, "the request took longer than this server allows", code="timeout")
