"""Fidelity of an SAE on held-out activations: reconstruction and sparsity, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.measured import Measure, NotMeasured
from auditkit.quality.distributions import DistributionTotals, TokenDistributions
from auditkit.quality.floors import Dictionary
from auditkit.quality.intervals import Floats, ratio, with_interval
from auditkit.quality.reconstruction import ReconstructionTotals
from auditkit.quality.sparsity import DensityHistogram, SparsityTotals
from auditkit.quality.token_sums import Column, TokenSums

HIGH_NORM_FACTOR = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Measures over one set of tokens; shares and densities are fractions, L0 is a count.

    `norm_ratio`, `relative_error` and `cosine` are means over tokens of ‖x̂‖/‖x‖, ‖x−x̂‖/‖x‖ and
    cos(x, x̂).
    """

    explained_variance: Measure
    explained_variance_uncentred: Measure
    relative_bias: Measure
    norm_ratio: Measure
    relative_error: Measure
    cosine: Measure
    l0: Measure
    dead_rate: Measure
    share_above_1_percent: Measure
    share_above_10_percent: Measure
    densities: DensityHistogram | NotMeasured
    distributions: TokenDistributions | NotMeasured


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityReport:
    """The same measures over every token, and without those of norm above `norm_limit`."""

    every_token: Fidelity
    without_high_norm: Fidelity | NotMeasured
    norm_limit: float | None
    high_norm_tokens: int


@dataclass(slots=True)
class _Totals:
    """Everything summed over tokens; per piece of text as well, where pieces are known."""

    sparsity: SparsityTotals
    reconstruction: ReconstructionTotals = field(default_factory=ReconstructionTotals)
    tokens: TokenSums = field(default_factory=TokenSums)
    spread: DistributionTotals = field(default_factory=DistributionTotals)

    def add(self, dictionary: Dictionary, x: Tensor, pieces: Tensor | None) -> None:
        latents = dictionary.encode(x)
        x_hat = dictionary.decode(latents, x)
        if not self.sparsity.d_sae:
            self.sparsity = SparsityTotals(latents.d_sae)
        self.reconstruction.add(x, x_hat)
        self.sparsity.add(latents)
        self.spread.add(self.tokens.add(x, x_hat, latents.counts(), pieces))

    def fidelity(self) -> Fidelity:
        r, s, t = self.reconstruction, self.sparsity, self.tokens
        sums = t.by_piece(r.mean)

        def spanned(measure: Measure, above: Column, below: Column) -> Measure:
            return with_interval(measure, sums, ratio(above, below))

        def explained(measure: Measure, below: Column) -> Measure:
            def statistic(totals: Floats) -> Floats:
                return np.asarray(1 - totals[:, Column.ERROR] / totals[:, below])

            return with_interval(measure, sums, statistic)

        return Fidelity(
            explained_variance=explained(r.explained_variance(), Column.DEVIATION),
            explained_variance_uncentred=explained(r.explained_variance_uncentred(), Column.NORM),
            relative_bias=spanned(r.relative_bias(), Column.NORM_HAT, Column.INNER),
            norm_ratio=spanned(t.mean(Column.NORM_RATIO), Column.NORM_RATIO, Column.NON_ZERO),
            relative_error=spanned(
                t.mean(Column.RELATIVE_ERROR), Column.RELATIVE_ERROR, Column.NON_ZERO
            ),
            cosine=spanned(t.mean(Column.COSINE), Column.COSINE, Column.NON_ZERO),
            l0=spanned(s.l0(), Column.FIRES, Column.TOKENS),
            dead_rate=s.dead_rate(),
            share_above_1_percent=s.share_above(0.01),
            share_above_10_percent=s.share_above(0.1),
            densities=s.histogram(),
            distributions=self.spread.distributions(),
        )


def measure_fidelity(
    dictionary: Dictionary,
    batches: Iterable[Float[Tensor, "_ d_in"]],
    *,
    pieces: Iterable[Int64[Tensor, " _"]] | None = None,
    reference_norm: float | None = None,
    high_norm_factor: float = HIGH_NORM_FACTOR,
) -> FidelityReport:
    """Measure an SAE or a floor on activations in the model's own units, BOS and padding left out.

    Tokens of norm above `high_norm_factor` × `reference_norm` (the median norm of reference text)
    are counted in `every_token` and left out of `without_high_norm`; without a reference norm the
    latter is NotMeasured. `pieces` number, batch by batch, the piece of text of each token: with
    them measures have intervals. Raises NonFiniteActivations where an x is NaN or infinite.
    """
    limit = None if reference_norm is None else high_norm_factor * reference_norm
    every, kept = (_Totals(SparsityTotals(0)) for _ in range(2))
    numbers = None if pieces is None else iter(pieces)
    high = 0
    for x in batches:
        own = None if numbers is None else next(numbers)
        every.add(dictionary, x, own)
        if limit is not None:
            below = x.norm(dim=1) <= limit
            above = int((~below).sum())
            high += above
            kept.add(dictionary, x[below], None if own is None else own[below])
    found = every.fidelity()
    without: Fidelity | NotMeasured = NotMeasured(
        "no reference norm was given, so no token counts as high-norm"
    )
    if limit is not None:
        without = kept.fidelity() if high else found
    return FidelityReport(
        every_token=found, without_high_norm=without, norm_limit=limit, high_norm_tokens=high
    )


def densities_of(
    dictionary: Dictionary, batches: Iterable[Float[Tensor, "_ d_in"]]
) -> Float[Tensor, " d_sae"]:
    """P(f ≠ 0) per latent, float64."""
    totals: SparsityTotals | None = None
    for x in batches:
        latents = dictionary.encode(x)
        totals = totals or SparsityTotals(latents.d_sae)
        totals.add(latents)
    return torch.zeros(0, dtype=torch.float64) if totals is None else totals.densities
