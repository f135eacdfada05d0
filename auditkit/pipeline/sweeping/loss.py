"""ΔCE of many dictionaries on the same text: what does not depend on the dictionary is done once.

The definition is that of `quality.measure_loss` (predictions made at an unmasked token about an
unmasked token, activations of all unmasked tokens replaced), without its ablations and its KL,
which cost five passes of the upper layers more for every dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.tokens import TokenMask
from auditkit.models import LanguageModel, TokenBatch
from auditkit.saes import SparseAutoencoder

_TOKEN_CHUNK = 256
_NOTHING = NotMeasured("no unmasked token is followed by an unmasked token")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    batch: TokenBatch
    x: Float[Tensor, "batch pos d_in"]
    replaced: Bool[Tensor, "batch pos"]


class SplicedText:
    """Batches of text with their activations at a hook point and the untouched model's loss."""

    def __init__(
        self, model: LanguageModel, hook_point: HookPoint, batches: Sequence[TokenBatch]
    ) -> None:
        self._model, self._hook_point = model, hook_point
        self._batches = [
            _Batch(
                batch=batch,
                x=model.capture(batch, [hook_point])[hook_point],
                replaced=batch.attention & (batch.masks == int(TokenMask.NONE)),
            )
            for batch in batches
        ]
        totals = [self._loss(b, b.x) for b in self._batches]
        self._untouched = sum(total for total, _ in totals)
        self._predictions = sum(count for _, count in totals)

    @property
    def ce(self) -> Measure:
        """Cross-entropy of the untouched model, nats per token."""
        if not self._predictions:
            return _NOTHING
        return Measured(value=self._untouched / self._predictions, n=self._predictions)

    @torch.no_grad()
    def delta_ce(self, sae: SparseAutoencoder) -> Measure:
        """How much cross-entropy rises where the model runs on `sae`'s reconstruction."""
        if not self._predictions:
            return _NOTHING
        total = 0.0
        for b in self._batches:
            rows = b.x[b.replaced]
            spliced = b.x.clone()
            spliced[b.replaced] = sae.decode(sae.encode(rows), rows).to(b.x.dtype)
            total += self._loss(b, spliced)[0]
        return Measured(value=(total - self._untouched) / self._predictions, n=self._predictions)

    def _loss(self, b: _Batch, x: Float[Tensor, "batch pos d_in"]) -> tuple[float, int]:
        """Summed cross-entropy in nats, and over how many predictions."""
        counted = b.replaced[:, :-1] & b.replaced[:, 1:]
        targets = b.batch.ids[:, 1:][counted]
        logits = self._model.resume(b.batch, self._hook_point, x)[:, :-1][counted]
        total = sum(
            float(cross_entropy(part.double(), wanted, reduction="sum"))
            for part, wanted in zip(
                logits.split(_TOKEN_CHUNK), targets.split(_TOKEN_CHUNK), strict=True
            )
        )
        return total, len(targets)
