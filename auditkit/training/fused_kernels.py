"""Numba kernels of the fused step: one over tokens, one over latents.

Imported only where numba is installed and a fused step is asked for. No result depends on the
number of threads: every output row is computed by one iteration. What works on one row of many
arrays is inlined by numba itself: as a call it keeps LLVM from vectorising, at twice the time.
"""
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

_BLOCK = 32


@njit(fastmath=True, cache=True)
@no_type_check
def sift_up(heap, where, place, value, latent):  # pragma: no cover
    """Put (value, latent) into a min-heap that has grown by the free slot `place`."""
    while place > 0 and heap[(place - 1) >> 1] > value:
        heap[place] = heap[(place - 1) >> 1]
        where[place] = where[(place - 1) >> 1]
        place = (place - 1) >> 1
    heap[place] = value
    where[place] = latent


@njit(fastmath=True, cache=True)
@no_type_check
def replace_smallest(heap, where, value, latent):  # pragma: no cover
    """Replace a min-heap's root by a larger (value, latent)."""
    k = len(heap)
    place = 0
    while True:
        child = 2 * place + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[place] = heap[child]
        where[place] = where[child]
        place = child
    heap[place] = value
    where[place] = latent


@njit(fastmath=True, cache=True)
@no_type_check
def select_top(row, b_enc, heap, where):  # pragma: no cover
    """The k largest of row + b_enc into a min-heap; a block that cannot enter is passed over."""
    k = len(heap)
    d_sae = len(row)
    for i in range(k):
        sift_up(heap, where, i, row[i] + b_enc[i], i)
    for start in range(k, d_sae, _BLOCK):
        stop = min(start + _BLOCK, d_sae)
        top = row[start] + b_enc[start]
        for i in range(start + 1, stop):
            v = row[i] + b_enc[i]
            top = v if v > top else top
        if top > heap[0]:
            for i in range(start, stop):
                v = row[i] + b_enc[i]
                if v > heap[0]:
                    replace_smallest(heap, where, v, i)


@njit(fastmath=True, cache=True)
@no_type_check
def subtract_decoded(error, latents, values, W_dec):  # pragma: no cover
    """error −= Σ value · W_dec[latent]; returns what is left, squared and summed in float64."""
    for i in range(len(latents)):
        v = values[i]
        if v > 0:
            w = W_dec[latents[i]]
            for d in range(len(error)):
                error[d] -= v * w[d]
    total = 0.0
    for d in range(len(error)):
        total += np.float64(error[d]) * np.float64(error[d])
    return total


@njit(fastmath=True, cache=True)
@no_type_check
def project_error(error, latents, values, W_dec, grad_scale, out):  # pragma: no cover
    """out[i] = grad_scale · error · W_dec[latent i] for active pairs, 0 for inactive ones."""
    for i in range(len(latents)):
        g = error[0] * 0
        if values[i] > 0:
            w = W_dec[latents[i]]
            for d in range(len(error)):
                g += error[d] * w[d]
        out[i] = g * grad_scale


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def encode_tokens(pre_acts, b_enc, x, b_dec, W_dec, k, grad_scale, out):  # pragma: no cover
    """Per token: top-k of pre_acts + b_enc, ReLU, x̂, error, and the values' gradients.

    out = (latents [batch, k], values [batch, k], value_grads [batch, k], error [batch, d_in],
    squared_error [batch]); grad_x_hat = grad_scale · error.
    """
    latents, values, value_grads, error, squared_error = out
    for t in prange(len(x)):
        heap = np.empty(k, dtype=pre_acts.dtype)
        select_top(pre_acts[t], b_enc, heap, latents[t])
        for i in range(k):
            values[t, i] = max(heap[i], heap[i] * 0)
        for d in range(x.shape[1]):
            error[t, d] = x[t, d] - b_dec[d]
        squared_error[t] = subtract_decoded(error[t], latents[t], values[t], W_dec)
        project_error(error[t], latents[t], values[t], W_dec, grad_scale, value_grads[t])


@njit(fastmath=True, cache=True)
@no_type_check
def group_by_latent(latents, values, value_grads, offsets, tokens, weights, grads, b_enc_grad):
    """Counting sort of the active pairs by latent (tokens rising within one).

    Fills offsets [d_sae + 1], tokens/weights/grads [pair], and adds to b_enc_grad [d_sae].
    """  # pragma: no cover
    n_tokens, k = latents.shape
    d_sae = len(b_enc_grad)
    offsets[:] = 0
    for t in range(n_tokens):
        for i in range(k):
            if values[t, i] > 0:
                offsets[latents[t, i] + 1] += 1
    for j in range(d_sae):
        offsets[j + 1] += offsets[j]
    place = offsets[:d_sae].copy()
    for t in range(n_tokens):
        for i in range(k):
            if values[t, i] > 0:
                j = latents[t, i]
                tokens[place[j]] = t
                weights[place[j]] = values[t, i]
                grads[place[j]] = value_grads[t, i]
                b_enc_grad[j] += value_grads[t, i]
                place[j] += 1


@njit(fastmath=True, cache=True, inline="always")
@no_type_check
def sum_pairs(j, pairs, rows, grad_scale, g_enc, g_dec):  # pragma: no cover
    """Add latent j's active pairs to the gradients of its two rows."""
    offsets, tokens, weights, grads = pairs
    error, centred = rows
    for i in range(offsets[j], offsets[j + 1]):
        e = error[tokens[i]]
        c = centred[tokens[i]]
        w = weights[i] * grad_scale
        g = grads[i]
        for d in range(len(g_enc)):
            g_dec[d] += w * e[d]
            g_enc[d] += g * c[d]


@njit(fastmath=True, cache=True, inline="always")
@no_type_check
def adam_row(w, m, v, g, constants):  # pragma: no cover
    """Adam on one row; constants = [rate · correction 1, correction 2, β1, β2, eps]."""
    rate, second, beta1, beta2, eps = constants
    one = w[0] * 0 + 1
    for d in range(len(w)):
        mean = m[d] * beta1 + g[d] * (one - beta1)
        square = v[d] * beta2 + g[d] * g[d] * (one - beta2)
        m[d] = mean
        v[d] = square
        w[d] -= rate * mean / (np.sqrt(square * second) + eps)


@njit(fastmath=True, cache=True, inline="always")
@no_type_check
def adam_unit_row(w, m, v, g, constants):  # pragma: no cover
    """Adam on a row of norm 1: the gradient along it removed before, the norm set back after."""
    along = w[0] * 0
    for d in range(len(w)):
        along += g[d] * w[d]
    for d in range(len(w)):
        g[d] -= along * w[d]
    adam_row(w, m, v, g, constants)
    norm = w[0] * 0
    for d in range(len(w)):
        norm += w[d] * w[d]
    scale = 1 / np.sqrt(norm)
    for d in range(len(w)):
        w[d] *= scale


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def update_latents(pairs, rows, aux, parameters, moments, constants, frozen):  # pragma: no cover
    """Per latent: both weight gradients, projection, Adam, renormalisation.

    pairs = (offsets, tokens, weights, grads); rows = (error, centred) [batch, d_in];
    aux = (slot [d_sae], W_enc gradient, W_dec gradient [dead, d_in]), slot −1: not dead;
    parameters = (W_enc_rows, W_dec); moments = (m_enc, v_enc, m_dec, v_dec);
    constants = [grad_scale, rate · correction 1, correction 2, β1, β2, eps];
    frozen: W_dec and its moments stay as they are.
    """
    slot, aux_enc, aux_dec = aux
    W_enc_rows, W_dec = parameters
    m_enc, v_enc, m_dec, v_dec = moments
    adam = (constants[1], constants[2], constants[3], constants[4], constants[5])
    d_sae, d_in = W_dec.shape
    for j in prange(d_sae):
        g_dec = np.zeros(d_in, dtype=W_dec.dtype)
        g_enc = np.zeros(d_in, dtype=W_dec.dtype)
        sum_pairs(j, pairs, rows, constants[0], g_enc, g_dec)
        if slot[j] >= 0:
            for d in range(d_in):
                g_dec[d] += aux_dec[slot[j], d]
                g_enc[d] += aux_enc[slot[j], d]
        if not frozen:
            adam_unit_row(W_dec[j], m_dec[j], v_dec[j], g_dec, adam)
        adam_row(W_enc_rows[j], m_enc[j], v_enc[j], g_enc, adam)
