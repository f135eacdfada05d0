"""Numba kernels that settle TopK from a rough product: bounds, candidates, exact scores.

Imported only where numba is installed and a fused step is asked for. No result depends on the
number of threads.
"""
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

from auditkit.training.fused.selection_kernels import (
    BLOCK,
    block_maxima,
    kth_largest,
    replace_smallest,
    sift_up,
)


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def round_to_bfloat16(bits, rounded, norms, errors):  # pragma: no cover
    """Rows of float32 (their bits) to the nearest bfloat16; ‖rounded‖ and ‖row − rounded‖."""
    n, width = bits.shape
    for j in prange(n):
        wide = np.empty(width, dtype=np.uint32)
        for d in range(width):
            u = bits[j, d]
            short = (u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            rounded[j, d] = np.uint16(short)
            wide[d] = short << np.uint32(16)
        norm, error = rest_norms(bits[j].view(np.float32), wide.view(np.float32))
        norms[j] = norm
        errors[j] = error


@njit(fastmath=True, cache=True)
@no_type_check
def rest_norms(row, near):  # pragma: no cover
    """‖near‖ and ‖row − near‖."""
    norm = np.float32(0)
    error = np.float32(0)
    for d in range(len(row)):
        norm += near[d] * near[d]
        gap = row[d] - near[d]
        error += gap * gap
    return np.sqrt(norm), np.sqrt(error)


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def round_to_int8(rows, rounded, norms, errors, steps):  # pragma: no cover
    """Rows to 127 steps either way of their largest entry, with `steps`, ‖rounded · step‖ and
    ‖row − rounded · step‖."""
    n, width = rows.shape
    for j in prange(n):
        largest = np.float32(0)
        for d in range(width):
            largest = max(largest, abs(rows[j, d]))
        step = largest / np.float32(127) if largest > 0 else np.float32(1)
        near = np.empty(width, dtype=np.float32)
        for d in range(width):
            whole = np.rint(rows[j, d] / step)
            rounded[j, d] = np.int8(whole)
            near[d] = whole * step
        norm, error = rest_norms(rows[j], near)
        norms[j] = norm
        errors[j] = error
        steps[j] = step


@njit(fastmath=True, cache=True)
@no_type_check
def score(a, b):  # pragma: no cover
    """a · b."""
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@njit(fastmath=True, cache=True)
@no_type_check
def find_candidates(rough, bounds, rounding, heap, where, space, found):  # pragma: no cover
    """Latents that may be among the k largest, given rough values and how far off they can be.

    bounds = (z norm, z error, weight norms, weight errors, most of both, slack); rounding is what a
    rough value can be off in proportion to itself; space = (block maxima, lower bounds). Writes
    the candidates into `found`; returns how many, or −1 where they are too many.
    """
    z_norm, z_error, norms, errors, most, slack = bounds
    tops, lower = space
    blocks = len(tops)
    block_maxima(rough, tops)
    # Each of k blocks holds a value as large as this, so the k-th largest is no smaller.
    least = kth_largest(tops, blocks, heap, where)
    n = 0
    for b in range(blocks):
        if tops[b] >= least:
            for j in range(b, len(rough), blocks):
                if rough[j] >= least and n < len(lower):
                    off = z_norm * errors[j] + z_error * norms[j] + rounding * abs(rough[j]) + slack
                    lower[n] = rough[j] - off
                    n += 1
    cut = kth_largest(lower, n, heap, where)
    n = 0
    for b in range(blocks):
        if tops[b] + most + rounding * abs(tops[b]) >= cut:
            for j in range(b, len(rough), blocks):
                off = z_norm * errors[j] + z_error * norms[j] + rounding * abs(rough[j]) + slack
                if rough[j] + off >= cut:
                    if n == len(found):
                        return -1
                    found[n] = j
                    n += 1
    return n


@njit(fastmath=True, cache=True)
@no_type_check
def settle_token(rough, z, weights, bounds, rounding, heap, latents, values):  # pragma: no cover
    """The k largest of z · W_enc + b_enc among the candidates; returns how many these were."""
    W_enc_rows, b_enc, capacity = weights
    k = len(heap)
    where = np.empty(k, dtype=np.int64)
    space = (np.empty(len(rough) // BLOCK, dtype=np.float32), np.empty(capacity, dtype=np.float32))
    found = np.empty(capacity, dtype=np.int64)
    n = find_candidates(rough, bounds, rounding, heap, where, space, found)
    for i in range(n):
        j = found[i]
        v = score(z, W_enc_rows[j]) + b_enc[j]
        if i < k:
            sift_up(heap, latents, i, v, j)
        elif v > heap[0]:
            replace_smallest(heap, latents, v, j)
    if n >= 0:
        for i in range(k):
            values[i] = max(heap[i], np.float32(0))
    return n


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def settle_bfloat16(product, centred, weights, norms, rounding, slack, out, counts):
    """Top k per token from a product [batch, d_sae] in bfloat16, given as its bits.

    weights = (W_enc_rows, b_enc, capacity); norms = (z norms, z errors, weight norms, weight
    errors, largest weight norm, largest weight error, largest |b_enc|); out = (latents, values);
    a count of −1 is a token with more candidates than `capacity`, left open.
    """  # pragma: no cover
    z_norms, z_errors, w_norms, w_errors, w_norm, w_error, bias = norms
    latents, values = out
    b_enc = weights[1]
    d_sae = product.shape[1]
    for t in prange(len(product)):
        wide = np.empty(d_sae, dtype=np.uint32)
        for j in range(d_sae):
            wide[j] = np.uint32(product[t, j]) << np.uint32(16)
        rough = wide.view(np.float32)
        for j in range(d_sae):
            rough[j] += b_enc[j]
        # The product was rounded before the bias was added.
        extra = rounding * bias + slack * z_norms[t]
        most = z_norms[t] * w_error + z_errors[t] * w_norm + extra
        bounds = (z_norms[t], z_errors[t], w_norms, w_errors, most, extra)
        heap = np.empty(latents.shape[1], dtype=np.float32)
        counts[t] = settle_token(
            rough, centred[t], weights, bounds, rounding, heap, latents[t], values[t]
        )


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def settle_int8(product, steps, centred, weights, norms, share, out, counts):
    """As `settle_bfloat16`, from a product of int8 rows in int32; steps = (of z, of weights).

    Errors are taken to be `share` of what they can be at most.
    """  # pragma: no cover
    z_norms, z_errors, w_norms, w_errors, w_norm, w_error, _ = norms
    z_steps, w_steps = steps
    latents, values = out
    b_enc = weights[1]
    d_sae = product.shape[1]
    for t in prange(len(product)):
        rough = np.empty(d_sae, dtype=np.float32)
        z_step = z_steps[t]
        for j in range(d_sae):
            rough[j] = np.float32(product[t, j]) * (z_step * w_steps[j]) + b_enc[j]
        near, far = share * z_norms[t], share * z_errors[t]
        bounds = (near, far, w_norms, w_errors, near * w_error + far * w_norm, np.float32(0))
        heap = np.empty(latents.shape[1], dtype=np.float32)
        counts[t] = settle_token(
            rough, centred[t], weights, bounds, np.float32(0), heap, latents[t], values[t]
        )
