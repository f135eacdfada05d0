"""Shared set-up: shapes and types of the tensor rooms are checked in every test run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TENSOR_ROOMS = [
    "tensors",
    "models",
    "saes",
    "recording",
    "training",
    "quality",
    "confirm",
    "monitor",
    "serve.decoding",
]
install_import_hook([f"auditkit.{room}" for room in TENSOR_ROOMS], "beartype.beartype")

# The tests' tensors are tiny: threads would only wait for one another.
torch.set_num_threads(1)
