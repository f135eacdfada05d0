"""SAE latents beside other directions of the same activations, all scored by the same lookups.

Cunningham et al. 2023 compared an SAE's latents with neurons, PCA, ICA and random directions by
what a judge could say of them. Here a lookup is the judge, and every direction fires as often as
the latent beside it: F1 grows with density, so a comparison at unequal sparsity says little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Interval, Measure, Measured, NotMeasured
from auditkit.quality.lookups.lookup import (
    LOOKUPS,
    LookupKind,
    LookupScores,
    measure_lookup,
    shuffle_activations,
)
from auditkit.quality.lookups.ngram_text import NgramText

RESAMPLES = 4000
BEST = "best of the three"
SHUFFLED = "floor: shuffled activations"
ALWAYS = "floor: always firing"
FREQUENCY = "floor: token frequency"
_CONSTANT = NotMeasured("a prediction that is the same everywhere correlates with nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupRow:
    """Medians over units of one family under one lookup.

    `better_f1` is the median over pairs of a reference unit's F1 minus that of this family's unit
    of equal density.
    """

    lookup: str
    f1: Measure
    correlation: Measure
    better_f1: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyScores:
    """A family of units under every lookup and floor, and its best lookup within density bands.

    `units` were given, `unscored` of them never fire in one of the halves and are left out.
    """

    name: str
    note: str
    units: int
    unscored: int
    rows: tuple[LookupRow, ...]
    bands: tuple[tuple[str, Measure], ...]

    def row(self, lookup: str) -> LookupRow:
        """The medians under one lookup; raises KeyError for an unknown one."""
        found = {row.lookup: row for row in self.rows}
        return found[lookup]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """One family's activations; column j fires as often as column j of every other family."""

    name: str
    activations: Float[Tensor, "token unit"]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    units: Tensor
    f1: Tensor
    correlation: Tensor | None


def compare_by_lookup(
    reference: Units,
    others: Iterable[Units],
    text: NgramText,
    *,
    bands: Mapping[str, Bool[Tensor, " unit"]] | None = None,
    seed: int = 0,
) -> tuple[FamilyScores, ...]:
    """Score `reference` and each of `others`, which are taken one at a time.

    The best of the three lookups is chosen for each unit on the fitted half. `bands` names sets of
    columns. Medians carry a percentile bootstrap interval over units. Raises InvalidInput where a
    family has another number of units than the reference, and as `measure_lookup` does.
    """
    expected = reference.activations.shape[1]
    first = _score_family(reference, text, seed)
    families = [_family(reference, first, first, bands or {}, expected)]
    for family in others:
        if family.activations.shape[1] != expected:
            raise InvalidInput(
                f"{family.name} has {family.activations.shape[1]} units, and {reference.name} has "
                f"{expected}",
                help="pair every unit with one of equal density",
            )
        scored = _score_family(family, text, seed)
        families.append(_family(family, scored, first, bands or {}, expected))
    return tuple(families)


def measure_median(values: Float64[Tensor, " unit"], *, seed: int = 0) -> Measure:
    """The median with its percentile bootstrap interval; without one for fewer than 3 values."""
    x = values.double().numpy()
    if not len(x):
        return NotMeasured("no unit fires in both halves of the text")
    interval = None
    if len(x) >= 3:
        rng = np.random.default_rng((seed, len(x)))
        medians = np.median(x[rng.integers(0, len(x), size=(RESAMPLES, len(x)))], axis=1)
        low, high = (float(v) for v in np.quantile(medians, (0.025, 0.975)))
        interval = Interval(low=low, high=high)
    return Measured(value=float(np.median(x)), n=len(x), interval=interval)


def _score_family(units: Units, text: NgramText, seed: int) -> dict[str, _Scored]:
    by_kind = {kind: measure_lookup(units.activations, text, kind) for kind in LOOKUPS}
    frequency = measure_lookup(units.activations, text, LookupKind.FREQUENCY)
    mixed = shuffle_activations(units.activations, text, seed=seed)
    shuffled = measure_lookup(mixed, text, LookupKind.BIGRAM)
    found = {kind.value: _of(scores) for kind, scores in by_kind.items()}
    found[BEST] = _best(list(by_kind.values()))
    found[FREQUENCY] = _of(frequency)
    found[SHUFFLED] = _of(shuffled)
    found[ALWAYS] = _Scored(frequency.units, frequency.always, None)
    return found


def _of(scores: LookupScores) -> _Scored:
    return _Scored(scores.units, scores.f1, scores.correlation)


def _best(scores: Sequence[LookupScores]) -> _Scored:
    """Each unit's lookup of the highest F1 on the fitted half, as it does on the other."""
    chosen = torch.stack([s.fitted_f1 for s in scores]).argmax(0, keepdim=True)
    return _Scored(
        scores[0].units,
        torch.stack([s.f1 for s in scores]).gather(0, chosen).squeeze(0),
        torch.stack([s.correlation for s in scores]).gather(0, chosen).squeeze(0),
    )


def _family(
    units: Units,
    scored: Mapping[str, _Scored],
    reference: Mapping[str, _Scored],
    bands: Mapping[str, Tensor],
    n: int,
) -> FamilyScores:
    best = scored[BEST]
    return FamilyScores(
        name=units.name,
        note=units.note,
        units=n,
        unscored=n - len(best.units),
        rows=tuple(
            LookupRow(
                lookup=lookup,
                f1=measure_median(found.f1),
                correlation=_CONSTANT
                if found.correlation is None
                else measure_median(found.correlation),
                better_f1=measure_median(_paired(reference[lookup], found)),
            )
            for lookup, found in scored.items()
        ),
        bands=tuple(
            (band, measure_median(best.f1[members[best.units]])) for band, members in bands.items()
        ),
    )


def _paired(reference: _Scored, found: _Scored) -> Tensor:
    """F1 of the reference's units minus that of their partners, where both are scored."""
    mine = torch.isin(reference.units, found.units)
    theirs = torch.isin(found.units, reference.units)
    return reference.f1[mine] - found.f1[theirs]


def density_bands(
    densities: Float[Tensor, " unit"], *, parts: int = 3
) -> dict[str, Bool[Tensor, " unit"]]:
    """The units in `parts` groups of equal number by rising density, named by their range."""
    order = densities.argsort(stable=True)
    bands: dict[str, Tensor] = {}
    for group in np.array_split(order.numpy(), parts):
        if not len(group):
            continue
        rows = torch.from_numpy(group)
        members = torch.zeros(len(densities), dtype=torch.bool)
        members[rows] = True
        low, high = float(densities[rows].min()), float(densities[rows].max())
        bands[f"fires on {low:.3%} to {high:.3%}"] = members
    return bands
