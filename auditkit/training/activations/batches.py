"""Which rows are trained on, which are held out, and in what order batches come.

Batch `step` is a function of the seed and the step alone, so a resumed run sees the very batches
that an undisturbed one sees, and no buffer has to be saved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput, NonFiniteActivations
from auditkit.training.activations.buffer import Buffer, BufferPlan, choose_buffer
from auditkit.training.activations.store import ActivationStore, check_aligned

_WINDOW_ROWS = 131_072
_SCAN_ROWS = 65_536
_HELD_OUT_BLOCKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSplit:
    """Row indices to train on and held out, and how many were left out for their norm.

    `norm_limit` is the largest ‖x‖ kept.
    """

    train: np.ndarray
    held_out: np.ndarray
    high_norm: int
    norm_limit: float


def row_norms(store: ActivationStore) -> np.ndarray:
    """‖x‖ of every row (float32); raises NonFiniteActivations where a stored row is not finite."""
    norms = np.empty(len(store), dtype=np.float32)
    for start in range(0, len(store), _SCAN_ROWS):
        stop = min(start + _SCAN_ROWS, len(store))
        x = store.rows(torch.arange(start, stop))
        norms[start:stop] = x.norm(dim=1).numpy()
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise NonFiniteActivations(
            f"{store.folder}: row {bad[0]} ({store.meta.hook_point}) holds NaN or infinity; "
            f"{len(bad)} such rows",
            help="harvest again; if it comes back, run the model in float32",
        )
    return norms


def split_rows(
    store: ActivationStore,
    *,
    held_out: int,
    high_norm_factor: float,
    targets: ActivationStore | None = None,
) -> RowSplit:
    """Hold out `held_out` rows in evenly spaced runs of neighbours, so that they come from
    documents that training (nearly) never sees; leave rows above `high_norm_factor` times the
    median norm out of both.

    With `targets`, the aligned activations that a transcoder writes, tokens whose target is above
    that limit of its own hook point are left out too; `norm_limit` stays that of `store`.
    """
    if 2 * held_out > len(store):
        raise InvalidInput(
            f"{store.folder}: {held_out:,} rows to hold out of {len(store):,}, "
            "expected at most half",
            help="lower held_out or harvest more tokens",
        )
    kept, limit = _within_norm(store, high_norm_factor)
    if targets is not None:
        check_aligned(store, targets)
        kept &= _within_norm(targets, high_norm_factor)[0]
    is_held_out = np.zeros(len(store), dtype=bool)
    run = -(-held_out // _HELD_OUT_BLOCKS)
    for start in np.linspace(0, max(0, len(store) - run), _HELD_OUT_BLOCKS).astype(np.int64):
        is_held_out[start : start + run] = True
    return RowSplit(
        train=np.flatnonzero(kept & ~is_held_out),
        held_out=np.flatnonzero(kept & is_held_out)[:held_out],
        high_norm=int((~kept).sum()),
        norm_limit=limit,
    )


def _within_norm(store: ActivationStore, factor: float) -> tuple[np.ndarray, float]:
    """Which rows are at most `factor` times the median norm, and that limit."""
    norms = row_norms(store)
    limit = factor * float(np.median(norms))
    if limit == 0:
        raise InvalidInput(
            f"{store.folder}: at least half of the activations are zero",
            help="check the hook point; nothing can be learnt from these",
        )
    return norms <= limit, limit


class ShuffledBatches:
    """Batches of the rows `indices` in an order permuted anew for each epoch.

    `buffer` says where the rows are kept (`.buffer` what came of it): in memory, as float16, or on
    disk, from where they are read a window at a time, in rising order. Either way batch `step`
    holds the same rows to the bit. The budget is that of all `processes` of this machine which keep
    the same rows, each for itself.
    """

    def __init__(
        self,
        store: ActivationStore,
        indices: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        buffer: BufferPlan | None = None,
        processes: int = 1,
    ) -> None:
        if len(indices) < batch_size:
            raise InvalidInput(
                f"{store.folder}: {len(indices):,} rows to train on, fewer than one batch of "
                f"{batch_size:,}",
                help="harvest more tokens or lower batch_size",
            )
        self._store = store
        self._indices = indices
        self._batch = batch_size
        self._seed = seed
        self._per_epoch = len(indices) // batch_size
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)
        self._window = (-1, -1)
        self._rows = np.empty((0, store.d_in), dtype=np.float16)
        plan = buffer or BufferPlan()
        self.buffer: Buffer = choose_buffer(
            plan, needed_bytes=len(indices) * store.d_in * 2 * processes, where=str(store.folder)
        )
        window_rows = min(_WINDOW_ROWS, plan.memory_bytes // (2 * store.d_in))
        self._window_batches = max(1, window_rows // batch_size)
        self._resident: np.ndarray | None = None
        if self.buffer.place == "memory":
            self._resident = store.rows_float16(indices)

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the rows; a last part of a batch is dropped."""
        return self._per_epoch

    def batch(self, step: int) -> Float[Tensor, "batch d_in"]:
        """Batch number `step`, counted from 0 over all epochs."""
        epoch, place = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng((self._seed, epoch))
            self._permutation = generator.permutation(len(self._indices))
            self._epoch = epoch
        if self._resident is not None:
            picked = self._permutation[place * self._batch : (place + 1) * self._batch]
            return torch.from_numpy(self._resident[picked].astype(np.float32))
        return self._from_window(epoch, place)

    def _from_window(self, epoch: int, place: int) -> Float[Tensor, "batch d_in"]:
        window, offset = divmod(place, self._window_batches)
        if self._window != (epoch, window):
            start = window * self._window_batches * self._batch
            stop = min(start + self._window_batches * self._batch, self._per_epoch * self._batch)
            self._rows = self._store.rows_float16(self._indices[self._permutation[start:stop]])
            self._window = (epoch, window)
        rows = self._rows[offset * self._batch : (offset + 1) * self._batch]
        return torch.from_numpy(rows.astype(np.float32))


class PairedBatches:
    """Batches of a transcoder: what it reads, and beside each row what it is to write.

    `inputs` and `targets` are harvested together at two hook points (MismatchError where they are
    not: `check_aligned`); row i of both parts of a batch belongs to the same token. The budget of
    `buffer` is for both.
    """

    def __init__(
        self,
        inputs: ActivationStore,
        targets: ActivationStore,
        indices: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        buffer: BufferPlan | None = None,
    ) -> None:
        check_aligned(inputs, targets)
        plan = buffer or BufferPlan()
        self.buffer: Buffer = choose_buffer(
            plan,
            needed_bytes=len(indices) * (inputs.d_in + targets.d_in) * 2,
            where=f"{inputs.folder} and {targets.folder}",
        )
        one = BufferPlan(place=self.buffer.place, memory_bytes=plan.memory_bytes)
        self._inputs, self._targets = (
            ShuffledBatches(store, indices, batch_size=batch_size, seed=seed, buffer=one)
            for store in (inputs, targets)
        )

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the rows; a last part of a batch is dropped."""
        return self._inputs.per_epoch

    def batch(self, step: int) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, "batch d_out"]]:
        """Inputs and targets of batch number `step`, counted from 0 over all epochs."""
        return self._inputs.batch(step), self._targets.batch(step)
