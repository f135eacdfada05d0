"""Judge an SAE: reconstruction, sparsity, the model's loss on it, its directions' geometry, what
its latents do to logits and tell of labelled text."""

from __future__ import annotations

from auditkit.quality.ablation_sparsity import (
    AblationSparsity,
    LogitEffect,
    effective_number,
    measure_ablation_sparsity,
)
from auditkit.quality.distributions import Histogram, TokenDistributions
from auditkit.quality.fidelity import Fidelity, FidelityReport, densities_of, measure_fidelity
from auditkit.quality.floors import (
    Dictionary,
    Floor,
    NeuronBasis,
    PrincipalComponents,
    RandomDictionary,
    directions_of,
    fit_floors,
)
from auditkit.quality.geometry import Interference, measure_interference
from auditkit.quality.intervals import piece_numbers
from auditkit.quality.loss import LossReport, SplicedLoss, measure_loss
from auditkit.quality.reconstruction import ReconstructionTotals
from auditkit.quality.sparse_probing import (
    LabelledFeatures,
    Probe,
    majority_accuracy,
    mean_latents,
    probe_dense,
    probe_sparse,
)
from auditkit.quality.sparsity import DensityHistogram, SparsityTotals
from auditkit.quality.stability import LatentDirections, SeedStability, measure_stability

__all__ = [
    "AblationSparsity",
    "DensityHistogram",
    "Dictionary",
    "Fidelity",
    "FidelityReport",
    "Floor",
    "Histogram",
    "Interference",
    "LabelledFeatures",
    "LatentDirections",
    "LogitEffect",
    "LossReport",
    "NeuronBasis",
    "PrincipalComponents",
    "Probe",
    "RandomDictionary",
    "ReconstructionTotals",
    "SeedStability",
    "SparsityTotals",
    "SplicedLoss",
    "TokenDistributions",
    "densities_of",
    "directions_of",
    "effective_number",
    "fit_floors",
    "majority_accuracy",
    "mean_latents",
    "measure_ablation_sparsity",
    "measure_fidelity",
    "measure_interference",
    "measure_loss",
    "measure_stability",
    "piece_numbers",
    "probe_dense",
    "probe_sparse",
]
