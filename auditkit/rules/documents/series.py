"""Synthetic series in unit tests: `"0.5*4 0*2 _*3"` is nine tokens, the last three not covered.

A key is `signal@role`; one that begins with `twin.` is of the message that is compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Role

MAX_TOKENS = 4096
TWIN = "twin."

_ITEM = re.compile(r"(?P<value>_|[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?:\*(?P<n>\d+))?")


class SeriesError(InvalidInput):
    """A series that cannot be read; `key` is the one it stands under."""

    def __init__(self, key: str, message: str, *, help: str | None = None) -> None:
        super().__init__(f"{key}: {message}", help=help)
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesToken:
    """One token of a test: its role, and each signal's value (None: not covered)."""

    role: Role
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOut:
    """The tokens of a test, and those of its twin (None: it has none)."""

    tokens: tuple[SeriesToken, ...]
    twin: tuple[SeriesToken, ...] | None


def parse_series(text: str, key: str = "series") -> list[float | None]:
    """Read one series; raise SeriesError with what stands where a number should."""
    values: list[float | None] = []
    for item in text.split():
        match = _ITEM.fullmatch(item)
        if match is None:
            raise SeriesError(
                key, f"{item!r} is no value", help="write 0.5, 0.5*4 (four times) or _*2 (unknown)"
            )
        value = None if match["value"] == "_" else float(match["value"])
        if value is not None and (not math.isfinite(value) or abs(value) > 2.0**20):
            raise SeriesError(key, f"{item!r} is out of range", help="values lie within ±2^20")
        count = int(match["n"]) if match["n"] is not None else 1
        if len(values) + count > MAX_TOKENS:
            raise SeriesError(key, f"more than {MAX_TOKENS} tokens")
        values += [value] * count
    return values


def lay_out_pair(series: Mapping[str, str], signals: Sequence[str], default: Role) -> LaidOut:
    """The series of a test, and those whose keys begin with `twin.`; raises SeriesError."""
    own = {key: text for key, text in series.items() if not _of_twin(key)}
    twin = {key: text for key, text in series.items() if _of_twin(key)}
    if not own:
        message = "the twin's tokens, and none that are compared with them"
        raise SeriesError(next(iter(twin)), message, help="a series without 'twin.' as well")
    return LaidOut(
        tokens=tuple(lay_out_series(own, signals, default)),
        twin=tuple(lay_out_series(twin, signals, default)) if twin else None,
    )


def _of_twin(key: str) -> bool:
    return key.replace(" ", "").startswith(TWIN)


def lay_out_series(
    series: Mapping[str, str], signals: Sequence[str], default: Role
) -> list[SeriesToken]:
    """Lay the series of a test one after another, in the order given.

    A key is `signal@role`, or `signal` for tokens of the `default` role. Keys of one role and
    different signals describe the same tokens and must be equally long; a signal without a series
    for a role is silent there. A token is covered as a whole: `_` in one series makes all signals
    unknown there. Raises SeriesError.
    """
    turns: dict[Role, dict[str, list[float | None]]] = {}
    for key, text in series.items():
        signal, role = _split_key(key, signals, default)
        values = parse_series(text, key)
        turn = turns.setdefault(role, {})
        if signal in turn:
            raise SeriesError(key, "a second series for the same signal and role")
        if any(len(values) != len(other) for other in turn.values()):
            raise SeriesError(
                key,
                f"{len(values)} tokens, but another series of @{role.value} has another number",
                help="series of one role describe the same tokens",
            )
        turn[signal] = values
    return [
        SeriesToken(role=role, values=_values_at(i, turn, signals))
        for role, turn in turns.items()
        for i in range(len(next(iter(turn.values()))))
    ]


def _values_at(
    i: int, turn: Mapping[str, list[float | None]], signals: Sequence[str]
) -> dict[str, float | None]:
    if any(values[i] is None for values in turn.values()):
        return dict.fromkeys(signals)
    return {s: turn[s][i] if s in turn else 0.0 for s in signals}


def _split_key(key: str, signals: Sequence[str], default: Role) -> tuple[str, Role]:
    signal, _, role = key.replace(" ", "").removeprefix(TWIN).partition("@")
    if signal not in signals:
        raise SeriesError(key, f"unknown signal {signal!r}", help=f"known: {', '.join(signals)}")
    if not role:
        return signal, default
    try:
        return signal, Role(role)
    except ValueError:
        known = ", ".join(r.value for r in Role)
        raise SeriesError(key, f"unknown role {role!r}", help=f"known: {known}") from None


def default_role(roles: Sequence[Role]) -> Role:
    """The role of a series whose key names none: the first of the scope, else the user's."""
    return roles[0] if roles else Role.USER
