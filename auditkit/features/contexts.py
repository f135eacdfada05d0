"""Tokens around a place where a latent fires, each with the latent's value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditkit.core.prompts import Role
from auditkit.features.selection import Scope
from auditkit.store import TOKENS_PER_PROMPT, Store
from auditkit.store.latent_queries import prompt_tokens, values_in_prompts

AROUND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextToken:
    """One token; `value` is the latent's there, 0 where it is silent."""

    text: str
    role: Role
    value: float
    masked: bool
    generated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The tokens around one at which a latent fires, and how many of the prompt are not shown.

    `peak` is that token's index in `tokens`; `position` its position in the prompt.
    """

    recording: str
    suite: str
    prompt: str
    position: int
    value: float
    tokens: tuple[ContextToken, ...]
    peak: int
    before: int
    after: int

    @property
    def text(self) -> str:
        """The tokens' texts, joined."""
        return "".join(t.text for t in self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A token of a recording, and a latent to look at there."""

    recording: str
    token: int
    latent: int


def contexts_of(
    store: Store, scope: Scope, places: Sequence[Place], *, around: int = AROUND
) -> list[Context]:
    """The contexts of `places`, in the order given."""
    found: dict[Place, Context] = {}
    for recording in scope.recordings:
        wanted = [p for p in places if p.recording == recording.id]
        if not wanted:
            continue
        ordinals = [_ordinal(p.token) for p in wanted]
        rows = prompt_tokens(store, recording.id, np.array(ordinals, dtype=np.int64))
        values = values_in_prompts(store, recording.id, [p.latent for p in wanted], ordinals)
        prompts: dict[int, list[dict[str, Any]]] = {}
        for row in rows.to_pylist():
            prompts.setdefault(_ordinal(row["token"]), []).append(row)
        for place in wanted:
            found[place] = _context(
                prompts[_ordinal(place.token)], place, values, recording.suite, scope, around
            )
    return [found[place] for place in places]


def _ordinal(token: int) -> int:
    return token // TOKENS_PER_PROMPT


def _context(
    prompt: Sequence[dict[str, Any]],
    place: Place,
    values: dict[tuple[int, int], float],
    suite: str,
    scope: Scope,
    around: int,
) -> Context:
    at = next(i for i, row in enumerate(prompt) if row["token"] == place.token)
    start, stop = max(0, at - around), min(len(prompt), at + around + 1)
    tokens = tuple(
        ContextToken(
            text=row["text"],
            role=Role(row["role"]),
            value=values.get((place.latent, row["token"]), 0.0),
            masked=bool(row["mask"] & scope.masked),
            generated=row["generated"],
        )
        for row in prompt[start:stop]
    )
    return Context(
        recording=place.recording,
        suite=suite,
        prompt=prompt[at]["prompt"],
        position=at,
        value=values.get((place.latent, place.token), 0.0),
        tokens=tokens,
        peak=at - start,
        before=start,
        after=len(prompt) - stop,
    )
