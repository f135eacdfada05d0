"""Judge an SAE: reconstruction, sparsity, the model's loss on it, and its directions' geometry."""

from __future__ import annotations

from auditkit.quality.fidelity import Fidelity, FidelityReport, measure_fidelity
from auditkit.quality.floors import floor_measures, measure_pca_floor
from auditkit.quality.geometry import Interference, measure_interference
from auditkit.quality.loss import LossReport, SplicedLoss, measure_loss
from auditkit.quality.reconstruction import ReconstructionTotals
from auditkit.quality.sparsity import DensityHistogram, SparsityTotals
from auditkit.quality.stability import LatentDirections, SeedStability, measure_stability

__all__ = [
    "DensityHistogram",
    "Fidelity",
    "FidelityReport",
    "Interference",
    "LatentDirections",
    "LossReport",
    "ReconstructionTotals",
    "SeedStability",
    "SparsityTotals",
    "SplicedLoss",
    "floor_measures",
    "measure_fidelity",
    "measure_interference",
    "measure_loss",
    "measure_pca_floor",
    "measure_stability",
]
