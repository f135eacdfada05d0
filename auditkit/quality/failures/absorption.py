"""Feature absorption: a latent that stands for a class stays silent where a narrower one fires.

After Chanin et al. 2024 ("A is for Absorption"): words of a class that a linear probe recognises,
the class's main latents silent, and another latent that carries the probe's direction instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Interval, Measure, Measured, NotMeasured
from auditkit.core.statistics import binomial_rate, measure_mean
from auditkit.quality.failures.letter_probes import (
    LEAST_WORDS,
    LinearProbes,
    class_f1,
    find_main_latents,
    fit_probes,
)
from auditkit.tensors import SparseLatents

APPLICABLE_F1 = 0.6
LEAST_COSINE = 0.025
LEAST_SHARE = 0.4
_RESAMPLES = 4000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassedWords:
    """Activations of words, each of one class, and the latents that an SAE makes of them.

    `x` is what the latents make up: the activation minus the SAE's reconstruction of silence.
    """

    x: Float[Tensor, "word d_in"]
    labels: Int64[Tensor, " word"]
    latents: SparseLatents

    def __post_init__(self) -> None:
        sizes = {len(self.x), len(self.labels), self.latents.n_tokens}
        if len(sizes) != 1:
            raise InvalidInput(f"one row per word in every column, not {sorted(sizes)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAbsorption:
    """One class. Rates are shares of the n test words of the class that its probe recognises.

    `absorption`: the main latents are silent and another one carries the class (`LEAST_SHARE` of
    the projection on the probe). `plain_missing`: they are silent and none does. `chance`: what
    `absorption` would be if the silent words had the latents of words of other classes, the floor
    of the criterion. `carried` and `alone` are the shares with silent main latents among words
    that another latent carries and among those that none does; `excess` = carried − alone: silence
    that comes with another latent, beyond what is missing anyway. The two are not independent (what
    the main latents do not bring, others must, or the reconstruction lacks it), so it is read
    beside `absorption`, not instead of it.
    """

    name: str
    probe_f1: Measure
    main_latents: tuple[int, ...]
    main_f1: Measure
    absorption: Measure
    plain_missing: Measure
    chance: Measure
    carried: Measure
    alone: Measure
    excess: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorptionReport:
    """All classes, and means over those where the test applies, with intervals over classes.

    `excess` is pooled over the classes that have words of both kinds, weighted as by Mantel and
    Haenszel (n₁n₀/(n₁+n₀)), for a class alone has few words that another latent carries.
    """

    classes: tuple[ClassAbsorption, ...]
    probe_f1: Measure
    main_latents: Measure
    main_f1: Measure
    absorption: Measure
    plain_missing: Measure
    chance: Measure
    excess: Measure
    words: tuple[int, int]


@torch.no_grad()
def measure_absorption(
    train: ClassedWords,
    test: ClassedWords,
    directions: Float[Tensor, "d_sae d_in"],
    names: Sequence[str],
) -> AbsorptionReport:
    """Probe, find the main latents, and count what they miss and what another latent absorbs.

    `directions` are the changes of x per unit of each latent, `names` those of the classes 0, 1, ….
    Probes and main latents come from `train`, every rate from `test`. The criterion is that of
    SAEBench (Karvonen et al. 2025, by the paper's authors): cosine with the probe of at least
    `LEAST_COSINE` and `LEAST_SHARE` of the activation's projection on it; integrated gradients, as
    in the paper's first version, are not needed. Where the probes' mean F1 is below
    `APPLICABLE_F1`, all is NotMeasured ("not applicable"), and so is a class whose own is.
    """
    probes = fit_probes(train.x, train.labels, len(names))
    called = probes.scores(test.x) > 0
    f1 = [class_f1(called[:, c], test.labels == c) for c in range(len(names))]
    overall = _mean(f1, "no class has enough test words")
    refusal = _refusal(overall, "the probes' mean")
    classes = [
        _skipped(name, score, refusal or _refusal(score, "its probe's"))
        if refusal or _refusal(score, "its probe's")
        else _measure_class(name, c, score, probes, (train, test), directions)
        for c, (name, score) in enumerate(zip(names, f1, strict=True))
    ]
    reason = refusal.reason if refusal else "no class could be measured"
    return AbsorptionReport(
        classes=tuple(classes),
        probe_f1=overall,
        main_latents=_mean(
            [Measured(value=len(c.main_latents), n=1) for c in classes if c.main_latents], reason
        ),
        main_f1=_mean([c.main_f1 for c in classes], reason),
        absorption=_mean([c.absorption for c in classes], reason),
        plain_missing=_mean([c.plain_missing for c in classes], reason),
        chance=_mean([c.chance for c in classes], reason),
        excess=_pooled_excess(classes, refusal),
        words=(len(train.x), len(test.x)),
    )


def _refusal(f1: Measure, whose: str) -> NotMeasured | None:
    """Why the test does not apply, or None where it does."""
    if isinstance(f1, NotMeasured):
        return NotMeasured(f"not applicable: {whose} F1 is not measured ({f1.reason})")
    if f1.value < APPLICABLE_F1:
        return NotMeasured(
            f"not applicable: {whose} F1 is {f1.value:.2f} (n = {f1.n}), below {APPLICABLE_F1:g}: "
            "what cannot be read from the activations cannot be called missing from the latents"
        )
    return None


def _skipped(name: str, f1: Measure, why: NotMeasured | None) -> ClassAbsorption:
    reason = why or NotMeasured("not applicable")
    return ClassAbsorption(
        name=name,
        probe_f1=f1,
        main_latents=(),
        main_f1=reason,
        absorption=reason,
        plain_missing=reason,
        chance=reason,
        carried=reason,
        alone=reason,
        excess=reason,
    )


def _measure_class(
    name: str,
    c: int,
    f1: Measure,
    probes: LinearProbes,
    words: tuple[ClassedWords, ClassedWords],
    directions: Tensor,
) -> ClassAbsorption:
    train, test = words
    main = find_main_latents(train.latents, train.labels == c).latents
    probe = probes.directions[c]
    found = _recognised(test, probes, c)
    if not len(main):
        return _skipped(name, f1, NotMeasured("k-sparse probing found no latent for this class"))
    if int(found.sum()) < LEAST_WORDS:
        return _skipped(name, f1, NotMeasured("its probe recognises too few test words"))
    silent = ~_any_active(test.latents, main)
    carried = _Carriers.of(test, directions, probe, main)
    absorbed = found & silent & carried.carries
    with_another = _rate(absorbed, found & carried.carries)
    alone = _rate(found & silent & ~carried.carries, found & ~carried.carries)
    return ClassAbsorption(
        name=name,
        probe_f1=f1,
        main_latents=tuple(main.tolist()),
        main_f1=class_f1(~silent, test.labels == c),
        absorption=_rate(absorbed, found),
        plain_missing=_rate(found & silent & ~carried.carries, found),
        chance=_chance(carried, found, silent, test.labels != c),
        carried=with_another,
        alone=alone,
        excess=_difference(with_another, alone),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Carriers:
    """Per word its projection on the probe, and the most that one latent, no main one, brings."""

    projection: Tensor
    most: Tensor

    @classmethod
    def of(cls, words: ClassedWords, directions: Tensor, probe: Tensor, main: Tensor) -> _Carriers:
        brought = _brought(words.latents, directions, probe, main)
        most = torch.zeros(len(words.x)).scatter_reduce(
            0, words.latents.token_ids(), brought, "amax", include_self=True
        )
        return cls(words.x.float() @ probe, most)

    @property
    def carries(self) -> Tensor:
        return (self.projection > 0) & (self.most >= LEAST_SHARE * self.projection)


def _brought(
    latents: SparseLatents, directions: Tensor, probe: Tensor, main: Tensor
) -> Float[Tensor, " nnz"]:
    """What each active latent brings along the probe; 0 for main ones and those aside of it."""
    along = directions.float() @ probe
    cosines = along / directions.float().norm(dim=1).clamp(min=1e-12)
    usable = cosines >= LEAST_COSINE
    usable[main] = False
    return latents.values * (along * usable)[latents.indices]


def _recognised(words: ClassedWords, probes: LinearProbes, c: int) -> Bool[Tensor, " word"]:
    return (words.labels == c) & (probes.scores(words.x)[:, c] > 0)


def _any_active(latents: SparseLatents, which: Tensor) -> Bool[Tensor, " word"]:
    hit = torch.isin(latents.indices, which)
    active = torch.zeros(latents.n_tokens, dtype=torch.bool)
    active[latents.token_ids()[hit]] = True
    return active


def _rate(hits: Tensor, among: Tensor) -> Measure:
    return binomial_rate(int(hits.sum()), int(among.sum()))


def _chance(carried: _Carriers, found: Tensor, silent: Tensor, others: Tensor) -> Measure:
    """Expected share with the latents of a word of another class drawn at random."""
    missing = found & silent & (carried.projection > 0)
    most = carried.most[others]
    if not len(most):
        return NotMeasured("no words of other classes")
    needed = LEAST_SHARE * carried.projection[missing]
    hits = float((most.unsqueeze(0) >= needed.unsqueeze(1)).double().mean(1).sum())
    n = int(found.sum())
    return Measured(value=hits / n, n=n)


def _difference(carried: Measure, alone: Measure) -> Measure:
    if isinstance(carried, NotMeasured) or isinstance(alone, NotMeasured):
        return NotMeasured("no recognised word of one of the two kinds")
    if min(carried.n, alone.n) < LEAST_WORDS:
        return NotMeasured(
            f"{carried.n} recognised words that another latent carries and {alone.n} that none "
            f"does, and {LEAST_WORDS} of each are needed"
        )
    return Measured(value=carried.value - alone.value, n=carried.n + alone.n)


def _pooled_excess(classes: Sequence[ClassAbsorption], refusal: NotMeasured | None) -> Measure:
    """Mantel and Haenszel's risk difference, with a bootstrap interval over classes."""
    rows = [
        (c.carried.n * c.alone.n / (c.carried.n + c.alone.n), c.carried.value - c.alone.value)
        for c in classes
        if isinstance(c.carried, Measured) and isinstance(c.alone, Measured)
    ]
    if refusal or not rows:
        return refusal or NotMeasured("no class has recognised words that another latent carries")
    weights, differences = np.array(rows).T
    value = float(weights @ differences / weights.sum())
    interval = None
    if len(rows) >= 3:
        drawn = np.random.default_rng(0).integers(0, len(rows), size=(_RESAMPLES, len(rows)))
        means = (weights * differences)[drawn].sum(1) / weights[drawn].sum(1)
        low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
        interval = Interval(low=min(low, value), high=max(high, value))
    return Measured(value=value, n=len(rows), interval=interval)


def _mean(measures: Sequence[Measure], reason: str) -> Measure:
    values = [m.value for m in measures if isinstance(m, Measured)]
    return measure_mean(values) if values else NotMeasured(reason)
