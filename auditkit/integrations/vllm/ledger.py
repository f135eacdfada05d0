"""What prompt tokens came to when they were computed, for when the prefix cache serves them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReading:
    """One token at one hook point: each rule's signals (fixed-point), and if its norm is high."""

    high_norm: bool
    signals: tuple[Mapping[str, int | None], ...]


class Ledger:
    """Readings of the last `capacity` tokens, each keyed by all the tokens up to it.

    A token that vLLM serves from its prefix cache never passes through the model again, so its
    activations can only be known from the time when they were computed. Activations depend on the
    tokens before them and on the adapter in use, and so does the key. With capacity 0 nothing is
    kept, and such tokens are not covered.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[bytes, TokenReading] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: bytes, reading: TokenReading) -> None:
        """Remember a token; the one longest unused is forgotten where there is no more room."""
        if self.capacity:
            self._kept[key] = reading
            self._kept.move_to_end(key)
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)

    def find(self, key: bytes) -> TokenReading | None:
        """The reading under a key, if it is still kept."""
        reading = self._kept.get(key)
        if reading is not None:
            self._kept.move_to_end(key)
        return reading


def first_key(adapter: str) -> bytes:
    """The key before any token, for requests of one LoRA adapter ('' for none)."""
    return hashlib.blake2b(adapter.encode(), digest_size=16).digest()


def next_key(key: bytes, token: int) -> bytes:
    """The key of a token, given the key of the token before it."""
    return hashlib.blake2b(key + token.to_bytes(8, "little"), digest_size=16).digest()
