"""Which prompts of a suite are twins: those that bear the same tag `pair:…`, two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PAIR_TAG = "pair:"


def pair_of(tags: Sequence[str]) -> str | None:
    """The pair that a prompt belongs to: its first tag `pair:…`."""
    return next((tag for tag in tags if tag.startswith(PAIR_TAG)), None)


def find_twins(tags: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The twin of every prompt that has one, given the tags of all prompts of a suite.

    Of three prompts with one tag none has a twin: which two belong together nobody says.
    """
    members: dict[str, list[str]] = {}
    for prompt, own in tags.items():
        pair = pair_of(own)
        if pair is not None:
            members.setdefault(pair, []).append(prompt)
    pairs = [pair for pair in members.values() if len(pair) == 2]
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}
