"""One rule's causal test while it runs: what it was given, and what has been prepared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.ablation import clamp_values, set_latents
from auditkit.confirm.directions import TargetDirection
from auditkit.confirm.ledger import TrialLedger, TrialSet
from auditkit.confirm.outcomes import LOG_ODDS, LexiconTokens
from auditkit.confirm.pool import ControlPool, snap_norm
from auditkit.confirm.prepared import (
    DeltaOf,
    PreparedPrompts,
    measure_effects,
    own_push,
    token_push,
)
from auditkit.confirm.settings import ConfirmInputs, ConfirmSettings, Progress
from auditkit.core.confirmations import Arm
from auditkit.core.hook_point import HookPoint
from auditkit.core.locks import ConfirmPlan, LockedRule, Unit
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder

PushUnits = Callable[[Float[Tensor, "n d_in"], int], NDArray[np.float64]]
"""(unit directions, number of prompts) → effects [direction, prompt, lexicon]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """A dose in multiples of the 99th percentile (`value`, after snapping) and its ‖Δx‖, below
    zero where the push is turned round."""

    value: float
    norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRun:
    """Everything that the parts of one causal test share."""

    model: LanguageModel
    sae: SparseAutoencoder
    rule: LockedRule
    plan: ConfirmPlan
    inputs: ConfirmInputs
    settings: ConfirmSettings
    pool: ControlPool
    ledger: TrialLedger
    progress: Progress
    lexica: tuple[LexiconTokens, ...]
    column: int
    target: TargetDirection
    neutral: PreparedPrompts
    notes: list[str] = field(default_factory=list[str])

    @property
    def hook_point(self) -> HookPoint:
        return self.sae.hook_point

    @property
    def op(self) -> str:
        """The operation of the sufficiency test: clamp where the plan says so, else steer."""
        return "clamp" if self.plan.intervene.op == "clamp" else "steer"

    @property
    def sign(self) -> int:
        """+1 where the claim is that the words become likelier, −1 where rarer."""
        return -1 if self.plan.direction == "decrease" else 1

    def doses(self) -> list[Dose]:
        """Positive doses of the plan, rising; at least three, halving the largest if need be."""
        given = sorted(d for d in self._asked() if d > 0) or list(self.settings.doses)
        while len(given) < 3:
            given.insert(0, given[0] / 2)
        unique = {round(dose.norm, 12): dose for dose in map(self.snapped, given)}
        return list(unique.values())

    def reversed_doses(self) -> list[Dose]:
        """Negative doses of the plan, the largest push back first: shown, not tested.

        None of a clamp, which sets an activation: those are never below 0.
        """
        if self.op == "clamp":
            return []
        found = {d.value: d for d in map(self.snapped, sorted(self._asked())) if d.value < 0}
        return list(found.values())

    def _asked(self) -> set[float]:
        """The plan's doses in multiples of the 99th percentile."""
        asked = self.plan.intervene
        unit = self.target.scale if asked.unit is Unit.RAW else 1.0
        return {dose / unit for dose in asked.doses}

    def snapped(self, dose: float) -> Dose:
        """The dose whose norm lies on the ladder; clamping has no norm of its own to snap."""
        norm = dose * self.target.norm_per_dose
        if self.op == "clamp" or norm == 0:
            return Dose(value=dose, norm=norm)
        norm = math.copysign(snap_norm(abs(norm), self.settings.ladder), norm)
        return Dose(value=norm / self.target.norm_per_dose, norm=norm)

    def own_effects(self, dose: Dose) -> NDArray[np.float64]:
        """Effects [1, prompt, lexicon] of the target itself on the neutral prompts."""
        if self.op == "clamp":
            return self.measure(self.neutral, self._clamp_own(dose), 1)
        return self.push(self.target.unit[None], dose, len(self.neutral.ids))

    def push(self, units: Float[Tensor, "n d_in"], dose: Dose, prompts: int) -> NDArray[np.float64]:
        """Effects of other directions at the target's positions and norms."""
        if self.op == "clamp":
            sizes = set_latents(
                self.sae, self.neutral, self.target, clamp_values(self.target, dose.value)
            ).sizes
            push = token_push(sizes, units)
            return self.measure(self.neutral, push, len(units), prompts=prompts)
        return self.pool.push(
            self.model,
            self.neutral,
            units,
            dose.norm,
            prompts=prompts,
            batch_tokens=self.settings.batch_tokens,
        )

    def measure(
        self, prepared: PreparedPrompts, delta: DeltaOf, n: int, *, prompts: int | None = None
    ) -> NDArray[np.float64]:
        """Effects [n, prompt, lexicon] of `n` interventions."""
        return measure_effects(
            self.model,
            prepared,
            delta,
            n,
            prompts=prompts,
            batch_tokens=self.settings.batch_tokens,
        )

    def trial_set(
        self,
        arm: Arm,
        dose: float,
        *,
        op: str,
        prepared: PreparedPrompts,
        relative: NDArray[np.float64],
        prompts: int | None = None,
        metrics: Sequence[str] = (LOG_ODDS,),
    ) -> TrialSet:
        """A set of trials on the first `prompts` of `prepared`."""
        ids = prepared.ids[:prompts]
        return TrialSet(
            arm=arm,
            op=op,
            dose=dose,
            prompts=ids,
            metrics=tuple(metrics),
            relative_norms=tuple(float(v) for v in relative[: len(ids)]),
        )

    def relative_norms(self, norm: float) -> NDArray[np.float64]:
        """‖Δx‖/‖x‖ on each neutral prompt."""
        return abs(norm) / self.neutral.x_norms

    def _clamp_own(self, dose: Dose) -> DeltaOf:
        values = clamp_values(self.target, dose.value)
        return own_push(set_latents(self.sae, self.neutral, self.target, values).deltas)


def mean_sizes(
    prepared: PreparedPrompts, sizes: Sequence[Float[Tensor, "_prompt _pos"]]
) -> NDArray[np.float64]:
    """Mean over edited tokens of ‖Δx‖, divided by that of ‖x‖, for each prompt."""
    result = np.zeros(len(prepared.ids))
    for group, size in zip(prepared.groups, sizes, strict=True):
        touched = group.edited.sum(dim=1).clamp(min=1)
        result[list(group.places)] = ((size * group.edited).sum(dim=1) / touched).double().numpy()
    return result / np.maximum(prepared.x_norms, 1e-12)
