"""The objectives that SAEs are trained by, one file each."""

from __future__ import annotations

from typing import Any

from auditkit.training.objectives.batch_topk import BatchTopK
from auditkit.training.objectives.gated import Gated
from auditkit.training.objectives.jumprelu import JumpReLU
from auditkit.training.objectives.matryoshka import MatryoshkaBatchTopK
from auditkit.training.objectives.relu_l1 import ReluL1
from auditkit.training.objectives.topk import TopK


def objectives() -> dict[str, type[Any]]:
    """The registry: every `Objective` under the name that train.yaml and cards give it."""
    return {
        "topk": TopK,
        "batch_topk": BatchTopK,
        "matryoshka_batch_topk": MatryoshkaBatchTopK,
        "jumprelu": JumpReLU,
        "relu_l1": ReluL1,
        "gated": Gated,
    }
