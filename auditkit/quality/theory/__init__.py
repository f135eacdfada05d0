"""The theory of superposition and of sparse recovery, as far as an SAE rests on them."""

from __future__ import annotations

from auditkit.quality.theory.alternating import (
    AlternatingPlan,
    LearnedDictionary,
    learn_dictionary,
)
from auditkit.quality.theory.code_gap import Code, CodeScore, oracle_codes, score_codes
from auditkit.quality.theory.coherence import (
    babel,
    cosine_blocks,
    moment_bound,
    mutual_coherence,
    unit_rows,
    welch_bound,
)
from auditkit.quality.theory.interference import (
    ONE,
    SIGN,
    UNIFORM,
    Amplitude,
    draw_codes,
    expected_interference,
    least_interference,
    random_frame,
    simulate_interference,
    uniform_interference,
)
from auditkit.quality.theory.lasso import lasso_codes
from auditkit.quality.theory.packed_frames import PackedFrame, pack_tightly
from auditkit.quality.theory.packing import (
    PackingBounds,
    asymptotic_coherence,
    packing_bounds,
    pair_tail,
    random_coherence,
    random_coherence_quantile,
)
from auditkit.quality.theory.phase import (
    Candidate,
    Outcome,
    best_candidate,
    candidates,
    outcome_of,
    superposition_threshold,
)
from auditkit.quality.theory.phase_diagram import PhaseCell, PhasePlan, agreement, map_phases
from auditkit.quality.theory.pursuit import (
    orthogonal_matching_pursuit,
    refit_codes,
    threshold_codes,
)
from auditkit.quality.theory.recovery import (
    CANDES_LIMIT,
    IsometryBracket,
    RecoveryGuarantees,
    Verdict,
    bracket_isometry,
    exact_recovery_coefficient,
    largest_recoverable_k,
    recovery_guarantees,
)
from auditkit.quality.theory.toy_models import (
    Packing,
    ToyModels,
    ToyPlan,
    measure_packing,
    train_toy_models,
)

__all__ = [
    "CANDES_LIMIT",
    "ONE",
    "SIGN",
    "UNIFORM",
    "AlternatingPlan",
    "Amplitude",
    "Candidate",
    "Code",
    "CodeScore",
    "IsometryBracket",
    "LearnedDictionary",
    "Outcome",
    "PackedFrame",
    "Packing",
    "PackingBounds",
    "PhaseCell",
    "PhasePlan",
    "RecoveryGuarantees",
    "ToyModels",
    "ToyPlan",
    "Verdict",
    "agreement",
    "asymptotic_coherence",
    "babel",
    "best_candidate",
    "bracket_isometry",
    "candidates",
    "cosine_blocks",
    "draw_codes",
    "exact_recovery_coefficient",
    "expected_interference",
    "largest_recoverable_k",
    "lasso_codes",
    "learn_dictionary",
    "least_interference",
    "map_phases",
    "measure_packing",
    "moment_bound",
    "mutual_coherence",
    "oracle_codes",
    "orthogonal_matching_pursuit",
    "outcome_of",
    "pack_tightly",
    "packing_bounds",
    "pair_tail",
    "random_coherence",
    "random_coherence_quantile",
    "random_frame",
    "recovery_guarantees",
    "refit_codes",
    "score_codes",
    "simulate_interference",
    "superposition_threshold",
    "threshold_codes",
    "train_toy_models",
    "uniform_interference",
    "unit_rows",
    "welch_bound",
]
