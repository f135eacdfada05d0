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

from auditkit.training.fused.selection_kernels import select_top


@njit(fastmath=True, cache=True)
@no_type_check
def subtract_decoded(error, latents, values, W_dec):  # pragma: no cover
    """error −= Σ value · W_dec[latent]; returns what is left, squared and summed in float64.

    Four rows at a time: the error is read and written a quarter as often, and four loads wait for
    memory together.
    """
    n = len(latents)
    i = 0
    while i + 4 <= n:
        v0, v1, v2, v3 = values[i], values[i + 1], values[i + 2], values[i + 3]
        if v0 > 0 or v1 > 0 or v2 > 0 or v3 > 0:
            w0, w1 = W_dec[latents[i]], W_dec[latents[i + 1]]
            w2, w3 = W_dec[latents[i + 2]], W_dec[latents[i + 3]]
            for d in range(len(error)):
                error[d] -= v0 * w0[d] + v1 * w1[d] + v2 * w2[d] + v3 * w3[d]
        i += 4
    while i < n:
        v0 = values[i]
        w0 = W_dec[latents[i]]
        for d in range(len(error)):
            error[d] -= v0 * w0[d]
        i += 1
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
def centre_tokens(x, mean, b_dec, centred, squared_deviation):  # pragma: no cover
    """centred = x − b_dec, and ‖x − mean‖² of each token in float64."""
    for t in prange(len(x)):
        total = 0.0
        for d in range(x.shape[1]):
            centred[t, d] = x[t, d] - b_dec[d]
            gap = np.float64(x[t, d]) - np.float64(mean[d])
            total += gap * gap
        squared_deviation[t] = total


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def select_tokens(pre_acts, b_enc, latents, values):  # pragma: no cover
    """Per token: ReLU of the k largest of pre_acts + b_enc; latents and values are [batch, k]."""
    k = latents.shape[1]
    for t in prange(len(pre_acts)):
        heap = np.empty(k, dtype=pre_acts.dtype)
        row = np.empty(len(b_enc), dtype=pre_acts.dtype)
        for j in range(len(b_enc)):
            row[j] = pre_acts[t, j] + b_enc[j]
        select_top(row, heap, latents[t])
        for i in range(k):
            values[t, i] = max(heap[i], heap[i] * 0)


@njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def decode_tokens(latents, values, centred, W_dec, grad_scale, out):  # pragma: no cover
    """Per token: x̂, the error, and the values' gradients.

    out = (value_grads [batch, k], error [batch, d_in], squared_error [batch]); grad_x_hat =
    grad_scale · error.
    """
    value_grads, error, squared_error = out
    for t in prange(len(centred)):
        for d in range(centred.shape[1]):
            error[t, d] = centred[t, d]
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
    i = offsets[j]
    stop = offsets[j + 1]
    while i + 4 <= stop:
        t0, t1, t2, t3 = tokens[i], tokens[i + 1], tokens[i + 2], tokens[i + 3]
        w0, w1 = weights[i] * grad_scale, weights[i + 1] * grad_scale
        w2, w3 = weights[i + 2] * grad_scale, weights[i + 3] * grad_scale
        for d in range(len(g_dec)):
            g_dec[d] += (
                w0 * error[t0, d] + w1 * error[t1, d] + w2 * error[t2, d] + w3 * error[t3, d]
            )
        g0, g1, g2, g3 = grads[i], grads[i + 1], grads[i + 2], grads[i + 3]
        for d in range(len(g_enc)):
            g_enc[d] += (
                g0 * centred[t0, d]
                + g1 * centred[t1, d]
                + g2 * centred[t2, d]
                + g3 * centred[t3, d]
            )
        i += 4
    while i < stop:
        t0, w0, g0 = tokens[i], weights[i] * grad_scale, grads[i]
        for d in range(len(g_dec)):
            g_dec[d] += w0 * error[t0, d]
        for d in range(len(g_enc)):
            g_enc[d] += g0 * centred[t0, d]
        i += 1


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
