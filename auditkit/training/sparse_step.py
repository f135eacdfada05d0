"""One training step in torch that touches only active latents: no autograd, no dense gradient.

Per token k latents are active, so gradients are sums over the k·batch active (token, latent)
pairs. Grouped by token they give the reconstruction and the gradients of the values; sorted by
latent they give both weight gradients, each as one embedding_bag.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from auditkit.core.errors import RunFailed
from auditkit.training.adam import adam_update
from auditkit.training.auxk import AuxGradients, auxk_gradients
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import TrainPlan
from auditkit.training.topk_settings import topk_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivePairs:
    """The k largest pre-activations of each token, ReLU applied: zero values are inactive."""

    latents: Int[Tensor, "batch k"]
    values: Float[Tensor, "batch k"]


def squared_deviation(x: Float[Tensor, "batch d_in"]) -> float:
    """Σ‖x − mean x‖² over the batch."""
    return float((x - x.mean(0)).square().sum(dtype=torch.float64))


def require_deviation(deviation: float, step: int) -> float:
    """`deviation`; RunFailed where all rows of the batch of `step` (from 0) are equal: there is
    nothing to explain, and FVU has no value."""
    if deviation == 0.0:
        raise RunFailed(
            f"step {step + 1}: all activations of the batch are equal",
            help="check the hook point and the text; nothing can be learnt from these",
        )
    return deviation


def decode_pairs(pairs: ActivePairs, W_dec: Float[Tensor, "d_sae d_in"]) -> Tensor:
    """Σ value · W_dec[latent] per token: [batch, d_in]."""
    return embedding_bag(pairs.latents, W_dec, mode="sum", per_sample_weights=pairs.values)


def value_gradients(
    pairs: ActivePairs, W_dec: Float[Tensor, "d_sae d_in"], grad_x_hat: Float[Tensor, "batch d_in"]
) -> Float[Tensor, "batch k"]:
    """dL/dvalue = grad_x_hat · W_dec[latent] for each active pair, 0 for inactive ones."""
    batch, k = pairs.latents.shape
    gradients = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad_x_hat,
        W_dec,
        pairs.latents.reshape(-1),
        torch.arange(0, batch * k, k),
        torch.arange(batch).repeat_interleave(k),
        0,
    )
    return gradients.view(batch, k).mul_(pairs.values > 0)


def sum_by_latent(
    order: Int[Tensor, " pair"],
    offsets: Int[Tensor, " d_sae"],
    weights: Float[Tensor, "batch k"],
    rows: Float[Tensor, "batch d_in"],
) -> Float[Tensor, "d_sae d_in"]:
    """Σ over a latent's pairs of weight · row of the pair's token, for every latent."""
    tokens = order // weights.shape[1]
    return embedding_bag(
        tokens, rows, offsets, mode="sum", per_sample_weights=weights.reshape(-1)[order]
    )


def sparse_gradients(
    parameters: SaeParameters,
    pairs: ActivePairs,
    centred: Float[Tensor, "batch d_in"],
    grad_x_hat: Float[Tensor, "batch d_in"],
    aux: AuxGradients | None,
) -> SaeParameters:
    """Gradients of the loss for all parameters; `centred` is x − b_dec."""
    p = parameters
    by_value = value_gradients(pairs, p.W_dec, grad_x_hat)
    flat = pairs.latents.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=p.d_sae)
    offsets = counts.cumsum(0) - counts
    W_dec = sum_by_latent(order, offsets, pairs.values, grad_x_hat)
    W_enc_rows = sum_by_latent(order, offsets, by_value, centred)
    b_enc = torch.zeros_like(p.b_enc).index_add_(0, flat, by_value.reshape(-1))
    if aux is not None:
        W_dec.index_add_(0, aux.latents, aux.W_dec)
        W_enc_rows.index_add_(0, aux.latents, aux.W_enc_rows)
        b_enc.index_add_(0, aux.latents, aux.b_enc)
    # b_dec acts twice: added to x̂, and subtracted from x before the encoder.
    b_dec = grad_x_hat.sum(0) - p.W_enc_rows.T @ b_enc
    return SaeParameters(W_enc_rows=W_enc_rows, W_dec=W_dec, b_enc=b_enc, b_dec=b_dec)


class TorchStep:
    """Runs training steps on a state, in place, with torch operators alone."""

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan
        self._topk = topk_settings(plan)
        self._pre_acts = torch.empty(0)

    def __call__(self, state: TrainState, x: Float[Tensor, "batch d_in"]) -> StepReport:
        """One step on the batch `x` (scaled units); `state` is updated in place."""
        plan, topk, p = self._plan, self._topk, state.parameters
        centred = x - p.b_dec
        if self._pre_acts.shape != (len(x), p.d_sae) or self._pre_acts.dtype != x.dtype:
            self._pre_acts = torch.empty(len(x), p.d_sae, dtype=x.dtype)
        torch.mm(centred, p.W_enc_rows.T, out=self._pre_acts)
        self._pre_acts.add_(p.b_enc)
        values, latents = self._pre_acts.topk(topk.k, dim=1, sorted=False)
        pairs = ActivePairs(latents=latents, values=values.relu_())
        error = centred - decode_pairs(pairs, p.W_dec)
        deviation = require_deviation(squared_deviation(x), state.step)
        dead = (state.silent_tokens >= plan.dead_after_tokens).nonzero().squeeze(1)
        aux = None
        if len(dead) and topk.k_aux and topk.aux_coefficient:
            aux = auxk_gradients(
                p,
                self._pre_acts,
                centred,
                error,
                dead,
                k_aux=topk.k_aux,
                aux_coefficient=topk.aux_coefficient,
            )
        gradients = sparse_gradients(p, pairs, centred, error * (-2.0 / deviation), aux)
        active = pairs.latents[pairs.values > 0]
        state.silent_tokens.add_(len(x))
        state.silent_tokens[active] = 0
        adam_update(state, gradients, plan)
        state.step += 1
        return StepReport(
            squared_error=float(error.square().sum(dtype=torch.float64)),
            squared_deviation=deviation,
            active=len(active),
            dead=len(dead),
            aux_loss=None if aux is None else aux.loss,
        )
