"""A small recording that several processes can run: for tests that kill it on the way."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import duckdb
import torch

from auditkit.core.prompts import Message, Prompt, Role, Suite
from auditkit.core.recordings import Provenance, Recording, RecordingPlan
from auditkit.models import LanguageModel
from auditkit.recording import CommitPolicy, conversations, record_suite
from auditkit.saes import SparseAutoencoder
from auditkit.store import open_store
from tests.tiny import WORDS, tiny_model
from tests.tiny_sae import tiny_sae

PROVENANCE = Provenance(auditkit="0.1.0", libraries=(), git_commit=None, git_dirty=None)
PLAN = RecordingPlan(max_tokens=64, max_new_tokens=4, temperature=0.7, seed=3)
SMALL_BATCH = 256
SMALL_COMMITS = CommitPolicy(activations=3_000)
"""Two batches or so: a kill then finds committed batches, held ones and one under way."""


def small_suite(prompts: int = 40, seed: int = 0) -> Suite:
    """Chats and plain texts of very different lengths."""
    generator = random.Random(seed)

    def words() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, 40)))

    return Suite(
        name="small",
        title="Small",
        source="made for a test",
        licence="Apache-2.0",
        prompts=tuple(
            Prompt(
                id=f"p{i}",
                messages=(
                    (Message(role=Role.TEXT, content=words()),)
                    if i % 5 == 0
                    else (Message(role=Role.USER, content=words()),)
                ),
                label="even" if i % 2 == 0 else None,
            )
            for i in range(prompts)
        ),
    )


def run(
    path: str,
    model: LanguageModel | None = None,
    sae: SparseAutoencoder | None = None,
    plan: RecordingPlan = PLAN,
    commits: CommitPolicy = SMALL_COMMITS,
) -> Recording:
    """Record the small suite into `path` in small batches."""
    torch.set_num_threads(1)
    conversations.BATCH_TOKENS = SMALL_BATCH
    model, sae, suite = model or tiny_model(), sae or tiny_sae(), small_suite()
    with open_store(path) as store:
        return record_suite(model, sae, suite, store, plan, provenance=PROVENANCE, commits=commits)


def content(path: Path) -> dict[str, str]:
    """For each table, a digest over every bit of every row, in sorted order."""
    out: dict[str, str] = {}
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = [
            r[0] for r in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        for table in sorted(tables):
            rows = connection.execute(f"SELECT * FROM {table} ORDER BY ALL").to_arrow_table()
            digest = hashlib.sha256(f"{rows.num_rows}".encode())
            for column in rows.combine_chunks().itercolumns():
                digest.update(repr(column.to_pylist()).encode())
            out[table] = digest.hexdigest()
    return out


if __name__ == "__main__":
    print(run(sys.argv[1]).state.value, flush=True)
