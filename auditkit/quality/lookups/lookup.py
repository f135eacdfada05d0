"""How far a table of tokens predicts a unit: interpretability without a judge.

A unit that means "this token", "the token after that one" or "this pair" is predicted by a table
from n-grams to mean activations that was made on other documents. Units with a wider meaning are
not, so a score is a floor of a unit's interpretability and a test of one kind of meaning alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput, NonFiniteActivations
from auditkit.quality.lookups.ngram_keys import Level, bigram_levels, frequency_levels, token_levels
from auditkit.quality.lookups.ngram_text import NgramText

BACK_OFF = 1.0
_UNITS_AT_A_TIME = 64
_DECIMALS = 12


class LookupKind(StrEnum):
    """What an activation is looked up by; the bigram backs off to the current token, and all to
    the overall mean. `FREQUENCY` knows only how common the current token is: a floor."""

    CURRENT = "current token"
    PREVIOUS = "previous token"
    BIGRAM = "bigram"
    FREQUENCY = "token frequency"


LOOKUPS = (LookupKind.CURRENT, LookupKind.PREVIOUS, LookupKind.BIGRAM)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookupScores:
    """Scores of the units that fire in both halves; `units` are their columns, in rising order.

    `f1` is that of predicting whether a unit fires, `correlation` Pearson's between predicted and
    actual activation, both on the half that was not fitted on. `fitted_f1` is the F1 on the fitted
    half, each document predicted from the others: what a choice between lookups may look at.
    `always` is the F1 of calling every token firing, 2p/(1+p) for a share p that fires.
    """

    units: Int64[Tensor, " scored"]
    f1: Float64[Tensor, " scored"]
    correlation: Float64[Tensor, " scored"]
    fitted_f1: Float64[Tensor, " scored"]
    always: Float64[Tensor, " scored"]


@torch.no_grad()
def measure_lookup(
    activations: Float[Tensor, "token unit"],
    text: NgramText,
    kind: LookupKind,
    *,
    back_off: float = BACK_OFF,
) -> LookupScores:
    """Score units by a lookup fitted on one half of `text` and tested on the other.

    The prediction for an n-gram g seen n times is (Σ activations + β·prediction of the coarser
    n-gram) / (n + β), β = `back_off` observations, down to the mean over all tokens (interpolated
    back-off, after MacKay & Peto 1995). A token is called firing above the cut that is best for F1
    on the fitted half, where each document is predicted from the other documents alone. The
    comparison of units by what text predicts of them is Cunningham et al. 2023's, with the table
    in the judge's place. Invariant to a unit's scale, to the order of tokens and of units.

    Raises InvalidInput where rows and tokens differ in number or activations are negative,
    NonFiniteActivations where one is NaN or infinite.
    """
    _check(activations, text)
    levels = levels_of(text, kind)
    parts = [
        _score(part, text.fitted, levels, back_off, start)
        for start, part in _columns(activations, _UNITS_AT_A_TIME)
    ]
    return LookupScores(
        units=torch.cat([p.units for p in parts]),
        f1=torch.cat([p.f1 for p in parts]),
        correlation=torch.cat([p.correlation for p in parts]),
        fitted_f1=torch.cat([p.fitted_f1 for p in parts]),
        always=torch.cat([p.always for p in parts]),
    )


def levels_of(text: NgramText, kind: LookupKind) -> tuple[Level, ...]:
    """The keys that `kind` looks up by, the coarsest first."""
    match kind:
        case LookupKind.CURRENT:
            return token_levels(text.current, text)
        case LookupKind.PREVIOUS:
            return token_levels(text.previous, text)
        case LookupKind.BIGRAM:
            return bigram_levels(text)
        case LookupKind.FREQUENCY:
            return frequency_levels(text)


def shuffle_activations(
    activations: Float[Tensor, "token unit"], text: NgramText, *, seed: int = 0
) -> Float[Tensor, "token unit"]:
    """The activations dealt out anew among the tokens of each half: the floor of every lookup.

    Densities, values and the units' joint firing stay as they were.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.empty_like(activations)
    for half in (text.fitted, ~text.fitted):
        rows = half.nonzero().squeeze(1)
        shuffled[rows] = activations[rows[torch.randperm(len(rows), generator=generator)]]
    return shuffled


def _columns(activations: Tensor, size: int) -> list[tuple[int, Tensor]]:
    starts = range(0, activations.shape[1], size)
    return [(start, activations[:, start : start + size]) for start in starts]


def _score(
    activations: Tensor,
    fitted: Tensor,
    levels: tuple[Level, ...],
    back_off: float,
    first: int,
) -> LookupScores:
    fires = activations > 0
    both = fires[fitted].any(0) & fires[~fitted].any(0)
    y = activations[:, both].double()
    y = y / y.amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    held, predicted = predict(y[fitted], levels, back_off)
    cut, fitted_f1 = best_cut(held, y[fitted] > 0)
    actual = y[~fitted]
    share = (actual > 0).double().mean(0)
    return LookupScores(
        units=both.nonzero().squeeze(1) + first,
        f1=f1_score(predicted >= cut, actual > 0),
        correlation=_correlation(predicted, actual),
        fitted_f1=fitted_f1,
        always=2 * share / (1 + share),
    )


def predict(
    y: Float64[Tensor, "fitted unit"], levels: tuple[Level, ...], back_off: float
) -> tuple[Float64[Tensor, "fitted unit"], Float64[Tensor, "tested unit"]]:
    """Predicted activations: of each fitted token from the other documents, and of the tested.

    The overall mean is that of all fitted tokens in both.
    """
    mean = y.mean(0)
    held = mean.expand(len(y), -1)
    tested = mean.expand(len(levels[0].tested), -1)
    for level in levels:
        sums = y.new_zeros(level.keys + 1, y.shape[1]).index_add_(0, level.fitted, y)
        own = y.new_zeros(level.pairs, y.shape[1]).index_add_(0, level.pair, y)
        others = (level.counts[level.fitted] - level.pair_counts[level.pair]).unsqueeze(1)
        held = (sums[level.fitted] - own[level.pair] + back_off * held) / (others + back_off)
        counts = level.counts[level.tested].unsqueeze(1)
        tested = (sums[level.tested] + back_off * tested) / (counts + back_off)
    # Equal predictions must stay equal whatever order their sums were taken in.
    return held.round(decimals=_DECIMALS), tested.round(decimals=_DECIMALS)


def best_cut(
    predicted: Float64[Tensor, "token unit"], fires: Bool[Tensor, "token unit"]
) -> tuple[Float64[Tensor, " unit"], Float64[Tensor, " unit"]]:
    """Per unit the cut c for which `predicted >= c` has the highest F1, and that F1."""
    ranked, order = predicted.sort(dim=0, descending=True)
    hits = fires.gather(0, order).double().cumsum(0)
    called = torch.arange(1, len(ranked) + 1, dtype=torch.float64).unsqueeze(1)
    f1 = 2 * hits / (called + hits[-1])
    # A cut takes all tokens of one prediction or none.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
    best, at = f1.max(0)
    return ranked.gather(0, at.unsqueeze(0)).squeeze(0), best


def f1_score(
    called: Bool[Tensor, "token unit"], fires: Bool[Tensor, "token unit"]
) -> Float64[Tensor, " unit"]:
    """F1 per unit, 2·hits / (called + firing); 0 where nothing is called."""
    hits = (called & fires).sum(0).double()
    return 2 * hits / (called.sum(0) + fires.sum(0))


def _correlation(predicted: Tensor, actual: Tensor) -> Tensor:
    p, a = predicted - predicted.mean(0), actual - actual.mean(0)
    spread = p.square().sum(0).sqrt() * a.square().sum(0).sqrt()
    # A prediction that is the same for every token goes along with nothing.
    return torch.where(spread > 0, (p * a).sum(0) / spread.clamp(min=1e-300), 0.0)


def _check(activations: Tensor, text: NgramText) -> None:
    if len(activations) != len(text):
        raise InvalidInput(
            f"{len(activations):,} rows of activations for a text of {len(text):,} tokens",
            help="give the activations of exactly these tokens, in their order",
        )
    if not bool(torch.isfinite(activations).all()):
        raise NonFiniteActivations("a unit's activation is NaN or infinite")
    if bool((activations < 0).any()):
        raise InvalidInput(
            "a lookup scores units that are silent (0) or fire (above 0), and some are negative",
            help="give directions a threshold: fire_at_density",
        )
