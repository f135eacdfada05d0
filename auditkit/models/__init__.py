"""Language models: load, render, capture, edit, generate. The only room with transformers."""

from __future__ import annotations

from auditkit.models.batches import TokenBatch, length_sorted_batches, pad
from auditkit.models.hooks import Edit
from auditkit.models.language_model import LanguageModel
from auditkit.models.loading import load_model
from auditkit.models.prefix import Prefix

__all__ = [
    "Edit",
    "LanguageModel",
    "Prefix",
    "TokenBatch",
    "length_sorted_batches",
    "load_model",
    "pad",
]
