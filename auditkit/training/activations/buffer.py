"""Where training rows wait for their batch: in memory, or on disk and read a window at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from auditkit.core.errors import InvalidInput

Place = Literal["memory", "disk"]

_MEMORY_INFO = Path("/proc/meminfo")
_FREE_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferPlan:
    """Where rows may be kept, and how many bytes of memory they may take there.

    `auto` keeps them in memory where they fit both the budget and half of the memory that is free,
    else on disk. The batches are the same to the bit either way, so this is no part of a
    `TrainPlan`.
    """

    place: Literal["auto", "memory", "disk"] = "auto"
    memory_bytes: int = 8_000_000_000

    def __post_init__(self) -> None:
        if self.memory_bytes < 0:
            raise InvalidInput(f"memory_bytes is {self.memory_bytes}, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """What was chosen: `needed_bytes` for all rows, `free_bytes` of memory where that is known."""

    place: Place
    needed_bytes: int
    memory_bytes: int
    free_bytes: int | None

    def describe(self) -> str:
        """The choice and what it rests on, in a line."""
        free = "" if self.free_bytes is None else f", {_gigabytes(self.free_bytes)} free"
        return (
            f"activation buffer: {self.place} ({_gigabytes(self.needed_bytes)} of rows, "
            f"budget {_gigabytes(self.memory_bytes)}{free})"
        )


def choose_buffer(plan: BufferPlan, *, needed_bytes: int, where: str) -> Buffer:
    """Where `needed_bytes` of rows go; InvalidInput where memory is asked for and the budget is
    too small. `where` names the rows in that message."""
    free = free_memory()
    budget = plan.memory_bytes
    if plan.place == "memory" and needed_bytes > budget:
        raise InvalidInput(
            f"{where}: {_gigabytes(needed_bytes)} of rows do not fit the memory budget of "
            f"{_gigabytes(budget)}",
            help="raise the budget, or keep the rows on disk (place: disk)",
        )
    room = budget if free is None else min(budget, int(_FREE_SHARE * free))
    place: Place = "memory" if needed_bytes <= room else "disk"
    if plan.place != "auto":
        place = plan.place
    return Buffer(place=place, needed_bytes=needed_bytes, memory_bytes=budget, free_bytes=free)


def free_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        lines = _MEMORY_INFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
