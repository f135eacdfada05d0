"""Record a suite: model + SAE + prompts → rows of the store, resumable at every batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from auditkit.core.prompts import Suite
from auditkit.core.recordings import (
    Provenance,
    Recording,
    RecordingPlan,
    RecordingState,
    recording_id,
)
from auditkit.models import LanguageModel
from auditkit.recording.committing import CommitPolicy, Committer
from auditkit.recording.conversations import batches_of, render_suite, with_replies
from auditkit.recording.encoding import EncodedBatch, encode_batch
from auditkit.recording.rows import to_rows
from auditkit.recording.writer import BatchWriter
from auditkit.saes import SparseAutoencoder, check_fits
from auditkit.store import Store

Progress = Callable[[int, int], None]
"""Called with the prompts that are recorded or on their way into the store, and with all."""


def record_suite(
    model: LanguageModel,
    sae: SparseAutoencoder,
    suite: Suite,
    store: Store,
    plan: RecordingPlan,
    *,
    provenance: Provenance,
    progress: Progress | None = None,
    commits: CommitPolicy | None = None,
) -> Recording:
    """Record `suite` into `store` and return the complete recording.

    The recording is named by model, SAE, suite and plan. Where it is complete, nothing runs and
    nothing is written; where it was begun, the missing prompts are recorded, to the same bits as
    in an undisturbed run. With `plan.max_new_tokens` the model's own replies are generated, and
    the whole conversation is recorded from one plain forward pass.

    Raises InvalidInput for an empty suite or an SAE that does not fit the model,
    NonFiniteActivations (naming prompt and token), StoreError where the store cannot be written.
    """
    recording = describe_recording(model, sae, suite, plan, provenance)
    known = store.find_recording(recording.id)
    if known is not None and known.state is RecordingState.COMPLETE:
        return known
    check_fits(sae, model.identity)
    conversations = render_suite(model, suite, plan)
    store.begin_recording(recording)
    recording = known or recording
    done = store.done_prompts(recording.id)
    report = progress or _silent
    report(len(done), len(conversations))
    committer = Committer(store, commits or CommitPolicy())

    def write(encoded: EncodedBatch) -> None:
        committer.add(to_rows(encoded, recording, leave_out=done))
        report(len(done) + committer.prompts, len(conversations))

    with BatchWriter(finish=committer.flush) as writer:
        for number, batch in enumerate(batches_of(conversations)):
            if all(c.prompt.id in done for c in batch):
                continue
            replied = with_replies(model, batch, plan, seed=plan.seed + number)
            encoded = encode_batch(model, sae, replied)
            writer.submit(partial(write, encoded))
    store.finish_recording(recording.id)
    finished = store.find_recording(recording.id)
    assert finished is not None
    return finished


def describe_recording(
    model: LanguageModel,
    sae: SparseAutoencoder,
    suite: Suite,
    plan: RecordingPlan,
    provenance: Provenance,
) -> Recording:
    """The open recording that `record_suite` would make, named by its content."""
    return Recording(
        id=recording_id(model.identity, sae.identity, suite.digest, plan),
        model=model.identity,
        sae=sae.identity,
        suite=suite.name,
        suite_digest=suite.digest,
        plan=plan,
        provenance=provenance,
        state=RecordingState.OPEN,
    )


def _silent(done: int, total: int) -> None:
    """Report nothing."""
