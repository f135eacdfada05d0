"""From a training state to the SAE that others use: folded weights and what its card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.hook_point import HookPoint
from auditkit.saes import (
    ArchitectureName,
    SaeConfig,
    SparseAutoencoder,
    Transcoder,
    TranscoderConfig,
    TranscoderName,
)
from auditkit.training.activations.batches import RowSplit
from auditkit.training.activations.store import ActivationStore
from auditkit.training.parameters import TrainState
from auditkit.training.plan import TrainPlan, plain_plan

_EVALUATION_ROWS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Of which model, and between which hook points, a transcoder is."""

    read: HookPoint
    written: HookPoint
    model_name: str | None


def fold(
    state: TrainState,
    plan: TrainPlan,
    *,
    name: str,
    hook_point: HookPoint,
    model_name: str | None,
    metadata: Mapping[str, Any],
) -> SparseAutoencoder:
    """The SAE in the model's own units: with inputs scaled by s, b_enc and b_dec shrink by s and
    the weights stay (latents come out in the model's units, decoder rows keep norm 1)."""
    p, own = state.parameters, plan.objective.fold(state)
    config = SaeConfig(
        name=name,
        architecture=own.architecture,
        d_in=plan.d_in,
        d_sae=plan.d_sae,
        hook_point=hook_point,
        k=own.k,
        apply_b_dec_to_input=True,
        model_name=model_name,
        metadata=metadata,
    )
    tensors = {
        "W_enc": p.W_enc_rows.T.contiguous(),
        "W_dec": p.W_dec.clone(),
        "b_dec": p.b_dec / state.unit,
        **own.per_latent,
    }
    return SparseAutoencoder(config, tensors)


def fold_transcoder(
    state: TrainState, plan: TrainPlan, *, name: str, places: Places, metadata: Mapping[str, Any]
) -> Transcoder:
    """The transcoder in the model's own units; what was subtracted from its inputs goes into the
    encoder's bias. Latents are in units of the target, whose decoder rows keep norm 1."""
    p, own = state.parameters, plan.objective.fold(state)
    jumps = own.architecture is ArchitectureName.JUMPRELU
    config = TranscoderConfig(
        name=name,
        architecture=TranscoderName.JUMPRELU if jumps else TranscoderName.RELU,
        d_in=plan.d_in,
        d_out=plan.width_out,
        d_sae=plan.d_sae,
        hook_point=places.read,
        hook_point_out=places.written,
        model_name=places.model_name,
        metadata=metadata,
    )
    shift = (p.W_enc_rows.double() @ state.buffers["b_in"].double()) / state.unit
    tensors = {
        **own.per_latent,
        "W_enc": (p.W_enc_rows * (state.scale / state.unit)).T.contiguous(),
        "b_enc": (own.per_latent["b_enc"].double() - shift).float(),
        "W_dec": p.W_dec.clone(),
        "b_dec": p.b_dec / state.unit,
    }
    return Transcoder(config, tensors)


@torch.no_grad()
def explained_variance(
    plan: TrainPlan,
    state: TrainState,
    x: Float[Tensor, "token d_in"],
    target: Float[Tensor, "token d_out"] | None = None,
) -> float:
    """Centred explained variance on rows in scaled units, as the SAE is at inference; sums in
    float64. A transcoder's is that of its `target`."""
    wanted = x if target is None else target
    error = 0.0
    for rows, out in zip(x.split(_EVALUATION_ROWS), wanted.split(_EVALUATION_ROWS), strict=True):
        x_hat, _ = plan.objective.reconstruct(state, rows)
        error += float((out - state.parameters.b_dec - x_hat).square().sum(dtype=torch.float64))
    exact = wanted.to(torch.float64)
    return 1.0 - error / float((exact - exact.mean(0)).square().sum())


def training_card(
    plan: TrainPlan, activations: ActivationStore, split: RowSplit, explained: float
) -> dict[str, Any]:
    """What the SAE's metadata says about its training."""
    meta = activations.meta
    return {
        "plan": plain_plan(plan),
        "tokens_seen": plan.steps * plan.batch_size,
        "distinct_tokens": len(split.train),
        "held_out_tokens": len(split.held_out),
        "high_norm_tokens_left_out": split.high_norm,
        "reference_norm": meta.reference_norm,
        "held_out_explained_variance": explained,
        "model": dict(meta.model),
        "activations": meta.key,
        "sources": [{"name": s.name, "tokens": s.tokens} for s in meta.sources],
    }
