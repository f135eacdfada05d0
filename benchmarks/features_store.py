"""A store of ten million activations for benchmarks: made, not recorded, by the store's own writer.

Latents fire as those of a trained SAE do: a few on every fourth token, most on one in thousands.
One latent (PLANTED) fires on the prompts labelled `yes` alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from auditkit.core.identity import ModelIdentity, SaeIdentity
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.recordings import (
    Provenance,
    Recording,
    RecordingPlan,
    RecordingState,
    recording_id,
)
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

D_SAE, K, TOKENS, D_IN = 6144, 32, 64, 16
PLANTED = 3000
WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "you",
    "with",
    "on",
    "are",
    "as",
)
MODEL = ModelIdentity(
    name="made",
    weights_sha256="0" * 64,
    architecture="LlamaForCausalLM",
    dtype="float32",
    quantisation=None,
    chat_template_sha256=None,
    n_layers=2,
    d_model=D_IN,
    vocabulary=49152,
)
SAE = SaeIdentity(
    name="made",
    weights_sha256="1" * 64,
    architecture="topk",
    hook_point="blocks.1.hook_resid_post",
    d_in=D_IN,
    d_sae=D_SAE,
    dtype="float32",
    k=K,
    normalize_activations="none",
    apply_b_dec_to_input=True,
    rescale_acts_by_decoder_norm=False,
    model_name="made",
)


def make_store(path: Path, activations: int) -> str:
    """Write a store of about `activations` rows, one recording; returns the recording's id."""
    plan = RecordingPlan()
    recording = Recording(
        id=recording_id(MODEL, SAE, "made", plan),
        model=MODEL,
        sae=SAE,
        suite="made",
        suite_digest="made",
        plan=plan,
        provenance=Provenance(auditkit="benchmark", libraries=(), git_commit=None, git_dirty=None),
        state=RecordingState.OPEN,
    )
    prompts = -(-activations // (TOKENS * K))
    with open_store(path) as store:
        store.begin_recording(recording)
        for first in range(0, prompts, 256):
            store.commit_batch(_batch(recording, range(first, min(prompts, first + 256))))
        store.finish_recording(recording.id)
    return recording.id


def _batch(recording: Recording, ordinals: range) -> RecordedBatch:
    generator = np.random.default_rng((7, ordinals.start))
    prompts = [_prompt(o) for o in ordinals]
    texts = [_tokenized(p.id, generator) for p in prompts]
    return RecordedBatch(
        recording=recording.id,
        sae=recording.sae.digest,
        prompts=prompt_rows(zip(ordinals, prompts, strict=True)),
        tokens=token_rows(zip(ordinals, texts, strict=True)),
        activations=_activations(ordinals, generator),
        coverage=coverage_rows((o, TOKENS) for o in ordinals),
        vectors=pa.Table.from_pylist(
            [
                {
                    "prompt": p.id,
                    "role": "user",
                    "pool": "mean",
                    "vector": generator.normal(size=D_IN).tolist(),
                }
                for p in prompts
            ],
            schema=VECTOR_ROWS,
        ),
    )


def _prompt(ordinal: int) -> Prompt:
    return Prompt(
        id=f"p{ordinal}",
        messages=(Message(role=Role.USER, content="made"),),
        label="yes" if ordinal % 2 else "no",
    )


def _tokenized(name: str, generator: np.random.Generator) -> TokenizedPrompt:
    ids = generator.integers(0, len(WORDS), TOKENS)
    return TokenizedPrompt(
        prompt_id=name,
        ids=tuple(ids.tolist()),
        texts=tuple(" " + WORDS[i] for i in ids),
        roles=(Role.USER,) * TOKENS,
        messages=(0,) * TOKENS,
        masks=(TokenMask.BOS,) + (TokenMask.NONE,) * (TOKENS - 1),
        generated=(False,) * TOKENS,
    )


def _activations(ordinals: range, generator: np.random.Generator) -> pa.Table:
    rows = len(ordinals) * TOKENS
    # Densities fall as 1/rank, as those of trained SAEs do; K distinct latents a token.
    scores = generator.random((rows, 4 * K)) ** 3
    latents = np.sort((scores * D_SAE).astype(np.int32), axis=1)
    first = np.ones_like(latents, dtype=bool)
    first[:, 1:] = latents[:, 1:] != latents[:, :-1]
    keep = first & (np.cumsum(first, axis=1) <= 4 * K)
    chosen = np.argsort(np.where(keep, generator.random(keep.shape), 2.0), axis=1)[:, :K]
    latents = np.sort(np.take_along_axis(latents, chosen, axis=1), axis=1)
    odd = np.repeat(np.array(ordinals) % 2 == 1, TOKENS) & (generator.random(rows) < 0.2)
    latents[odd, -1] = np.where((latents[odd] == PLANTED).any(1), latents[odd, -1], PLANTED)
    latents = np.sort(latents, axis=1)
    numbers = np.concatenate(
        [np.arange(TOKENS, dtype=np.int64) + token_number(o, 0) for o in ordinals]
    )
    values = np.exp(generator.normal(0.5, 0.8, latents.size)).astype(np.float32)
    return pa.table(
        [pa.array(np.repeat(numbers, K)), pa.array(latents.reshape(-1)), pa.array(values)],
        schema=ACTIVATION_ROWS,
    )
