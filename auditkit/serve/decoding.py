"""One reply, token by token: forward passes over a cache, and the choice of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.models import LanguageModel
from auditkit.serve.chat_request import Sampling


class Stepper:
    """Forward passes of one row, each going on from the key-value cache of the last."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._cache: Any = None
        self._length = 0

    @torch.no_grad()
    def feed(self, ids: Sequence[int]) -> Float[Tensor, " vocab"]:
        """Pass `ids` through the model; the logits of what follows the last of them."""
        device = self._model.device
        row = torch.tensor([list(ids)], dtype=torch.long, device=device)
        end = self._length + len(ids)
        output: Any = self._model.network(
            input_ids=row,
            attention_mask=torch.ones((1, end), dtype=torch.long, device=device),
            position_ids=torch.arange(self._length, end, device=device)[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache, self._length = output.past_key_values, end
        return output.logits[0, -1]


class Sampler:
    """Chooses tokens from a seed of its own, so that threads do not share a random state.

    Nucleus sampling (Holtzman et al., 2020): of the tokens by falling probability, the smallest
    set that reaches `top_p`.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._generator = torch.Generator(device=device).manual_seed(sampling.seed)

    def choose(self, logits: Float[Tensor, " vocab"]) -> int:
        """The next token; the likeliest at temperature 0."""
        if self._temperature == 0.0:
            return int(logits.argmax())
        shares = torch.softmax(logits.float() / self._temperature, dim=-1)
        if self._top_p < 1.0:
            shares = nucleus(shares, self._top_p)
        return int(torch.multinomial(shares, 1, generator=self._generator))


def nucleus(shares: Float[Tensor, " vocab"], top_p: float) -> Float[Tensor, " vocab"]:
    """`shares` with all but the smallest likely set of at least `top_p` put to 0."""
    ordered, order = shares.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    kept = torch.where(before < top_p, ordered, 0.0)
    kept[0] = ordered[0]
    return torch.zeros_like(shares).scatter(0, order, kept)
