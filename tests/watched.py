"""Rules on chosen latents, and locks of them, for tests of the monitor and of findings."""

from __future__ import annotations

from auditkit.core.locks import Frame, Lock, LockedRule, Scope, Severity, Unit
from auditkit.core.prompts import Role
from auditkit.core.recordings import Provenance
from auditkit.core.tokens import TokenMask
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder
from tests.locked import latents_of, make_rule, make_signal

PROVENANCE = Provenance(auditkit="0.1.0", libraries=(), git_commit=None, git_dirty=None)
MASKED = (
    TokenMask.BOS | TokenMask.TEMPLATE | TokenMask.SPECIAL | TokenMask.PADDING | TokenMask.HIGH_NORM
)


def rule(
    id: str,
    condition: str,
    *latents: int,
    frame: Frame = Frame.MESSAGE,
    roles: tuple[Role, ...] = (),
    weights: tuple[float, ...] = (),
    severity: Severity = Severity.HIGH,
    unresolved: str | None = None,
) -> LockedRule:
    """A rule whose signal `s` is the weighted sum of these latents, raw."""
    parts = latents_of(latents, weights)
    return make_rule(
        condition,
        signals=(make_signal("s", *parts, unit=Unit.RAW, unresolved=unresolved),),
        id=id,
        frame=frame,
        scope=Scope(roles=roles),
        severity=severity,
    )


def lock(
    model: LanguageModel,
    sae: SparseAutoencoder,
    *rules: LockedRule,
    high_norm: float | None = None,
) -> Lock:
    """A lock of these rules for this model and SAE."""
    return Lock(
        model=model.identity,
        sae=sae.identity,
        rules=rules,
        masked=MASKED,
        high_norm=high_norm,
        provenance=PROVENANCE,
    )


def various_rules() -> tuple[LockedRule, ...]:
    """Latching and not, every frame, roles, several latents with weights of both signs."""
    return (
        rule("peak", "max(s) >= 0.8", 3, 17, 40),
        rule("average", "mean(s) >= 0.05", 1, 5, 9, 21, 33),
        rule("often", "count(s > 0.2) >= 2", *range(0, 64, 3)),
        rule("signed", "sum(s) < 0.1", 2, 8, 12, 50, weights=(1.0, -0.5, 2.0, -1.0)),
        rule("run", "run(s > 0.1) >= 3", *range(0, 64, 2)),
        rule("reply", "any(s > 0.5)", *range(32), roles=(Role.ASSISTANT,)),
        rule("talk", "mean(s) >= 0.2 and not max(s) >= 3", *range(64), frame=Frame.EXCHANGE),
        rule("whole", "frac(s > 0.3) >= 0.25", *range(10, 50), frame=Frame.CONVERSATION),
    )
