"""Make SAEs: harvest activations, shuffle them, train by one of several objectives."""

from __future__ import annotations

from auditkit.training.activations.buffer import Buffer, BufferPlan
from auditkit.training.activations.harvest import harvest_activations
from auditkit.training.activations.store import ActivationMeta, ActivationStore, check_aligned
from auditkit.training.activations.writer import ActivationWriter
from auditkit.training.distributed.mesh import ALONE, Mesh, join_processes
from auditkit.training.objectives import objectives
from auditkit.training.objectives.batch_topk import BatchTopK
from auditkit.training.objectives.gated import Gated
from auditkit.training.objectives.jumprelu import JumpReLU
from auditkit.training.objectives.matryoshka import MatryoshkaBatchTopK
from auditkit.training.objectives.relu_l1 import ReluL1
from auditkit.training.objectives.topk import TopK
from auditkit.training.plan import Objective, TrainPlan, is_plan_of_card
from auditkit.training.progress import (
    HarvestEvent,
    HarvestProgress,
    TrainEvent,
    TrainProgress,
    TrainStart,
)
from auditkit.training.random_model import with_random_weights
from auditkit.training.repair import Repaired, RepairForm, RepairPlan, repair_sae
from auditkit.training.trainer import train_sae, train_transcoder

__all__ = [
    "ALONE",
    "ActivationMeta",
    "ActivationStore",
    "ActivationWriter",
    "BatchTopK",
    "Buffer",
    "BufferPlan",
    "Gated",
    "HarvestEvent",
    "HarvestProgress",
    "JumpReLU",
    "MatryoshkaBatchTopK",
    "Mesh",
    "Objective",
    "ReluL1",
    "RepairForm",
    "RepairPlan",
    "Repaired",
    "TopK",
    "TrainEvent",
    "TrainPlan",
    "TrainProgress",
    "TrainStart",
    "check_aligned",
    "harvest_activations",
    "is_plan_of_card",
    "join_processes",
    "objectives",
    "repair_sae",
    "train_sae",
    "train_transcoder",
    "with_random_weights",
]
