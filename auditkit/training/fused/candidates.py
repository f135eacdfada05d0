"""Which latents win TopK's competition, from a product in bfloat16 or int8 and few exact scores.

Most of a step's time is the encoder's product, of which TopK uses k values per token. A processor
with instructions for bfloat16 or int8 takes a rough product several times faster than float32's.
By Cauchy and Schwarz a rounded weight row and a rounded input move a pre-activation by no more than
‖z‖‖w − w'‖ + ‖z − z'‖‖w'‖, and rounding the sum to bfloat16 moves it by 2⁻⁸ of itself. So whatever
lies further below the k-th largest than these bounds allow is out; the others are scored exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.training.objective_step import diverged
from auditkit.training.parameters import SaeParameters

Product = Literal["float32", "bfloat16", "int8"]
"""What the encoder's product is taken in. With bfloat16 the k largest are those of float32, proven
up to float32's own rounding; with int8 they are almost always."""

_ROUNDOFF = 2.0**-8 * (1 + 2.0**-7)
"""Of bfloat16, relative to the rounded value."""
_FLOAT32_ROUNDOFF = 2.0**-24
_multiply_int8 = torch._int_mm  # pyright: ignore[reportPrivateUsage]
"""The product of int8 rows in int32; torch has no public name for it."""
_DEVIATIONS = 6.0
"""int8: errors of many roundings add up like a random walk. Bounds that no errors at all can pass
would leave hundreds of candidates per token; random errors pass these once in 10⁸ times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounded:
    """Rows in few bits: ‖rounded‖ and ‖row − rounded‖ of each, and int8's unit."""

    rows: Tensor
    norms: np.ndarray
    errors: np.ndarray
    steps: np.ndarray

    @classmethod
    def allocate(cls, n: int, width: int, dtype: torch.dtype) -> _Rounded:
        return cls(
            rows=torch.empty(n, width, dtype=dtype),
            norms=np.empty(n, dtype=np.float32),
            errors=np.empty(n, dtype=np.float32),
            steps=np.empty(n, dtype=np.float32),
        )


def best_product(parameters: SaeParameters, k: int) -> Product:
    """bfloat16 where it pays: float32 weights, far more latents than k, and a processor with
    instructions for it whose products prove as exact as they must be."""
    p = parameters
    suitable = p.W_dec.dtype == torch.float32 and p.d_sae >= 64 * k
    return "bfloat16" if suitable and _multiplies_bfloat16() and _holds(p.d_in) else "float32"


def _multiplies_bfloat16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def _holds(d_in: int) -> bool:
    """Whether products of bfloat16 are off by no more than their rounding, on random rows: a
    library that also sums in bfloat16 breaks that."""
    generator = torch.Generator().manual_seed(0)
    z, w = (torch.randn(64, d_in, generator=generator).bfloat16() for _ in range(2))
    exact = z.double() @ w.double().T
    off = (torch.mm(z, w.T).double() - exact).abs()
    slack = _summation(d_in) * z.double().norm(dim=1)[:, None] * w.double().norm(dim=1)
    return bool((off <= _ROUNDOFF * exact.abs() + slack).all())


def _summation(d_in: int) -> float:
    # Higham 2002, eq. 3.5, for two orders of summation, and a few terms to spare.
    return 2 * (d_in + 8) * _FLOAT32_ROUNDOFF


class Candidates:
    """Settles the k largest pre-activations of each token of a batch; keeps its work space."""

    def __init__(
        self, product: Literal["bfloat16", "int8"], batch: int, k: int, p: SaeParameters
    ) -> None:
        from auditkit.training.fused import candidate_kernels

        # The k-th largest is first bounded by that of the blocks' maxima.
        if p.d_sae // candidate_kernels.BLOCK < k:
            raise InvalidInput(
                f"{p.d_sae:,} latents are too few to choose candidates for k {k} from",
                help="take the product in float32",
            )
        self._kernels, self._k = candidate_kernels, k
        self._is_int8 = product == "int8"
        dtype = torch.int8 if self._is_int8 else torch.bfloat16
        self._x = _Rounded.allocate(batch, p.d_in, dtype)
        self._weights = _Rounded.allocate(p.d_sae, p.d_in, dtype)
        out = torch.int32 if self._is_int8 else torch.bfloat16
        self._product = torch.empty(batch, p.d_sae, dtype=out)
        self._capacity = min(p.d_sae, 8 * k + 64)
        self.counts = np.empty(batch, dtype=np.int64)
        """Candidates of each token in the last batch; −1 where they were too many to score."""

    def choose(
        self,
        centred: Float32[Tensor, "batch d_in"],
        p: SaeParameters,
        latents: np.ndarray,
        values: np.ndarray,
        *,
        step: int,
    ) -> None:
        """Fill `latents` and `values` [batch, k] with ReLU of each token's k largest
        pre-activations; RunFailed where those of `step` (from 0) are not finite."""
        self._round(centred, self._x)
        self._round(p.W_enc_rows, self._weights)
        biggest = float(p.b_enc.abs().max())
        largest = np.float32(self._weights.norms.max()), np.float32(self._weights.errors.max())
        if not np.isfinite(np.array([biggest, *largest, self._x.norms.max()])).all():
            raise diverged(step + 1, "pre-activations are not finite")
        norms = (
            self._x.norms,
            self._x.errors,
            self._weights.norms,
            self._weights.errors,
            *largest,
            np.float32(biggest),
        )
        weights = (p.W_enc_rows.numpy(), p.b_enc.numpy(), self._capacity)
        out = (latents, values)
        if self._is_int8:
            _multiply_int8(self._x.rows, self._weights.rows.T, out=self._product)
            share = np.float32(min(1.0, _DEVIATIONS / p.d_in**0.5))
            steps = (self._x.steps, self._weights.steps)
            self._kernels.settle_int8(
                self._product.numpy(),
                steps,
                centred.numpy(),
                weights,
                norms,
                share,
                out,
                self.counts,
            )
        else:
            torch.mm(self._x.rows, self._weights.rows.T, out=self._product)
            slack = _summation(p.d_in) * float(largest[0])
            self._kernels.settle_bfloat16(
                _bits(self._product),
                centred.numpy(),
                weights,
                norms,
                np.float32(_ROUNDOFF),
                np.float32(slack),
                out,
                self.counts,
            )
        self._settle_open(centred, p, latents, values)

    def _round(self, rows: Float32[Tensor, "n width"], into: _Rounded) -> None:
        array = rows.numpy()
        if self._is_int8:
            self._kernels.round_to_int8(
                array, into.rows.numpy(), into.norms, into.errors, into.steps
            )
        else:
            self._kernels.round_to_bfloat16(
                array.view(np.uint32), _bits(into.rows), into.norms, into.errors
            )

    def _settle_open(
        self,
        centred: Float32[Tensor, "batch d_in"],
        p: SaeParameters,
        latents: np.ndarray,
        values: np.ndarray,
    ) -> None:
        """Whole rows in float32 for the tokens with too many candidates."""
        left: Int[Tensor, " open"] = torch.from_numpy(self.counts < 0).nonzero().squeeze(1)
        for tokens in left.split(256):
            pre_acts: Float[Tensor, "open d_sae"] = centred[tokens] @ p.W_enc_rows.T + p.b_enc
            top = pre_acts.topk(self._k, dim=1, sorted=False)
            latents[tokens.numpy()] = top.indices.numpy()
            values[tokens.numpy()] = top.values.relu_().numpy()


def _bits(t: Tensor) -> np.ndarray:
    return t.view(torch.int16).numpy().view(np.uint16)
