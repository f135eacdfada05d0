"""Decode new tokens from a batch of prompts, greedily or by sampling from a seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from auditkit.models.batches import TokenBatch
from auditkit.models.tapping import Generation

Stopping = Callable[[], Collection[int]]
"""Asked after every step: the rows of the batch that shall end now."""


def decode(
    network: nn.Module,
    batch: TokenBatch,
    *,
    max_new_tokens: int,
    end_ids: frozenset[int],
    pad_id: int,
    temperature: float = 0.0,
    seed: int = 0,
    stopping: Sequence[Stopping] = (),
    observed: Generation | None = None,
) -> list[list[int]]:
    """New token ids for each row of a left-padded batch, without the end token.

    Temperature 0 takes the likeliest token. After every step the functions of `stopping` and the
    observers are asked which rows shall end; their replies keep the tokens chosen so far.
    """
    generator = torch.Generator(device=batch.ids.device).manual_seed(seed)
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=batch.ids.device)
    ids, attention = batch.ids, batch.attention
    columns: list[Tensor] = []
    ended = torch.zeros(len(batch), dtype=torch.bool, device=ids.device)
    lengths = [max_new_tokens] * len(batch)
    cache: Any = None
    for _ in range(max_new_tokens):
        output: Any = network(
            input_ids=ids,
            attention_mask=attention.long(),
            position_ids=(attention.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        token = choose(output.logits[:, -1], temperature, generator)
        token = torch.where(ended, pad_id, token)
        columns.append(token)
        ended = ended | torch.isin(token, ends)
        stopped = {row for stop in stopping for row in stop()}
        if observed is not None:
            done = ended | (len(columns) == max_new_tokens)
            for row in stopped:
                done[row] = True
            told = observed.accepted(torch.cat([batch.ids, torch.stack(columns, dim=1)], 1), done)
            stopped |= set((told & ~ended).nonzero()[:, 0].tolist())
        for row in stopped:
            lengths[row] = min(lengths[row], len(columns))
            ended[row] = True
        if bool(ended.all()):
            break
        ids = token[:, None]
        attention = torch.cat([attention, attention.new_ones(len(batch), 1)], dim=1)
    return _trimmed(columns, end_ids, lengths)


def as_told(
    observed: Generation, batch: TokenBatch, replies: Sequence[list[int]]
) -> list[list[int]]:
    """The replies after their observers have seen them, and perhaps replaced some."""
    call = observed.call
    end = min(call.end_ids, default=call.pad_id)
    width = max((len(reply) for reply in replies), default=0) + 1
    tails = torch.full((len(batch), width), end, dtype=torch.long, device=batch.ids.device)
    for row, reply in enumerate(replies):
        tails[row, : len(reply)] = torch.tensor(reply, dtype=torch.long)
    whole = torch.cat([batch.ids, tails], dim=1)
    told = observed.finished(whole)
    if told is whole:
        return list(replies)
    columns = list(told[:, batch.ids.shape[1] :].unbind(dim=1))
    return _trimmed(columns, frozenset({*call.end_ids, end}), [len(columns)] * len(batch))


def choose(
    logits: Float[Tensor, "batch vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """The next token of each row."""
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


def _trimmed(
    columns: Sequence[Tensor], end_ids: frozenset[int], lengths: Sequence[int]
) -> list[list[int]]:
    if not columns:
        return [[] for _ in lengths]
    replies: list[list[int]] = []
    for row, length in zip(torch.stack(list(columns), dim=1).tolist(), lengths, strict=True):
        kept = row[:length]
        ends = [i for i, token in enumerate(kept) if token in end_ids]
        replies.append(kept[: ends[0]] if ends else kept)
    return replies
