"""An encoded batch as rows of the store: tokens, activations, coverage, pooled vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from auditkit.core.recordings import Recording, RecordingPlan
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.recording.conversations import Conversation
from auditkit.recording.encoding import EncodedBatch
from auditkit.store import (
    ACTIVATION_ROWS,
    VECTOR_ROWS,
    RecordedBatch,
    coverage_rows,
    prompt_rows,
    token_number,
    token_rows,
)

Vectors = npt.NDArray[np.float32]
Pooled = tuple[str, str, str, Vectors]


def to_rows(
    batch: EncodedBatch, recording: Recording, *, leave_out: Collection[str] = ()
) -> RecordedBatch:
    """The rows of every conversation of `batch` whose prompt is not in `leave_out`."""
    x: Vectors = batch.x.cpu().numpy()
    offsets = batch.latents.offsets.cpu().numpy()
    latents = batch.latents.indices.cpu().numpy()
    values = batch.latents.values.cpu().numpy()
    kept: list[Conversation] = []
    parts: list[pa.Table] = []
    pooled: list[Pooled] = []
    first = 0
    for conversation in batch.conversations:
        last = first + len(conversation.tokens)
        if conversation.prompt.id not in leave_out:
            own = x[first:last]
            marked = replace(
                conversation, tokens=mask_high_norm(conversation.tokens, own, recording.plan)
            )
            entries = slice(int(offsets[first]), int(offsets[last]))
            counts = np.diff(offsets[first : last + 1])
            parts.append(_activations(marked.ordinal, counts, latents[entries], values[entries]))
            pooled += pool(marked.tokens, own)
            kept.append(marked)
        first = last
    return RecordedBatch(
        recording=recording.id,
        sae=recording.sae.digest,
        prompts=prompt_rows((c.ordinal, c.prompt) for c in kept),
        tokens=token_rows((c.ordinal, c.tokens) for c in kept),
        activations=pa.concat_tables(parts) if parts else ACTIVATION_ROWS.empty_table(),
        coverage=coverage_rows((c.ordinal, len(c.tokens)) for c in kept),
        vectors=_vector_rows(pooled),
    )


def mask_high_norm(tokens: TokenizedPrompt, x: Vectors, plan: RecordingPlan) -> TokenizedPrompt:
    """Mark tokens whose ‖x‖ is above the plan's reference norm times its factor."""
    if plan.reference_norm is None:
        return tokens
    norms = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1))
    high = norms > plan.reference_norm * plan.high_norm_factor
    if not high.any():
        return tokens
    masks = tuple(
        mask | TokenMask.HIGH_NORM if is_high else mask
        for mask, is_high in zip(tokens.masks, high.tolist(), strict=True)
    )
    return replace(tokens, masks=masks)


def pool(tokens: TokenizedPrompt, x: Vectors) -> Iterator[Pooled]:
    """(prompt, role, pool, vector [d_in]) over unmasked tokens.

    The mean for each role and for `all`; maximum and last token for `all`. Where there is one role
    only, its name stands for `all`. A prompt without an unmasked token has none. Means are summed
    in float64.
    """
    unmasked = np.array([mask == TokenMask.NONE for mask in tokens.masks])
    if not unmasked.any():
        return
    named = np.array([role.value for role in tokens.roles])
    roles = np.unique(named[unmasked]).tolist()
    rows = x[unmasked]
    whole = "all" if len(roles) > 1 else roles[0]
    yield tokens.prompt_id, whole, "mean", _mean(rows)
    yield tokens.prompt_id, whole, "max", rows.max(axis=0)
    yield tokens.prompt_id, whole, "last", rows[-1]
    for role in roles if len(roles) > 1 else ():
        yield tokens.prompt_id, role, "mean", _mean(rows[named[unmasked] == role])


def _mean(rows: Vectors) -> Vectors:
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32)


def _activations(
    ordinal: int,
    counts: npt.NDArray[np.int64],
    latents: npt.NDArray[np.int64],
    values: Vectors,
) -> pa.Table:
    numbers = np.arange(len(counts), dtype=np.int64) + token_number(ordinal, 0)
    return pa.table(
        [
            pa.array(np.repeat(numbers, counts)),
            pa.array(latents.astype(np.int32)),
            pa.array(values),
        ],
        schema=ACTIVATION_ROWS,
    )


def _vector_rows(pooled: list[Pooled]) -> pa.Table:
    if not pooled:
        return VECTOR_ROWS.empty_table()
    prompts, roles, pools, vectors = zip(*pooled, strict=True)
    lengths = np.cumsum([0, *(len(v) for v in vectors)], dtype=np.int32)
    flat = np.concatenate(vectors)
    return pa.table(
        [
            pa.array(prompts, pa.string()),
            pa.array(roles, pa.string()),
            pa.array(pools, pa.string()),
            pa.ListArray.from_arrays(pa.array(lengths), pa.array(flat)),
        ],
        schema=VECTOR_ROWS,
    )
