"""A store whose answers are known: latent 7 fires on prompts labelled `yes`, 9 where 7 does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.store import (
    ACTIVATION_ROWS,
    VECTOR_ROWS,
    RecordedBatch,
    coverage_rows,
    open_store,
    prompt_rows,
    token_number,
    token_rows,
)
from tests.store_rows import made_recording

HOSTILE = "<script>alert(1)</script>[bold red]\x1b[31m\u202e"
TOKENS, PROMPTS = 8, 40
SEPARATING, PARTNER, NOISE, MASKED = 7, 9, 11, 13


def planted_store(path: Path, *, order: Sequence[int] | None = None) -> Path:
    """40 prompts of 8 tokens, committed in `order`; the first token of each is masked (BOS)."""
    recording = made_recording("planted")
    with open_store(path) as store:
        store.begin_recording(recording)
        for ordinal in order if order is not None else range(PROMPTS):
            prompt, text, rows = _planted(ordinal)
            store.commit_batch(
                RecordedBatch(
                    recording=recording.id,
                    sae=recording.sae.digest,
                    prompts=prompt_rows([(ordinal, prompt)]),
                    tokens=token_rows([(ordinal, text)]),
                    activations=rows,
                    coverage=coverage_rows([(ordinal, TOKENS)]),
                    vectors=pa.Table.from_pylist(
                        [
                            {
                                "prompt": prompt.id,
                                "role": "user",
                                "pool": "mean",
                                "vector": [float(ordinal % 2), float(ordinal % 3), 0.0, 1.0],
                            }
                        ],
                        schema=VECTOR_ROWS,
                    ),
                )
            )
        store.finish_recording(recording.id)
    return path


def _planted(ordinal: int) -> tuple[Prompt, TokenizedPrompt, pa.Table]:
    yes = ordinal % 2 == 1
    name = f"p{ordinal:02}"
    words = ["<s>", " find", " the", f" w{ordinal}", HOSTILE, " in", " yes" if yes else " no", "."]
    prompt = Prompt(
        id=name,
        messages=(Message(role=Role.USER, content="".join(words[1:])),),
        label="yes" if yes else "no",
        tags=("third",) if ordinal % 3 == 0 else (),
    )
    text = TokenizedPrompt(
        prompt_id=name,
        ids=tuple(range(TOKENS)),
        texts=tuple(words),
        roles=(Role.USER,) * TOKENS,
        messages=(0,) * TOKENS,
        masks=(TokenMask.BOS,) + (TokenMask.NONE,) * (TOKENS - 1),
        generated=(False,) * TOKENS,
    )
    rows = [(0, MASKED, 99.0)]
    rows += [(i, NOISE, 1.0 + (ordinal * 7 + i * 3) % 5) for i in range(1, TOKENS)]
    if yes:
        rows += [(6, SEPARATING, 2.0 + ordinal / 8), (6, PARTNER, 1.0)]
    rows.sort()
    base = token_number(ordinal, 0)
    table = pa.table(
        [
            pa.array([base + i for i, _, _ in rows]),
            pa.array(np.array([n for _, n, _ in rows], dtype=np.int32)),
            pa.array(np.array([v for _, _, v in rows], dtype=np.float32)),
        ],
        schema=ACTIVATION_ROWS,
    )
    return prompt, text, table
