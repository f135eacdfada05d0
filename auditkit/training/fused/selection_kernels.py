"""Numba kernels that find the k largest of a row, for the kernels that do it for every token.

Imported only where numba is installed and a fused step is asked for.
"""
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit

BLOCK = 16
"""Latents whose largest value stands for all of them in a first pass."""


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
def kth_largest(values, n, heap, where):  # pragma: no cover
    """The len(heap)-th largest of the first `n` values, of which there are at least as many."""
    k = len(heap)
    for i in range(k):
        sift_up(heap, where, i, values[i], i)
    for i in range(k, n):
        if values[i] > heap[0]:
            replace_smallest(heap, where, values[i], i)
    return heap[0]


@njit(fastmath=True, cache=True)
@no_type_check
def block_maxima(row, tops):  # pragma: no cover
    """tops[b] = the largest of row[b], row[b + blocks], row[b + 2·blocks], …"""
    blocks = len(tops)
    for b in range(blocks):
        tops[b] = row[b]
    for start in range(blocks, len(row), blocks):
        part = row[start : start + blocks]
        for b in range(len(part)):
            tops[b] = part[b] if part[b] > tops[b] else tops[b]


@njit(fastmath=True, cache=True)
@no_type_check
def select_top(row, heap, where):  # pragma: no cover
    """The k largest of a row into a min-heap; a block that cannot enter is passed over."""
    k = len(heap)
    blocks = len(row) // BLOCK
    if blocks < k:
        kth_largest(row, len(row), heap, where)
        return
    tops = np.empty(blocks, dtype=row.dtype)
    block_maxima(row, tops)
    # Each of k blocks holds a value as large as this, so the k-th largest is no smaller.
    least = kth_largest(tops, blocks, heap, where)
    n = 0
    for b in range(blocks):
        if tops[b] >= least:
            for j in range(b, len(row), blocks):
                if row[j] >= least:
                    if n < k:
                        sift_up(heap, where, n, row[j], j)
                    elif row[j] > heap[0]:
                        replace_smallest(heap, where, row[j], j)
                    n += 1
