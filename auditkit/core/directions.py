"""A plain linear direction in the activations, watched as one more latent than the SAE has."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.errors import InvalidInput

NUMBER_DIGITS = 7
"""Hexadecimal digits of the digest that number a direction: 28 bits, an INTEGER with any d_sae."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedDirection:
    """A direction v of the activations x; its value at a token is x·v, which may be negative.

    `vector`: base64 of the little-endian float32 components; `digest`: SHA-256 of those bytes;
    `fit`: how it was found.
    """

    digest: str
    fit: str
    vector: str

    def components(self) -> tuple[float, ...]:
        """The components, exact; InvalidInput where `vector` is not what `digest` names."""
        try:
            raw = base64.b64decode(self.vector, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not raw or len(raw) % 4 or hashlib.sha256(raw).hexdigest() != self.digest:
            raise InvalidInput(
                f"the direction {self.digest[:12]} of the lock is not the one that was bound",
                help="the lock was changed by hand; write it anew with: auditkit rules bind",
            )
        return struct.unpack(f"<{len(raw) // 4}f", raw)

    def latent(self, d_sae: int) -> int:
        """Its number among the latents of an SAE of `d_sae`: at least d_sae, the same in every
        store."""
        return d_sae + int(self.digest[:NUMBER_DIGITS], 16)


def lock_direction(components: Sequence[float], *, fit: str) -> LockedDirection:
    """Round `components` to float32 and name them by their digest."""
    raw = struct.pack(f"<{len(components)}f", *components)
    return LockedDirection(
        digest=hashlib.sha256(raw).hexdigest(), fit=fit, vector=base64.b64encode(raw).decode()
    )
