"""Complete a recording for directions that were bound after it was made, without recording anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from torch import Tensor

from auditkit.core.directions import LockedDirection
from auditkit.core.errors import MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Role
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.models import LanguageModel, length_sorted_batches
from auditkit.recording.conversations import BATCH_TOKENS
from auditkit.recording.record import Progress
from auditkit.saes import DirectionReader
from auditkit.store import ACTIVATION_ROWS, COVERAGE_ROWS, DirectionBatch, Store


def complete_directions(
    model: LanguageModel,
    recording: Recording,
    directions: Sequence[LockedDirection],
    store: Store,
    *,
    progress: Progress | None = None,
) -> int:
    """Compute x·v for every recorded token and add it to the recording; returns prompts completed.

    The stored tokens go through the model again, up to the hook point: replies are those that were
    recorded. Every batch is one transaction; what is there already is left as it is, so a second
    call does nothing and an interrupted one goes on. Raises MismatchError where the recording is
    of another model, or a direction of another width.
    """
    if recording.model.digest != model.identity.digest:
        raise MismatchError(
            f"the recording of {recording.suite!r} is of {recording.model.name} "
            f"({recording.model.digest[:12]}), the model is {model.identity.name} "
            f"({model.identity.digest[:12]})",
            help="complete a recording with the model that made it",
        )
    reader = DirectionReader(directions, recording.sae)
    done = [store.directed_tokens(recording.id, d.digest) for d in reader.directions]
    prompts = _recorded_prompts(store, recording) if len(reader) else []
    todo = [any(first not in there for there in done) for first, _ in prompts]
    completed, total = 0, sum(todo)
    hook_point = HookPoint.parse(recording.sae.hook_point)
    # Batches depend on the whole recording only, so that an interrupted run gives the same rows.
    for group in length_sorted_batches([p for _, p in prompts], max_tokens=BATCH_TOKENS):
        if not any(todo[i] for i in group):
            continue
        own = [prompts[i] for i in group]
        tokens = model.pad([p for _, p in own])
        x = model.capture(tokens, [hook_point])[hook_point][tokens.attention]
        store.commit_directions(_batches(reader, recording.id, own, reader.read(x).cpu(), done))
        completed += sum(todo[i] for i in group)
        if progress is not None:
            progress(completed, total)
    return completed


def _recorded_prompts(store: Store, recording: Recording) -> list[tuple[int, TokenizedPrompt]]:
    """Every recorded prompt with the number of its first token."""
    rows = store.frame_tokens(recording.id).to_pylist()
    found: list[tuple[int, TokenizedPrompt]] = []
    for prompt, group in groupby(rows, key=lambda r: str(r["prompt"])):
        own = list(group)
        found.append(
            (
                int(own[0]["token"]),
                TokenizedPrompt(
                    prompt_id=prompt,
                    ids=tuple(int(r["token_id"]) for r in own),
                    texts=tuple(str(r["text"]) for r in own),
                    roles=tuple(Role(r["role"]) for r in own),
                    messages=tuple(int(r["message"]) for r in own),
                    masks=tuple(TokenMask(r["mask"]) for r in own),
                    generated=tuple(bool(r["generated"]) for r in own),
                ),
            )
        )
    return found


def _batches(
    reader: DirectionReader,
    recording: str,
    prompts: Sequence[tuple[int, TokenizedPrompt]],
    values: Float32[Tensor, "token direction"],
    done: Sequence[set[int]],
) -> list[DirectionBatch]:
    lengths = [len(p) for _, p in prompts]
    parts = torch.split(values, lengths)
    made: list[DirectionBatch] = []
    for column, direction in enumerate(reader.directions):
        kept = [
            (first, part[:, column].numpy())
            for (first, _), part in zip(prompts, parts, strict=True)
            if first not in done[column]
        ]
        if kept:
            number = reader.numbers[column]
            made.append(_batch(recording, direction, number, kept))
    return made


def _batch(
    recording: str,
    direction: LockedDirection,
    number: int,
    prompts: Sequence[tuple[int, np.ndarray]],
) -> DirectionBatch:
    token = np.concatenate([first + np.arange(len(v), dtype=np.int64) for first, v in prompts])
    value = np.concatenate([v for _, v in prompts]).astype(np.float32)
    active = value != 0
    latent = np.full(int(active.sum()), number, dtype=np.int32)
    firsts = [first for first, _ in prompts]
    lasts = [first + len(v) - 1 for first, v in prompts]
    return DirectionBatch(
        recording=recording,
        direction=direction.digest,
        latent=number,
        activations=pa.table(
            [pa.array(token[active]), pa.array(latent), pa.array(value[active])],
            schema=ACTIVATION_ROWS,
        ),
        coverage=pa.table(
            [pa.array(firsts, pa.int64()), pa.array(lasts, pa.int64())], schema=COVERAGE_ROWS
        ),
    )
