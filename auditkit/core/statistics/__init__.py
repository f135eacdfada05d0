"""Statistics that several stages share: intervals, exact tests, and corrections for many tests."""

from auditkit.core.statistics.auroc import auroc
from auditkit.core.statistics.binomial import (
    binomial_rate,
    binomial_upper_bound,
    frames_needed,
    largest_exceedances,
)
from auditkit.core.statistics.bootstrap import bca_interval, measure_mean
from auditkit.core.statistics.equivalence import (
    equivalence_p_value,
    more_observations_to_decide,
    sample_size_for_mean,
)
from auditkit.core.statistics.multiplicity import (
    MOST_CONTROLS,
    benjamini_hochberg,
    controls_needed,
)
from auditkit.core.statistics.permutation import Alternative, rank_p_value, sign_flip_p_value
from auditkit.core.statistics.trend import mean_spearman, page_trend_p

__all__ = [
    "MOST_CONTROLS",
    "Alternative",
    "auroc",
    "bca_interval",
    "benjamini_hochberg",
    "binomial_rate",
    "binomial_upper_bound",
    "controls_needed",
    "equivalence_p_value",
    "frames_needed",
    "largest_exceedances",
    "mean_spearman",
    "measure_mean",
    "more_observations_to_decide",
    "page_trend_p",
    "rank_p_value",
    "sample_size_for_mean",
    "sign_flip_p_value",
]
