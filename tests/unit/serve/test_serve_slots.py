"""A bounded number of slots, a bounded queue, and no slot is ever lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.serve.api_errors import ApiError
from auditkit.serve.slots import Slots


def quiet(_: int, __: int) -> None:
    """Nobody listens."""


def test_the_queue_is_served_first_come_first_served() -> None:
    order: list[int] = []

    async def one(slots: Slots, n: int) -> None:
        await slots.take()
        order.append(n)
        await asyncio.sleep(0)
        slots.give_back(0.1)

    async def all_of_them() -> None:
        slots = Slots(1, 10, quiet)
        await asyncio.gather(*(one(slots, n) for n in range(6)))

    asyncio.run(all_of_them())
    assert order == list(range(6))


def test_a_full_queue_says_when_to_come_back() -> None:
    async def overfill() -> ApiError:
        slots = Slots(1, 1, quiet)
        await slots.take()
        slots.give_back(7.2)
        await slots.take()
        waiting = asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="1 requests are running and 1 wait") as caught:
            await slots.take()
        waiting.cancel()
        return caught.value

    error = asyncio.run(overfill())
    assert (error.status, error.code) == (429, "queue_full")
    assert error.headers == {"Retry-After": "15"}


def test_every_change_is_told() -> None:
    told: list[tuple[int, int]] = []

    async def take_two() -> None:
        slots = Slots(1, 5, lambda running, waiting: told.append((running, waiting)))
        await slots.take()
        second = asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        slots.give_back(1.0)
        await second
        slots.give_back(1.0)

    asyncio.run(take_two())
    assert told[0] == (1, 0)
    assert (1, 1) in told
    assert told[-1] == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    concurrency=st.integers(1, 3),
    leaving=st.lists(st.integers(0, 4), min_size=1, max_size=20),
)
def test_slots_are_whole_again_whoever_leaves_the_queue(
    concurrency: int, leaving: list[int]
) -> None:
    held = most = 0

    async def one(slots: Slots, steps: int) -> None:
        nonlocal held, most
        await slots.take()
        held += 1
        most = max(most, held)
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            held -= 1
            slots.give_back(0.0)

    async def some_leave() -> tuple[int, int]:
        slots = Slots(concurrency, 100, quiet)
        tasks = [asyncio.ensure_future(one(slots, 2)) for _ in leaving]
        for task, steps in zip(tasks, leaving, strict=True):
            for _ in range(steps):
                await asyncio.sleep(0)
            if steps % 2:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return slots.running, slots.waiting

    assert asyncio.run(some_leave()) == (0, 0)
    assert most <= concurrency
