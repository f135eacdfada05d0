"""Record what a model does on a suite: tokens, SAE latents and pooled activations in the store."""

from __future__ import annotations

from auditkit.recording.committing import CommitPolicy
from auditkit.recording.directions import complete_directions
from auditkit.recording.record import Progress, describe_recording, record_suite
from auditkit.recording.reference_norm import measure_reference_norm

__all__ = [
    "CommitPolicy",
    "Progress",
    "complete_directions",
    "describe_recording",
    "measure_reference_norm",
    "record_suite",
]
