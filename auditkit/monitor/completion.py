"""Tokens of a reply that never passed through the model: one truncated pass shows them too.

`generate` chooses the last token of a reply cut by its length and stops. Where the KV cache still
stands behind it, the pass runs that one column; otherwise the whole sequences.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from auditkit.core.hook_point import HookPoint
from auditkit.models import LanguageModel

Shown = Mapping[HookPoint, Tensor]


def can_continue(cache: Any, columns: int) -> bool:
    """Does the cache hold exactly `columns` columns, and can it take one more?"""
    if cache is None or not hasattr(cache, "layers"):
        return False
    # A static cache is as long as generate needed it.
    if any(getattr(layer, "is_compileable", False) for layer in cache.layers):
        return False
    return int(cache.get_seq_length()) == columns


@torch.no_grad()
def last_column(
    model: LanguageModel,
    hook_points: Sequence[HookPoint],
    ids: Int[Tensor, "row pos"],
    attention: Tensor | None,
    cache: Any,
    *,
    keep: bool,
) -> Shown:
    """Activations [row, 1, d_in] of the last column of `ids`; `keep` restores the cache."""
    rows, columns = ids.shape
    inputs: dict[str, Any] = {
        "input_ids": ids[:, -1:],
        "past_key_values": cache,
        "use_cache": True,
    }
    if attention is not None:
        more = attention.new_ones(rows, columns - attention.shape[1])
        whole = torch.cat([attention, more], dim=1).long()
        inputs["attention_mask"] = whole
        inputs["position_ids"] = (whole.cumsum(1) - 1).clamp(min=0)[:, -1:]
    with _restored(cache, keep):
        return model.tap.collect(hook_points, inputs)


@torch.no_grad()
def whole_rows(
    model: LanguageModel, hook_points: Sequence[HookPoint], rows: Sequence[Sequence[int]]
) -> Shown:
    """Activations [row, pos, d_in] of whole sequences, padded on the right."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), model.pad_id, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(list(row), dtype=torch.long)
    ids = ids.to(model.device)
    # No real token attends to padding on its right: no mask is needed.
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    return model.tap.collect(hook_points, inputs)


@contextmanager
def _restored(cache: Any, keep: bool) -> Generator[None]:
    """Give a cache that the caller will use its layers' state back."""
    if not keep:
        yield
        return
    # The layers make new tensors when they grow, so the old ones are still what they were.
    before = [dict(layer.__dict__) for layer in cache.layers]
    try:
        yield
    finally:
        for layer, state in zip(cache.layers, before, strict=True):
            layer.__dict__.clear()
            layer.__dict__.update(state)
