"""From trials to numbers: everything here is recomputed from stored trials alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from auditkit.confirm.controls import CONTROL_ARMS
from auditkit.confirm.outcomes import LOG_ODDS
from auditkit.core.confirmations import Arm, DosePoint, EffectTest, Trial
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.statistics import (
    mean_spearman,
    measure_mean,
    page_trend_p,
    rank_p_value,
    sign_flip_p_value,
)

_Outcomes = dict[str, float]


@dataclass(slots=True)
class TrialTable:
    """Trials of one confirmation, looked up by arm, operation, dose and metric."""

    outcomes: dict[tuple[Arm, str, float, str], dict[int, _Outcomes]] = field(
        default_factory=dict[tuple[Arm, str, float, str], dict[int, _Outcomes]]
    )
    norms: dict[tuple[str, float], list[float]] = field(
        default_factory=dict[tuple[str, float], list[float]]
    )

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> TrialTable:
        table = cls()
        for t in trials:
            key = (t.arm, t.op, t.dose, t.metric)
            table.outcomes.setdefault(key, {}).setdefault(t.control, {})[t.prompt_id] = t.outcome
            if t.arm is Arm.TARGET and t.metric == LOG_ODDS:
                table.norms.setdefault((t.op, t.dose), []).append(t.relative_norm)
        return table

    def own(self, arm: Arm, op: str, dose: float, metric: str = LOG_ODDS) -> _Outcomes:
        """Outcome by prompt of an arm that has one direction; empty where it was not run."""
        return self.outcomes.get((arm, op, dose, metric), {}).get(0, {})

    def doses(self, op: str) -> list[float]:
        """Doses at which the target was run, rising."""
        wanted = (Arm.TARGET, op, LOG_ODDS)
        return sorted(d for arm, o, d, m in self.outcomes if (arm, o, m) == wanted)

    def controls(
        self, op: str, dose: float, prompts: tuple[str, ...], metric: str = LOG_ODDS
    ) -> dict[Arm, NDArray[np.float64]]:
        """Outcomes [control, prompt] of each control arm, of controls run on all `prompts`."""
        found: dict[Arm, NDArray[np.float64]] = {}
        for arm in CONTROL_ARMS:
            rows = [
                [by_prompt[p] for p in prompts]
                for _, by_prompt in sorted(self.outcomes.get((arm, op, dose, metric), {}).items())
                if all(p in by_prompt for p in prompts)
            ]
            if rows:
                found[arm] = np.array(rows)
        return found

    def common_prompts(self, op: str, dose: float, metric: str = LOG_ODDS) -> tuple[str, ...]:
        """Prompts of the target that its controls were run on too."""
        shared: set[str] | None = None
        for arm in CONTROL_ARMS:
            for by_prompt in self.outcomes.get((arm, op, dose, metric), {}).values():
                shared = set(by_prompt) if shared is None else shared & set(by_prompt)
        own = self.own(Arm.TARGET, op, dose, metric)
        return tuple(p for p in own if shared is not None and p in shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Target against controls, and the target's own effects [prompt] in the claim's direction."""

    test: EffectTest
    effects: NDArray[np.float64]
    p_any: float


def compare(
    table: TrialTable,
    *,
    op: str,
    dose: float,
    sign: int,
    seed: int,
    hits: int,
    metric: str = LOG_ODDS,
) -> Comparison | None:
    """Test the target's effect against its controls in direction `sign`; None where not run.

    The rank is that of the target's z-score, the smallest over the kinds of controls, among the
    z-scores of all controls within their own kind: kinds differ in spread, and pooling them raw
    would let weak directions stand in for matched latents. Where `hits` controls of a kind did
    as much as the target, the drawing stopped there, and the rank's p-value is the sequential one.
    """
    prompts = table.common_prompts(op, dose, metric)
    if not prompts:
        return None
    everywhere = table.own(Arm.TARGET, op, dose, metric)
    own = np.array([everywhere[p] for p in prompts])
    strata = table.controls(op, dose, prompts, metric)
    together = np.concatenate(list(strata.values()))
    differences = sign * (own - together.mean(axis=0))
    p_sign = sign_flip_p_value(differences, seed=seed)
    effect, kinds = sign * float(own.mean()), [sign * r.mean(axis=1) for r in strata.values()]
    stopped = [p for means in kinds if (p := sequential_rank_p(effect, means, hits)) is not None]
    p_rank = max(stopped) if stopped else pooled_rank_p(effect, kinds)
    raw = sign * np.array(list(everywhere.values()))
    means = together.mean(axis=1)
    test = EffectTest(
        op=op,
        metric=metric,
        effect=measure_mean(sign * raw, seed=seed),
        control_mean=float(means.mean()),
        control_sd=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
        controls=len(together),
        prompts=len(prompts),
        p_sign=p_sign,
        p_rank=p_rank,
        p=max(p_sign, p_rank),
        q=1.0,
        difference=measure_mean(sign * differences, seed=seed),
        dose=None if op == "ablate" else dose,
    )
    p_any = sign_flip_p_value(raw, alternative="two-sided", seed=seed)
    return Comparison(test=test, effects=raw, p_any=p_any)


def sequential_rank_p(own: float, drawn: NDArray[np.float64], hits: int) -> float | None:
    """hits/l where the l-th control in the order of drawing is the `hits`-th that did as much.

    Besag & Clifford (1991), "Sequential Monte Carlo p-values": valid whenever the drawing ends by
    this rule. What was drawn beyond l, for the sake of a full batch, does not count. None where
    fewer than `hits` did as much: then all were drawn, and the plain rank holds.
    """
    places = np.flatnonzero(drawn >= own)
    return None if len(places) < hits else hits / (int(places[hits - 1]) + 1)


def pooled_rank_p(own: float, strata: list[NDArray[np.float64]]) -> float:
    """Rank p of `own` among controls of several kinds, each standardised within its kind."""
    z_own: list[float] = []
    z_controls: list[NDArray[np.float64]] = []
    for means in strata:
        if len(means) < 3:
            continue
        z_own.append(_z(own, means))
        left_out = [_z(float(m), np.delete(means, i)) for i, m in enumerate(means)]
        z_controls.append(np.array(left_out))
    if not z_own:
        return 1.0
    return rank_p_value(min(z_own), np.concatenate(z_controls))


def _z(value: float, others: NDArray[np.float64]) -> float:
    return (value - float(others.mean())) / max(float(others.std(ddof=1)), 1e-9)


def dose_points(table: TrialTable, *, op: str, seed: int) -> tuple[DosePoint, ...]:
    """Effect and control band at every dose of the target, rising."""
    doses = sorted(
        {d for arm, o, d, m in table.outcomes if (arm, o, m) == (Arm.TARGET, op, LOG_ODDS)}
    )
    points: list[DosePoint] = []
    for dose in doses:
        own = list(table.own(Arm.TARGET, op, dose).values())
        strata = table.controls(op, dose, table.common_prompts(op, dose))
        means = np.concatenate([r.mean(axis=1) for r in strata.values()] or [np.zeros(1)])
        if dose == 0:
            means = np.zeros(1)
        points.append(
            DosePoint(
                dose=dose,
                effect=measure_mean(own, seed=seed),
                control_low=float(np.quantile(means, 0.05)),
                control_high=float(np.quantile(means, 0.95)),
                control_mean=float(means.mean()),
                relative_norm=float(np.mean(table.norms[(op, dose)])),
            )
        )
    return tuple(points)


def dose_trend(
    table: TrialTable, *, op: str, up_to: float, sign: int, seed: int
) -> tuple[Measure, Measure]:
    """Page's L (p) and mean Spearman over the doses from 0 up to `up_to`, in direction `sign`."""
    doses = [d for d in table.doses(op) if 0 <= d <= up_to + 1e-9]
    columns = [table.own(Arm.TARGET, op, d) for d in doses]
    if not columns:
        missing = NotMeasured("no dose was run")
        return missing, missing
    effects = sign * np.array([[column[p] for column in columns] for p in columns[0]])
    return page_trend_p(effects), mean_spearman(effects, seed=seed)


def specificity(table: TrialTable, *, op: str, dose: float) -> Measure:
    """|mean effect on the target's lexicon| over the mean of |mean effect| on the others."""
    others = [
        abs(float(np.mean(list(by_control[0].values()))))
        for (arm, o, d, metric), by_control in table.outcomes.items()
        if (arm, o, d) == (Arm.TARGET, op, dose) and metric.startswith(f"{LOG_ODDS}:")
    ]
    if not others:
        return NotMeasured("no other lexicon to compare with")
    own = list(table.own(Arm.TARGET, op, dose).values())
    return Measured(value=abs(float(np.mean(own))) / max(float(np.mean(others)), 1e-9), n=len(own))


def damage(
    table: TrialTable, *, op: str, dose: float, seed: int
) -> tuple[Measure, Measure, Measure]:
    """Mean KL and ΔCE of the target, and the 95th percentile of its controls' KL."""
    kl = list(table.own(Arm.TARGET, op, dose, "kl").values())
    ce = list(table.own(Arm.TARGET, op, dose, "ce").values())
    prompts = table.common_prompts(op, dose, "kl")
    strata = table.controls(op, dose, prompts, "kl") if prompts else {}
    if not kl or not strata:
        missing = NotMeasured("no benign text on which the signal is silent, or no control")
        return missing, missing, missing
    means = np.concatenate([rows.mean(axis=1) for rows in strata.values()])
    budget = Measured(value=float(np.quantile(means, 0.95, method="higher")), n=len(means))
    return measure_mean(kl, seed=seed), measure_mean(ce, seed=seed), budget


def single(table: TrialTable, arm: Arm, *, op: str, dose: float, seed: int) -> Measure:
    """Mean effect of an arm that has one direction (sign flip, difference of means)."""
    own = list(table.own(arm, op, dose).values())
    if not own:
        return NotMeasured(f"no trial of the {arm.value}")
    return measure_mean(own, seed=seed)


def counts(table: TrialTable, *, op: str, dose: float) -> tuple[tuple[str, int], ...]:
    """Number of controls by arm."""
    found = table.controls(op, dose, table.common_prompts(op, dose))
    return tuple((arm.value, len(rows)) for arm, rows in found.items())
