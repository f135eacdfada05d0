"""What many passes share: keys and values of the first columns, computed once per prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from auditkit.core.hook_point import HookPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The first `columns` columns of prompts of one length, in the layers above a hook point.

    `keys` and `values` are per layer [prompt, head, columns, d_head], None for the layers below,
    which a pass that starts at `hook_point` does not run. `ids` are those of the whole prompts.
    """

    hook_point: HookPoint
    columns: int
    ids: Int[Tensor, "prompt pos"]
    keys: tuple[Float[Tensor, "prompt head columns d_head"] | None, ...]
    values: tuple[Float[Tensor, "prompt head columns d_head"] | None, ...]

    def cache_of(self, rows: Int[Tensor, " row"]) -> DynamicCache:
        """A KV cache for the given prompts, as the columns after the prefix want it."""
        # Without the configuration every layer keeps all its columns; the masks of sliding layers
        # are made from positions, so nothing is lost by that.
        cache = DynamicCache()
        blank = torch.zeros(1, 1, 1, 1).expand(len(rows), 1, self.columns, 1)
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            # Layers that do not run are asked for the length of what they hold all the same.
            cache.update(
                blank if keys is None else keys[rows],
                blank if values is None else values[rows],
                layer,
            )
        return cache


def read_prefix(
    cache: Any, hook_point: HookPoint, ids: Int[Tensor, "prompt pos"], n_layers: int, columns: int
) -> Prefix:
    """Keep what a pass over the first `columns` columns left in its cache."""
    keys: list[Tensor | None] = [None] * n_layers
    values: list[Tensor | None] = [None] * n_layers
    for number, layer in enumerate(cache.layers):
        if layer.is_initialized:
            keys[number], values[number] = layer.keys, layer.values
    return Prefix(
        hook_point=hook_point,
        columns=columns,
        ids=ids,
        keys=tuple(keys),
        values=tuple(values),
    )
