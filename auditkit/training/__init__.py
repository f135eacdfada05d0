"""Make SAEs: harvest activations, shuffle them, train a TopK SAE with a sparse step."""

from __future__ import annotations

from auditkit.training.activation_writer import ActivationWriter
from auditkit.training.activations import ActivationMeta, ActivationStore
from auditkit.training.harvest import harvest_activations
from auditkit.training.plan import TrainPlan
from auditkit.training.progress import HarvestEvent, HarvestProgress, TrainEvent, TrainProgress
from auditkit.training.random_model import with_random_weights
from auditkit.training.trainer import train_sae

__all__ = [
    "ActivationMeta",
    "ActivationStore",
    "ActivationWriter",
    "HarvestEvent",
    "HarvestProgress",
    "TrainEvent",
    "TrainPlan",
    "TrainProgress",
    "harvest_activations",
    "train_sae",
    "with_random_weights",
]
