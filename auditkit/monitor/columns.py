"""Which columns of a pass are new tokens of which row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.models.passes import Pass
from auditkit.monitor.row import Row

Real = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Tokens of a pass, row by row in order: their row, column and id (−1: unknown).

    `select` are the indices (row, column) of the pass's activations; None: every row, last column.
    """

    rows: Sequence[Row]
    columns: Sequence[int]
    token_ids: Sequence[int]
    select: tuple[Tensor, Tensor] | None

    def of(self, x: Float[Tensor, "row columns d_in"]) -> Float[Tensor, "token d_in"]:
        """The activations of these tokens."""
        return x[:, -1] if self.select is None else x[self.select[0], self.select[1]]


def new_tokens(passed: Pass, rows: Sequence[Row], stride: int, real: Real | None) -> Places:
    """Tokens that were not watched before and belong to a row that has not ended.

    Row n of `rows` stands in row n · `stride` of the pass; `real` [row, pos] is False on padding,
    of the prompt's columns.
    """
    if passed.columns == 1:
        return _one_column(passed, rows, stride, real)
    ids = None if passed.ids is None else passed.ids.cpu().numpy()
    owners: list[Row] = []
    columns: list[int] = []
    flat: list[int] = []
    token_ids: list[int] = []
    for number, row in enumerate(rows):
        at = number * stride
        end = passed.start + passed.columns
        stop = end if row.limit is None else min(row.limit, end)
        for column in range(max(row.column, passed.start), stop):
            if _is_real(real, at, column):
                owners.append(row)
                columns.append(column)
                flat.append(at)
                token_ids.append(-1 if ids is None else int(ids[at, column - passed.start]))
    inside = torch.tensor(columns, dtype=torch.long) - passed.start
    return Places(owners, columns, token_ids, (torch.tensor(flat, dtype=torch.long), inside))


def _one_column(passed: Pass, rows: Sequence[Row], stride: int, real: Real | None) -> Places:
    column = passed.start
    wanted = [
        number
        for number, row in enumerate(rows)
        if row.column <= column
        and (row.limit is None or column < row.limit)
        and _is_real(real, number * stride, column)
    ]
    ids = [-1] * passed.rows if passed.ids is None else passed.ids[:, 0].tolist()
    owners = [rows[number] for number in wanted]
    tokens = [ids[number * stride] for number in wanted]
    select = None
    if len(wanted) != passed.rows:
        index = torch.tensor([n * stride for n in wanted], dtype=torch.long)
        select = (index, torch.zeros_like(index))
    return Places(owners, [column] * len(wanted), tokens, select)


def _is_real(real: Real | None, row: int, column: int) -> bool:
    return real is None or column >= real.shape[1] or bool(real[row, column])
