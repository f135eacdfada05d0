"""The tables of a store and the Arrow schemas of what is written into them.

Only what a DuckDB file *and* a DuckLake catalogue offer: no primary keys, indexes or sequences.
Nested values are JSON text, so that they read the same from every client.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 3

TABLES: dict[str, str] = {
    "meta": "key VARCHAR, value VARCHAR",
    "recordings": (
        "recording VARCHAR, model VARCHAR, sae VARCHAR, suite VARCHAR, suite_digest VARCHAR, "
        "plan VARCHAR, provenance VARCHAR, state VARCHAR"
    ),
    "prompts": (
        "recording VARCHAR, prompt VARCHAR, ordinal INTEGER, messages VARCHAR, label VARCHAR, "
        "tags VARCHAR, split VARCHAR, source VARCHAR, licence VARCHAR"
    ),
    "tokens": (
        "recording VARCHAR, token BIGINT, prompt VARCHAR, position INTEGER, token_id INTEGER, "
        "text VARCHAR, role VARCHAR, message INTEGER, mask INTEGER, generated BOOLEAN"
    ),
    "activations": "recording VARCHAR, token BIGINT, latent INTEGER, value FLOAT",
    "coverage": "recording VARCHAR, sae VARCHAR, first_token BIGINT, last_token BIGINT",
    "directions": (
        "recording VARCHAR, direction VARCHAR, latent INTEGER, first_token BIGINT, "
        "last_token BIGINT"
    ),
    "vectors": "recording VARCHAR, prompt VARCHAR, role VARCHAR, pool VARCHAR, vector FLOAT[]",
    "latent_stats": (
        "reference VARCHAR, sae VARCHAR, latent INTEGER, fires BIGINT, tokens BIGINT, "
        "density DOUBLE, mean DOUBLE, sd DOUBLE, max DOUBLE, q99 DOUBLE, q9999 DOUBLE"
    ),
    "locks": "lock VARCHAR, model VARCHAR, sae VARCHAR, document VARCHAR",
    "matches": (
        "recording VARCHAR, lock VARCHAR, rule VARCHAR, rule_digest VARCHAR, prompt VARCHAR, "
        "frame INTEGER, truth VARCHAR, reason VARCHAR, token BIGINT, score DOUBLE, "
        "score_n BIGINT, score_reason VARCHAR, filtered_by VARCHAR"
    ),
    "correlations": (
        "lock VARCHAR, correlation VARCHAR, correlation_digest VARCHAR, suite VARCHAR, "
        "member_group VARCHAR, truth VARCHAR, reason VARCHAR, document VARCHAR"
    ),
    "trials": (
        "confirmation VARCHAR, arm VARCHAR, control INTEGER, op VARCHAR, dose DOUBLE, "
        "prompt VARCHAR, metric VARCHAR, outcome DOUBLE, relative_norm DOUBLE"
    ),
    "confirmations": (
        "confirmation VARCHAR, lock VARCHAR, rule VARCHAR, verdict VARCHAR, document VARCHAR"
    ),
    "findings": (
        "fp VARCHAR, recording VARCHAR, lock VARCHAR, rule VARCHAR, state VARCHAR, document VARCHAR"
    ),
}

PROMPT_ROWS = pa.schema(
    [
        ("prompt", pa.string()),
        ("ordinal", pa.int32()),
        ("messages", pa.string()),
        ("label", pa.string()),
        ("tags", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)
TOKEN_ROWS = pa.schema(
    [
        ("token", pa.int64()),
        ("prompt", pa.string()),
        ("position", pa.int32()),
        ("token_id", pa.int32()),
        ("text", pa.string()),
        ("role", pa.string()),
        ("message", pa.int32()),
        ("mask", pa.int32()),
        ("generated", pa.bool_()),
    ]
)
ACTIVATION_ROWS = pa.schema(
    [("token", pa.int64()), ("latent", pa.int32()), ("value", pa.float32())]
)
COVERAGE_ROWS = pa.schema([("first_token", pa.int64()), ("last_token", pa.int64())])
VECTOR_ROWS = pa.schema(
    [
        ("prompt", pa.string()),
        ("role", pa.string()),
        ("pool", pa.string()),
        ("vector", pa.list_(pa.float32())),
    ]
)
TRIAL_ROWS = pa.schema(
    [
        ("confirmation", pa.string()),
        ("arm", pa.string()),
        ("control", pa.int32()),
        ("op", pa.string()),
        ("dose", pa.float64()),
        ("prompt", pa.string()),
        ("metric", pa.string()),
        ("outcome", pa.float64()),
        ("relative_norm", pa.float64()),
    ]
)
MATCH_ROWS = pa.schema(
    [
        ("recording", pa.string()),
        ("rule", pa.string()),
        ("rule_digest", pa.string()),
        ("prompt", pa.string()),
        ("frame", pa.int32()),
        ("truth", pa.string()),
        ("reason", pa.string()),
        ("token", pa.int64()),
        ("score", pa.float64()),
        ("score_n", pa.int64()),
        ("score_reason", pa.string()),
        ("filtered_by", pa.string()),
    ]
)
