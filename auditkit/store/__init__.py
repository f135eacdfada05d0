"""Recordings and conclusions in a DuckDB file: schema, migrations, writing, reading. No torch."""

from __future__ import annotations

from auditkit.store.batch import (
    TOKENS_PER_PROMPT,
    RecordedBatch,
    coverage_rows,
    prompt_rows,
    token_number,
    token_rows,
)
from auditkit.store.compiled import run_compiled
from auditkit.store.directions import DirectionBatch
from auditkit.store.latent_stats import reference_name
from auditkit.store.opening import open_store
from auditkit.store.schema import ACTIVATION_ROWS, COVERAGE_ROWS, SCHEMA_VERSION, VECTOR_ROWS
from auditkit.store.store import MASKED_IN_STATS, Store

__all__ = [
    "ACTIVATION_ROWS",
    "COVERAGE_ROWS",
    "MASKED_IN_STATS",
    "SCHEMA_VERSION",
    "TOKENS_PER_PROMPT",
    "VECTOR_ROWS",
    "DirectionBatch",
    "RecordedBatch",
    "Store",
    "coverage_rows",
    "open_store",
    "prompt_rows",
    "reference_name",
    "run_compiled",
    "token_number",
    "token_rows",
]
