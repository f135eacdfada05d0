"""Tokens laid into frames, as sql.py's first steps do it, in columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from auditkit.core.locks import Frame, Scope
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask

COLUMNS_SQL = "SELECT token, prompt, role, message, mask FROM tokens WHERE recording = ?"
COVERED_SQL = "SELECT first_token, last_token FROM coverage WHERE recording = ?"

_ROLES = {role.value: number for number, role in enumerate(Role)}

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenColumns:
    """The tokens of a recording in order of prompt and token, one entry per token in each column.

    `prompt` is a place in `prompts` (ids, ascending), `role` one in the order of Role; `by_token`
    sorts by token.
    """

    prompts: pa.StringArray
    token: Integers
    prompt: Integers
    role: NDArray[np.int8]
    message: Integers
    mask: NDArray[np.int32]
    by_token: Integers

    @classmethod
    def of(cls, tokens: pa.Table, coverage: pa.Table) -> TokenColumns | None:
        """From the rows of COLUMNS_SQL and COVERED_SQL; None where they do not say everything: a
        token that is not covered, or without a role or message, or no token at all."""
        if not len(tokens) or any(tokens[name].null_count for name in tokens.column_names):
            return None
        token = tokens["token"].to_numpy()
        if not _covers(coverage, token):
            return None
        names, prompt = _coded(tokens["prompt"])
        ranks = np.argsort(np.argsort(np.array([n.encode() for n in names], dtype=object)))
        prompt = ranks[prompt].astype(np.int64)
        said, role = _coded(tokens["role"])
        numbers = np.array([_ROLES[r] for r in said], dtype=np.int8)
        order = np.lexsort((token, prompt))
        token = token[order].astype(np.int64)
        return cls(
            prompts=pa.array(sorted(names, key=str.encode), pa.string()),
            token=token,
            by_token=np.argsort(token, kind="stable"),
            prompt=prompt[order],
            role=numbers[role][order],
            message=tokens["message"].to_numpy()[order].astype(np.int64),
            mask=tokens["mask"].to_numpy()[order],
        )

    def find(self, token: Integers) -> Integers:
        """Where tokens stand, −1 for one that is not there; quick where they come in runs."""
        starts = np.flatnonzero(np.diff(token, prepend=token[:1] - 1))
        wanted = token[starts]
        at = np.searchsorted(self.token, wanted, sorter=self.by_token)
        found = self.by_token[np.minimum(at, len(self.token) - 1)]
        found = np.where(self.token[found] == wanted, found, -1)
        return np.repeat(found, np.diff(starts, append=len(token)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """The tokens that an aggregate sees: their places among all (None: all of them), and for every
    frame how many there are and where they begin."""

    places: Integers | None
    counts: Integers
    starts: Integers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnLayout:
    """Frames in order of prompt and number, and the tokens in them, in the same order.

    `frame` is the frame that a token stands in; frames without a token are there with a count of
    0. `places[i]` is where the token number i of the TokenColumns stands here, −1 where it is in
    no frame.
    """

    prompt: pa.StringArray
    number: NDArray[np.int32]
    counts: Integers
    starts: Integers
    token: Integers
    role: NDArray[np.int8]
    frame: Integers
    places: Integers
    _seen: dict[tuple[Role, ...], Seen] = field(default_factory=dict[tuple[Role, ...], Seen])

    @classmethod
    def of(
        cls, columns: TokenColumns, frame: Frame, scope: Scope, *, masked: TokenMask
    ) -> ColumnLayout:
        """Lay the tokens of a recording into conversations, messages or exchanges."""
        eligible = (columns.mask & int(masked)) == 0
        if scope.roles:
            eligible &= np.isin(columns.role, [_ROLES[r.value] for r in scope.roles])
        framed = eligible if frame is Frame.MESSAGE else np.ones_like(eligible)
        number = _numbers(columns, frame, framed)
        key = columns.prompt * (int(number.max(initial=0)) + 1) + number
        frames, first, rank = _ranked(key[framed])
        inside, rank = np.flatnonzero(framed)[eligible[framed]], rank[eligible[framed]]
        if np.any(rank[1:] < rank[:-1]):
            order = np.argsort(rank, kind="stable")
            inside, rank = inside[order], rank[order]
        counts = np.bincount(rank, minlength=len(frames))
        if scope.skip_first:
            begin = np.repeat(np.cumsum(counts) - counts, counts)
            kept = np.arange(len(rank)) - begin >= scope.skip_first
            inside, rank = inside[kept], rank[kept]
            counts = np.bincount(rank, minlength=len(frames))
        places = np.full(len(columns.token), -1, dtype=np.int64)
        places[inside] = np.arange(len(inside))
        return cls(
            prompt=columns.prompts.take(pa.array(columns.prompt[framed][first])),
            number=number[framed][first].astype(np.int32),
            counts=counts,
            starts=np.cumsum(counts) - counts,
            token=columns.token[inside],
            role=columns.role[inside],
            frame=rank,
            places=places,
        )

    def seen(self, roles: tuple[Role, ...]) -> Seen:
        """The tokens of some roles; of all where none is named."""
        if roles not in self._seen:
            self._seen[roles] = self._see(roles)
        return self._seen[roles]

    def _see(self, roles: tuple[Role, ...]) -> Seen:
        if not roles:
            return Seen(places=None, counts=self.counts, starts=self.starts)
        places = np.flatnonzero(np.isin(self.role, [_ROLES[r.value] for r in roles]))
        counts = np.bincount(self.frame[places], minlength=len(self.counts))
        return Seen(places=places, counts=counts, starts=np.cumsum(counts) - counts)


def _ranked(key: Integers) -> tuple[Integers, Integers, Integers]:
    """The distinct keys in order, where each is first, and which of them each key is."""
    if np.any(key[1:] < key[:-1]):
        return np.unique(key, return_index=True, return_inverse=True)
    starts = np.ones(len(key), dtype=np.bool_)
    starts[1:] = key[1:] != key[:-1]
    first = np.flatnonzero(starts)
    return key[first], first, np.cumsum(starts) - 1


def _coded(column: pa.ChunkedArray) -> tuple[list[str], Integers]:
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)


def _covers(coverage: pa.Table, token: Integers) -> bool:
    """Is every token in some range?"""
    first = coverage["first_token"].to_numpy()
    order = np.argsort(first, kind="stable")
    reach = np.maximum.accumulate(coverage["last_token"].to_numpy()[order])
    before = np.searchsorted(first[order], token, side="right")
    if not len(reach):
        return False
    return bool(np.all((before > 0) & (token <= reach[np.maximum(before, 1) - 1])))


def _numbers(columns: TokenColumns, frame: Frame, framed: Flags) -> Integers:
    """The number of each token's frame in its prompt; of no meaning where it is in none."""
    n = len(columns.token)
    if frame is Frame.CONVERSATION:
        return np.zeros(n, dtype=np.int64)
    if frame is Frame.MESSAGE:
        counted = _ranks(columns.prompt[framed], columns.message[framed])
        numbers = np.zeros(n, dtype=np.int64)
        numbers[framed] = counted
        return numbers
    opens = _opens(columns)
    so_far = np.cumsum(opens)
    _, first, prompt = _ranked(columns.prompt)
    before = so_far[first] - opens[first]
    return np.maximum(so_far - before[prompt] - 1, 0)


def _ranks(prompt: Integers, message: Integers) -> Integers:
    """The dense rank of a message among those of its prompt, from 0."""
    low = int(message.min(initial=0))
    key = prompt * (int(message.max(initial=low)) - low + 1) + message - low
    distinct, _, at = _ranked(key)
    owner = distinct // (int(message.max(initial=low)) - low + 1)
    return at - np.searchsorted(owner, owner, side="left")[at]


def _opens(columns: TokenColumns) -> Flags:
    """Is this the first token of a message by the user?"""
    user = np.flatnonzero(columns.role == _ROLES[Role.USER.value])
    low = int(columns.message.min(initial=0))
    span = int(columns.message.max(initial=low)) - low + 1
    key = columns.prompt[user] * span + columns.message[user] - low
    _, first, _ = _ranked(key)
    opens = np.zeros(len(columns.token), dtype=np.bool_)
    opens[user[first]] = True
    return opens
