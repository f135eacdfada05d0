"""The sparse step with numba: what `TorchStep` computes, fused per token and per latent."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.training.adam import bias_corrections
from auditkit.training.auxk import AuxGradients, auxk_gradients
from auditkit.training.fused.candidates import Candidates, Product, best_product
from auditkit.training.objective_step import diverged
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import TrainPlan
from auditkit.training.sparse_step import require_deviation
from auditkit.training.topk_settings import topk_settings


def numba_is_installed() -> bool:
    """Whether the fused step can run."""
    return importlib.util.find_spec("numba") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buffers:
    """Work space of one batch shape, allocated once: fresh pages cost more than the arithmetic."""

    centred: Tensor
    error: Tensor
    latents: np.ndarray
    values: np.ndarray
    value_grads: np.ndarray
    squared_error: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray
    weights: np.ndarray
    grads: np.ndarray
    b_enc_grad: Tensor
    aux_slot: np.ndarray

    @classmethod
    def allocate(cls, batch: int, k: int, parameters: SaeParameters) -> _Buffers:
        dtype = parameters.W_dec.dtype
        real = np.float64 if dtype == torch.float64 else np.float32
        d_sae, d_in = parameters.d_sae, parameters.d_in
        return cls(
            centred=torch.empty(batch, d_in, dtype=dtype),
            error=torch.empty(batch, d_in, dtype=dtype),
            latents=np.empty((batch, k), dtype=np.int64),
            values=np.empty((batch, k), dtype=real),
            value_grads=np.empty((batch, k), dtype=real),
            squared_error=np.empty(batch, dtype=np.float64),
            offsets=np.empty(d_sae + 1, dtype=np.int64),
            tokens=np.empty(batch * k, dtype=np.int64),
            weights=np.empty(batch * k, dtype=real),
            grads=np.empty(batch * k, dtype=real),
            b_enc_grad=torch.empty(d_sae, dtype=dtype),
            aux_slot=np.full(d_sae, -1, dtype=np.int64),
        )


class _WholeProduct:
    """All pre-activations of a batch in the weights' own precision, and the k largest of them."""

    def __init__(self, batch: int, p: SaeParameters) -> None:
        from auditkit.training.fused import kernels

        self._kernels = kernels
        self._pre_acts = torch.empty(batch, p.d_sae, dtype=p.W_dec.dtype)

    def choose(
        self,
        centred: Float[Tensor, "batch d_in"],
        p: SaeParameters,
        latents: np.ndarray,
        values: np.ndarray,
        *,
        step: int,
    ) -> None:
        """As `Candidates.choose`."""
        torch.mm(centred, p.W_enc_rows.T, out=self._pre_acts)
        # Comparisons drop NaN silently; every latent's weights show in the first token.
        if not bool(torch.isfinite(self._pre_acts[0]).all()):
            raise diverged(step + 1, "pre-activations are not finite")
        self._kernels.select_tokens(self._pre_acts.numpy(), p.b_enc.numpy(), latents, values)


class FusedStep:
    """Runs training steps on a state, in place, with numba kernels around torch's matrix product.

    Raises InvalidInput where numba is not installed.
    """

    def __init__(self, plan: TrainPlan, *, product: Product | None = None) -> None:
        """`product`: what the encoder's product is taken in; by default bfloat16 where the
        processor has instructions for it, which changes no result beyond float32's rounding."""
        if not numba_is_installed():
            raise InvalidInput(
                "the fused training step needs numba, which is not installed",
                help="pip install numba, or train with kernel='torch'",
            )
        import numba

        from auditkit.training.fused import kernels

        most = int(getattr(numba.config, "NUMBA_NUM_THREADS", 1))
        numba.set_num_threads(min(torch.get_num_threads(), most))
        self._kernels = kernels
        self._plan = plan
        self._topk = topk_settings(plan)
        self._product: Product | None = product
        self._buffers: _Buffers | None = None
        self.encoder: _WholeProduct | Candidates | None = None
        """What chose the latents of the last batch."""

    def __call__(self, state: TrainState, x: Float[Tensor, "batch d_in"]) -> StepReport:
        """One step on the batch `x` (scaled units); `state` is updated in place."""
        plan, p = self._plan, state.parameters
        x = x.contiguous()
        b, encoder = self._prepare(x, p)
        self._kernels.centre_tokens(
            x.numpy(), _mean(x).numpy(), p.b_dec.numpy(), b.centred.numpy(), b.squared_error
        )
        deviation = require_deviation(float(b.squared_error.sum()), state.step)
        grad_scale = b.values.dtype.type(-2.0 / deviation)
        encoder.choose(b.centred, p, b.latents, b.values, step=state.step)
        self._kernels.decode_tokens(
            b.latents,
            b.values,
            b.centred.numpy(),
            p.W_dec.numpy(),
            grad_scale,
            (b.value_grads, b.error.numpy(), b.squared_error),
        )
        b.b_enc_grad.zero_()
        self._kernels.group_by_latent(
            b.latents,
            b.values,
            b.value_grads,
            b.offsets,
            b.tokens,
            b.weights,
            b.grads,
            b.b_enc_grad.numpy(),
        )
        dead = (state.silent_tokens >= plan.dead_after_tokens).nonzero().squeeze(1)
        aux = self._aux(state, b, dead)
        self._update(state, b, aux, grad_scale)
        state.silent_tokens.add_(len(x))
        state.silent_tokens[torch.from_numpy(b.offsets[1:] > b.offsets[:-1])] = 0
        state.step += 1
        return StepReport(
            squared_error=float(b.squared_error.sum()),
            squared_deviation=deviation,
            active=int(b.offsets[-1]),
            dead=len(dead),
            aux_loss=None if aux is None else aux.loss,
        )

    def _prepare(self, x: Tensor, p: SaeParameters) -> tuple[_Buffers, _WholeProduct | Candidates]:
        """Work space for this shape of batch, kept from step to step."""
        b, encoder, k = self._buffers, self.encoder, self._topk.k
        if b is None or encoder is None or b.centred.shape != x.shape:
            b = self._buffers = _Buffers.allocate(len(x), k, p)
            product: Product = best_product(p, k) if self._product is None else self._product
            if product == "float32":
                encoder = self.encoder = _WholeProduct(len(x), p)
            else:
                encoder = self.encoder = Candidates(product, len(x), k, p)
        return b, encoder

    def _aux(self, state: TrainState, b: _Buffers, dead: Tensor) -> AuxGradients | None:
        topk, p = self._topk, state.parameters
        if not (len(dead) and topk.k_aux and topk.aux_coefficient):
            return None
        part = SaeParameters(
            W_enc_rows=p.W_enc_rows[dead], W_dec=p.W_dec[dead], b_enc=p.b_enc[dead], b_dec=p.b_dec
        )
        aux = auxk_gradients(
            part,
            torch.addmm(part.b_enc, b.centred, part.W_enc_rows.T),
            b.centred,
            b.error,
            torch.arange(len(dead)),
            k_aux=topk.k_aux,
            aux_coefficient=topk.aux_coefficient,
        )
        b.b_enc_grad.index_add_(0, dead, aux.b_enc)
        return replace(aux, latents=dead)

    def _update(
        self, state: TrainState, b: _Buffers, aux: AuxGradients | None, grad_scale: np.floating
    ) -> None:
        plan, p = self._plan, state.parameters
        m, v = state.first_moments, state.second_moments
        b_dec_grad = (
            _mean(b.error) * (len(b.error) * float(grad_scale)) - p.W_enc_rows.T @ b.b_enc_grad
        )
        rate = plan.learning_rate(state.step)
        first, second = bias_corrections(plan, state.step)
        b.aux_slot.fill(-1)
        aux_enc = aux_dec = b.error.numpy()[:0]
        if aux is not None:
            b.aux_slot[aux.latents.numpy()] = np.arange(len(aux.latents))
            aux_enc, aux_dec = aux.W_enc_rows.numpy(), aux.W_dec.numpy()
        constants = p.W_dec.new_tensor(
            [grad_scale, rate * first, second, plan.beta1, plan.beta2, plan.eps]
        ).numpy()
        self._kernels.update_latents(
            (b.offsets, b.tokens, b.weights, b.grads),
            (b.error.numpy(), b.centred.numpy()),
            (b.aux_slot, aux_enc, aux_dec),
            (p.W_enc_rows.numpy(), p.W_dec.numpy()),
            (m.W_enc_rows.numpy(), v.W_enc_rows.numpy(), m.W_dec.numpy(), v.W_dec.numpy()),
            constants,
            plan.frozen_decoder,
        )
        for name, gradient in (("b_enc", b.b_enc_grad), ("b_dec", b_dec_grad)):
            mean, square = getattr(m, name), getattr(v, name)
            mean.lerp_(gradient, 1.0 - plan.beta1)
            square.mul_(plan.beta2).addcmul_(gradient, gradient, value=1.0 - plan.beta2)
            scale = (square * second).sqrt_().add_(plan.eps)
            getattr(p, name).addcdiv_(mean, scale, value=-rate * first)


def _mean(x: Float[Tensor, "batch d_in"]) -> Float[Tensor, " d_in"]:
    """Over the batch, as a product: torch's sums over columns take several milliseconds."""
    return x.T @ x.new_full((len(x),), 1.0 / len(x))
