"""Activations of a flattened batch → each rule's signals, token by token."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from auditkit.core.locks import Lock
from auditkit.integrations.vllm.ledger import TokenReading
from auditkit.rules import SignalPool
from auditkit.saes import SparseAutoencoder


class Reader:
    """One SAE and the rules bound to it."""

    def __init__(self, sae: SparseAutoencoder, lock: Lock) -> None:
        self._sae, self._high_norm = sae, lock.high_norm
        self._names = [[s.name for s in rule.signals] for rule in lock.rules]
        self._pools = [
            {s.name: SignalPool(s) for s in rule.signals if s.unresolved is None}
            for rule in lock.rules
        ]

    def read(self, x: Float[Tensor, "token d_in"]) -> list[TokenReading]:
        """Readings of every row; raises NonFiniteActivations as the SAE does."""
        x = x.float()
        latents = self._sae.encode(x)
        norms = x.norm(dim=1).tolist()
        offsets = latents.offsets.tolist()
        indices, values = latents.indices.tolist(), latents.values.tolist()
        readings: list[TokenReading] = []
        for token, norm in enumerate(norms):
            own = slice(offsets[token], offsets[token + 1])
            readings.append(
                TokenReading(
                    high_norm=self._high_norm is not None and norm > self._high_norm,
                    signals=tuple(
                        {
                            n: pools[n].value(indices[own], values[own]) if n in pools else None
                            for n in names
                        }
                        for names, pools in zip(self._names, self._pools, strict=True)
                    ),
                )
            )
        return readings
