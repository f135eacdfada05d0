"""Locks for the monitor's benchmarks: rules of every kind over live latents of an SAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from auditkit.core.identity import ModelIdentity
from auditkit.core.locks import (
    Frame,
    Lock,
    LockedLatent,
    LockedRule,
    LockedSignal,
    Pool,
    Scope,
    Selector,
    Severity,
    Status,
    Unit,
)
from auditkit.core.prompts import Role
from auditkit.core.recordings import Provenance
from auditkit.core.tokens import TokenMask
from auditkit.saes import ArchitectureName, SparseAutoencoder
from auditkit.tensors import SparseLatents

PROVENANCE = Provenance(auditkit="benchmark", libraries=(), git_commit=None, git_dirty=None)
MASKED = (
    TokenMask.BOS | TokenMask.TEMPLATE | TokenMask.SPECIAL | TokenMask.PADDING | TokenMask.HIGH_NORM
)
CONDITIONS = (
    "mean(a) >= {mean}",
    "max(a) >= {high}",
    "count(a >= {low}) >= 3",
    "run(a >= {low}) >= 2",
    "max(a) >= {high} and mean(a) >= {mean}",
    "any (a >= {high})",
    "not max(a) >= {high}",
    "frac(a >= {low}) >= 0.2",
)
ASSISTANT = (Role.ASSISTANT,)
SCOPES = (ASSISTANT, ASSISTANT, (Role.USER,), ())
FRAMES = (Frame.MESSAGE, Frame.CONVERSATION, Frame.EXCHANGE)


def live_latents(latents: SparseLatents, count: int, *, least: int = 3) -> list[int]:
    """`count` latents drawn from those active on at least `least` of the tokens."""
    fires = torch.bincount(latents.indices, minlength=latents.d_sae)
    live = (fires >= least).nonzero()[:, 0]
    order = torch.randperm(len(live), generator=torch.Generator().manual_seed(0))
    return sorted(int(i) for i in live[order[:count]])


def threshold_of(sae: SparseAutoencoder, x: Tensor) -> float:
    """The mean k-th largest pre-activation over tokens: BatchTopK's inference threshold
    (Bussmann et al. 2024, eq. 4, which takes the mean over batches)."""
    k = sae.config.k
    assert k is not None, "a topk SAE has a k"
    with torch.no_grad():
        values = torch.topk(sae.pre_acts(sae.encoder_input(x.float())), k, dim=1).values
    return float(values[:, -1].clamp(min=0).mean())


def thresholded(sae: SparseAutoencoder, threshold: float) -> SparseAutoencoder:
    """A TopK SAE with one threshold for all latents in place of the competition."""
    config = replace(
        sae.config,
        name=f"{sae.config.name}-threshold",
        architecture=ArchitectureName.JUMPRELU,
        k=None,
    )
    tensors = {**sae.tensors, "threshold": torch.full((sae.config.d_sae,), threshold)}
    return SparseAutoencoder(config, tensors)


def build_lock(
    model: ModelIdentity,
    sae: SparseAutoencoder,
    latents: Sequence[int],
    *,
    rules: int,
    level: float,
    assistant_only: bool,
    high_norm: float | None = None,
) -> Lock:
    """`rules` rules over `latents`, dealt out in turn; `level` is what an active latent reaches.

    Conditions, scopes and frames alternate; with `assistant_only` all look at the reply.
    """
    made = tuple(
        _rule(
            number,
            latents[number::rules],
            level,
            scope=ASSISTANT if assistant_only else SCOPES[number // 2 % len(SCOPES)],
            frame=Frame.MESSAGE if assistant_only else FRAMES[number % len(FRAMES)],
        )
        for number in range(rules)
    )
    return Lock(
        model=model,
        sae=sae.identity,
        rules=made,
        masked=MASKED,
        high_norm=high_norm,
        provenance=PROVENANCE,
    )


def _rule(
    number: int, latents: Sequence[int], level: float, *, scope: tuple[Role, ...], frame: Frame
) -> LockedRule:
    condition = CONDITIONS[number % len(CONDITIONS)].format(
        mean=round(level / 12, 6), high=round(level, 6), low=round(level / 2, 6)
    )
    pool = (Pool.SUM, Pool.MAX, Pool.MEAN)[number % 3]
    signal = LockedSignal(
        name="a",
        selector=Selector.INDEX,
        pool=pool,
        unit=Unit.RAW,
        latents=tuple(LockedLatent(latent=i) for i in latents),
    )
    return LockedRule(
        id=f"benchmark.rule_{number:02d}",
        rev=1,
        digest=f"{number:064x}",
        title=f"benchmark rule {number}",
        description=condition,
        severity=Severity.INFO,
        status=Status.EXPERIMENTAL,
        tags=(),
        false_positives=(),
        frame=frame,
        scope=Scope(roles=scope),
        signals=(signal,),
        let=(),
        condition=condition,
        calibration=None,
        scores=(),
        confirm=(),
    )
