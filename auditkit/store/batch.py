"""The rows of some whole prompts, as they are committed: together or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from auditkit.core.errors import NonFiniteActivations
from auditkit.core.fingerprint import to_plain
from auditkit.core.prompts import Prompt
from auditkit.core.tokens import TokenizedPrompt
from auditkit.store.schema import (
    ACTIVATION_ROWS,
    COVERAGE_ROWS,
    PROMPT_ROWS,
    TOKEN_ROWS,
    VECTOR_ROWS,
)

TOKENS_PER_PROMPT = 2**20


def token_number(ordinal: int, position: int) -> int:
    """A token's number in its recording: ordinal · 2²⁰ + position, whatever was committed first."""
    return ordinal * TOKENS_PER_PROMPT + position


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """Arrow tables of whole prompts: schemas PROMPT_ROWS, TOKEN_ROWS, ACTIVATION_ROWS (ordered by
    token, latent; non-zero finite values), COVERAGE_ROWS and VECTOR_ROWS; `sae` is the digest of
    the SAE that encoded them.
    """

    recording: str
    sae: str
    prompts: pa.Table
    tokens: pa.Table
    activations: pa.Table
    coverage: pa.Table
    vectors: pa.Table

    def __post_init__(self) -> None:
        for name, schema in (
            ("prompts", PROMPT_ROWS),
            ("tokens", TOKEN_ROWS),
            ("activations", ACTIVATION_ROWS),
            ("coverage", COVERAGE_ROWS),
            ("vectors", VECTOR_ROWS),
        ):
            table: pa.Table = getattr(self, name)
            if not table.schema.equals(schema):
                raise ValueError(f"{name} has the schema {table.schema}, expected {schema}")
        if not np.isfinite(self.activations["value"].to_numpy()).all():
            raise NonFiniteActivations(
                f"a latent of recording {self.recording} is NaN or infinite; nothing was stored"
            )

    @classmethod
    def joined(cls, parts: Sequence[RecordedBatch]) -> RecordedBatch:
        """The rows of all parts, which belong to one recording and SAE; ValueError otherwise."""
        if len({(part.recording, part.sae) for part in parts}) != 1:
            raise ValueError("batches of one recording are joined, and these are of several")
        tables = {
            name: pa.concat_tables([getattr(part, name) for part in parts])
            for name in ("prompts", "tokens", "activations", "coverage", "vectors")
        }
        return cls(recording=parts[0].recording, sae=parts[0].sae, **tables)


def prompt_rows(prompts: Iterable[tuple[int, Prompt]]) -> pa.Table:
    """Rows of the table `prompts` from (ordinal in the suite, prompt)."""
    rows = [
        {
            "prompt": p.id,
            "ordinal": ordinal,
            "messages": json.dumps(to_plain(p.messages), ensure_ascii=False),
            "label": p.label,
            "tags": json.dumps(list(p.tags), ensure_ascii=False),
            "split": None if p.split is None else p.split.value,
            "source": p.source,
            "licence": p.licence,
        }
        for ordinal, p in prompts
    ]
    return pa.Table.from_pylist(rows, schema=PROMPT_ROWS)


def token_rows(prompts: Iterable[tuple[int, TokenizedPrompt]]) -> pa.Table:
    """Rows of the table `tokens` from (ordinal in the suite, tokenized prompt)."""
    parts = [_tokens_of(ordinal, prompt) for ordinal, prompt in prompts]
    return pa.concat_tables(parts) if parts else TOKEN_ROWS.empty_table()


def coverage_rows(prompts: Iterable[tuple[int, int]]) -> pa.Table:
    """One inclusive range per prompt from (ordinal in the suite, number of tokens)."""
    ranges = [(token_number(o, 0), token_number(o, n - 1)) for o, n in prompts if n > 0]
    return pa.Table.from_pydict(
        {"first_token": [a for a, _ in ranges], "last_token": [b for _, b in ranges]},
        schema=COVERAGE_ROWS,
    )


def _tokens_of(ordinal: int, prompt: TokenizedPrompt) -> pa.Table:
    n = len(prompt)
    positions = np.arange(n, dtype=np.int32)
    return pa.Table.from_pydict(
        {
            "token": positions.astype(np.int64) + token_number(ordinal, 0),
            "prompt": [prompt.prompt_id] * n,
            "position": positions,
            "token_id": list(prompt.ids),
            "text": list(prompt.texts),
            "role": [role.value for role in prompt.roles],
            "message": list(prompt.messages),
            "mask": [int(mask) for mask in prompt.masks],
            "generated": list(prompt.generated),
        },
        schema=TOKEN_ROWS,
    )
