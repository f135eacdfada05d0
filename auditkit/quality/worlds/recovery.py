"""How much of a planted world a dictionary has found: every measure with what it is held against.

Explained variance and MMCS alone choose the wrong SAE, one with too many latents per token; F1
stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.statistics import measure_mean
from auditkit.quality.worlds.matching import NO_LIVE, Matching, over_floor
from auditkit.quality.worlds.parent_absorption import AbsorptionTotals
from auditkit.quality.worlds.readers import Reader
from auditkit.quality.worlds.totals import FiringTotals
from auditkit.quality.worlds.world import PlantedWorld

MEASURE_TOKENS = 32_768
MEASURE_STREAM = 2
PRECISE = 0.8
WHOLE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a dictionary is worth in a planted world; definitions are with what computes them.

    `recall` and `precision` are MMCS over features and over live latents, `…_found` the share
    above 0.9, `…_over_random` how far above random directions, as a share of the way to 1. `f1` is
    of each feature's best latent. `splitting` is the share of live latents that fire on part of
    one feature, `split_features` the share of features with two such or more. `shrinkage` is 1 for
    latents as large as what they stand for.
    """

    explained_variance: Measure
    l0: Measure
    dead_rate: Measure
    recall: Measure
    precision: Measure
    recall_found: Measure
    precision_found: Measure
    recall_over_random: Measure
    precision_over_random: Measure
    mcc: Measure
    f1: Measure
    uniqueness: Measure
    splitting: Measure
    split_features: Measure
    shrinkage: Measure
    absorption_excess: Measure
    decoder_norm_error: Measure

    def named(self) -> dict[str, Measure]:
        """Name → measure, in this order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureRecovery:
    """Feature by feature: cosine of the best latent, and F1 of its firing (NaN-free: features that
    never fired are left out of both)."""

    features: Int64[Tensor, " feature"]
    cosines: Float[Tensor, " feature"]
    f1: Float[Tensor, " feature"]


@torch.no_grad()
def measure_recovery(
    world: PlantedWorld,
    reader: Reader,
    *,
    tokens: int = MEASURE_TOKENS,
    stream: int = MEASURE_STREAM,
) -> Recovery:
    """Judge a dictionary on `tokens` fresh tokens of the world.

    A latent is live when it fired on one of them. Invariant under the order of latents, under
    scaling a latent down and its direction up, and under how the tokens are cut into batches.
    """
    totals = read_totals(world, reader, tokens=tokens, stream=stream)
    directions = reader.directions
    matching = Matching.of(world.features, directions, totals.latent_fires > 0)
    recall_floor, precision_floor = matching.floors(world.features)
    recall, precision = matching.recall(), matching.precision()
    splitting, split_features = _splitting(totals, matching)
    return Recovery(
        explained_variance=totals.reconstruction.explained_variance(),
        l0=totals.sparsity.l0(),
        dead_rate=totals.sparsity.dead_rate(),
        recall=recall,
        precision=precision,
        recall_found=matching.recall_above(),
        precision_found=matching.precision_above(),
        recall_over_random=over_floor(recall, recall_floor),
        precision_over_random=over_floor(precision, precision_floor),
        mcc=matching.mcc(),
        f1=_f1(totals, matching),
        uniqueness=matching.uniqueness(),
        splitting=splitting,
        split_features=split_features,
        shrinkage=_shrinkage(totals, matching, directions),
        absorption_excess=_absorption(world, reader, matching, tokens, stream),
        decoder_norm_error=_norm_error(directions),
    )


@torch.no_grad()
def measure_features(
    world: PlantedWorld,
    reader: Reader,
    *,
    tokens: int = MEASURE_TOKENS,
    stream: int = MEASURE_STREAM,
) -> FeatureRecovery | NotMeasured:
    """The same, feature by feature, for pictures."""
    totals = read_totals(world, reader, tokens=tokens, stream=stream)
    matching = Matching.of(world.features, reader.directions, totals.latent_fires > 0)
    if not matching.n_live:
        return NO_LIVE
    fired = (totals.feature_fires > 0).nonzero().squeeze(1)
    return FeatureRecovery(
        features=fired,
        cosines=matching.cosines.max(dim=1).values[fired],
        f1=feature_f1(totals, matching)[fired],
    )


def read_totals(world: PlantedWorld, reader: Reader, *, tokens: int, stream: int) -> FiringTotals:
    """What fires where, over fresh tokens."""
    totals = FiringTotals(n_features=world.n_features, d_sae=len(reader.directions))
    for batch in world.batches(tokens, stream=stream):
        totals.add(batch, reader.read(batch))
    return totals


def feature_f1(totals: FiringTotals, matching: Matching) -> Float[Tensor, " feature"]:
    """F1 of the firing of each feature's best latent against the feature's own (float64);
    zero where neither ever fires."""
    best = matching.best_latents()
    both = totals.both.gather(1, best.unsqueeze(1)).squeeze(1).double()
    either = (totals.feature_fires + totals.latent_fires[best]).double()
    return 2 * both / either.clamp(min=1)


def _f1(totals: FiringTotals, matching: Matching) -> Measure:
    """Mean over the features that fired."""
    if not matching.n_live:
        return NO_LIVE
    return measure_mean(feature_f1(totals, matching)[totals.feature_fires > 0].numpy())


def _splitting(totals: FiringTotals, matching: Matching) -> tuple[Measure, Measure]:
    """Latents that fire (nearly) only with the feature that they match best, and on less than
    `WHOLE` of where it does; and features with two or more of them."""
    if not matching.n_live:
        return NO_LIVE, NO_LIVE
    feature = matching.best_features()
    both = totals.both[feature, matching.live].double()
    precision = both / totals.latent_fires[matching.live]
    recall = both / totals.feature_fires[feature].clamp(min=1)
    part = (precision >= PRECISE) & (recall < WHOLE)
    parts = torch.bincount(feature[part], minlength=totals.n_features)
    seen = totals.feature_fires > 0
    return (
        Measured(value=float(part.double().mean()), n=matching.n_live),
        Measured(value=float((parts[seen] >= 2).double().mean()), n=int(seen.sum())),
    )


def _shrinkage(
    totals: FiringTotals, matching: Matching, directions: Float[Tensor, "latent d_in"]
) -> Measure:
    """Σ f·a / Σ a² over true positives of the best latents, f in units of unit directions."""
    if not matching.n_live:
        return NO_LIVE
    best = matching.best_latents().unsqueeze(1)
    lengths = directions.norm(dim=1).double()[best].squeeze(1)
    planted = float(totals.squares.gather(1, best).sum())
    if planted == 0:
        return NotMeasured("no feature's best latent ever fires with it")
    found = float((totals.products.gather(1, best).squeeze(1) * lengths).sum())
    return Measured(value=found / planted, n=int(totals.both.gather(1, best).sum()))


def _absorption(
    world: PlantedWorld, reader: Reader, matching: Matching, tokens: int, stream: int
) -> Measure:
    """Which latents stand for which features is known only after a first pass, so this is another
    over the same tokens."""
    if world.parents is None:
        return NotMeasured("this world has no hierarchy")
    if not matching.n_live:
        return NO_LIVE
    totals = AbsorptionTotals.of(world, reader.directions, matching.best_latents())
    for batch in world.batches(tokens, stream=stream):
        totals.add(batch, reader.read(batch))
    return totals.excess()


def _norm_error(directions: Float[Tensor, "latent d_in"]) -> Measure:
    """How far the norm of a latent's direction is from 1, at most."""
    errors = (directions.double().norm(dim=1) - 1).abs()
    return Measured(value=float(errors.max()), n=len(errors))
