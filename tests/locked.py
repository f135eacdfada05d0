"""Locked rules and signals made by hand, for tests of all that takes a rule."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.core.locks import (
    Calibration,
    ConfirmPlan,
    Frame,
    LockedLatent,
    LockedRule,
    LockedSignal,
    NotCalibrated,
    Pool,
    Scope,
    Selector,
    Severity,
    Status,
    Unit,
)


def latents_of(numbers: Sequence[int], weights: Sequence[float] = ()) -> tuple[LockedLatent, ...]:
    """Latents with their weights, 1 where none are given."""
    return tuple(
        LockedLatent(latent=latent, weight=weights[i] if weights else 1.0)
        for i, latent in enumerate(numbers)
    )


def make_signal(
    name: str,
    *latents: LockedLatent,
    pool: Pool = Pool.WEIGHTED,
    unit: Unit = Unit.FMAX,
    unresolved: str | None = None,
) -> LockedSignal:
    """A locked signal on latents chosen by index."""
    return LockedSignal(
        name=name,
        selector=Selector.INDEX,
        pool=pool,
        unit=unit,
        latents=latents,
        unresolved=unresolved,
    )


def make_rule(
    condition: str,
    *,
    signals: tuple[LockedSignal, ...] | None = None,
    id: str = "planted.rule",
    let: tuple[tuple[str, str], ...] = (),
    frame: Frame = Frame.CONVERSATION,
    scope: Scope | None = None,
    severity: Severity = Severity.LOW,
    calibration: Calibration | NotCalibrated | None = None,
    confirm: tuple[ConfirmPlan, ...] = (),
) -> LockedRule:
    """A locked rule around a condition; by default with one signal `a` on latent 0."""
    return LockedRule(
        id=id,
        rev=1,
        digest=f"digest-{id}",
        title=id,
        description="",
        severity=severity,
        status=Status.TEST,
        tags=(),
        false_positives=("Unknown",),
        frame=frame,
        scope=scope or Scope(),
        signals=signals or (make_signal("a", LockedLatent(latent=0)),),
        let=let,
        condition=condition,
        calibration=calibration,
        scores=(),
        confirm=confirm,
    )
