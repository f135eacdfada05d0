"""How far an encoder is from the best sparse code for the same dictionary at equal L0.

An SAE's encoder amortises sparse coding: one matrix product in place of a search for each input.
The best k-sparse code is NP-hard, so pursuit and the LASSO stand in for it: what they explain more
than the encoder is a lower bound of what the encoder leaves unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.quality.intervals import Floats, PieceSums, ratio, with_interval
from auditkit.quality.theory.lasso import lasso_codes
from auditkit.quality.theory.pursuit import (
    orthogonal_matching_pursuit,
    refit_codes,
    threshold_codes,
)
from auditkit.tensors import SparseLatents, sparse_decode

ENCODER = "encoder"
REFITTED = "encoder's atoms, refitted"
THRESHOLD = "largest products, refitted"
LASSO = "LASSO, z ≥ 0"
LASSO_REFITTED = "LASSO's atoms, refitted"
OMP_NONNEGATIVE = "OMP, z ≥ 0"
OMP_SIGNED = "OMP, any sign"
FLOAT32_NOISE = (100 * 2**-23) ** 2
"""Share of Σ‖x‖² below which an error is rounding: x̂ is a float32 sum of up to some hundred terms,
each of which may be off by 2⁻²³ of its size."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Code:
    """One way of coding: its codes, and what they decode to in the units of x."""

    name: str
    latents: SparseLatents
    x_hat: Float[Tensor, "token d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeScore:
    """`closed` is the share of the first code's unexplained variance that this one explains,
    1 − error/(first's error), not measured where the first's error is float32 rounding; `shared`
    the share of the first code's atoms that this one uses."""

    name: str
    explained_variance: Measure
    l0: Measure
    closed: Measure
    shared: Measure


@torch.no_grad()
def oracle_codes(
    x: Float[Tensor, "token d"],
    directions: Float[Tensor, "latent d"],
    k: int,
    *,
    shift: Float[Tensor, " d"],
    encoder: SparseLatents | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[Code, ...]:
    """Codes of at most k atoms for x − shift on given directions, by every oracle.

    With the `encoder`'s own codes, also the best coefficients on its very atoms. `progress` is told
    each name before its turn.
    """
    rows = torch.nn.functional.normalize(directions.float(), dim=1)
    y = x.float() - shift.float()

    def lasso() -> SparseLatents:
        return lasso_codes(y, rows, k, nonnegative=True)

    kept: dict[str, SparseLatents] = {}
    makers: dict[str, Callable[[], SparseLatents]] = {
        THRESHOLD: lambda: threshold_codes(y, rows, k, nonnegative=True),
        LASSO: lasso,
        LASSO_REFITTED: lambda: refit_codes(y, rows, kept[LASSO], nonnegative=True),
        OMP_NONNEGATIVE: lambda: orthogonal_matching_pursuit(y, rows, k, nonnegative=True),
        OMP_SIGNED: lambda: orthogonal_matching_pursuit(y, rows, k),
    }
    if encoder is not None:
        own = encoder
        makers = {REFITTED: lambda: refit_codes(y, rows, own, nonnegative=True), **makers}
    for name, make in makers.items():
        progress(name)
        kept[name] = make()
    return tuple(
        Code(name=name, latents=codes, x_hat=sparse_decode(codes, rows) + shift.float())
        for name, codes in kept.items()
    )


@torch.no_grad()
def score_codes(
    x: Float[Tensor, "token d"], codes: Sequence[Code], pieces: Int64[Tensor, " token"]
) -> tuple[CodeScore, ...]:
    """Explained variance (centred) and L0 of each code, and how it compares with the first.

    Intervals are percentile bootstraps over pieces of text, the same resamples for all. Raises
    InvalidInput for no tokens, no codes, or tokens that are all alike.
    """
    if not len(x) or not codes:
        raise InvalidInput(f"{len(x)} tokens and {len(codes)} codes, expected one or more of each")
    exact = x.double()
    deviation = (exact - exact.mean(0)).square().sum(1)
    variance = float(deviation.sum())
    if variance <= 0:
        raise InvalidInput("all tokens are alike: no variance to explain")
    reference = codes[0]
    keys = _keys(reference.latents)
    columns = [torch.ones(len(x), dtype=torch.float64), deviation]
    for code in codes:
        counts = code.latents.counts()
        shared = torch.isin(_keys(code.latents), keys)
        hits = torch.bincount(code.latents.token_ids()[shared], minlength=len(x))
        error = (exact - code.x_hat.double()).square().sum(1)
        columns += [error, counts.double(), hits.double()]
    sums = PieceSums(columns=len(columns))
    sums.add(torch.stack(columns, dim=1), pieces)
    table = sums.sums[sums.sums[:, 0] > 0].numpy()
    same = [code.latents.d_sae == reference.latents.d_sae for code in codes]
    noise = FLOAT32_NOISE * float(exact.square().sum()) / variance
    return tuple(
        _score(code.name, table, 2 + 3 * i, same[i], noise) for i, code in enumerate(codes)
    )


def _score(name: str, table: Floats, column: int, same: bool, noise: float) -> CodeScore:
    """Columns of `table` are tokens, their squared deviation, and error, L0 and shared atoms of
    each code; `noise` is the unexplained share of variance that is rounding."""
    n = int(table[:, 0].sum())

    def left(below: int) -> Callable[[Floats], Floats]:
        return lambda totals: 1 - ratio(column, below)(totals)

    def measure(statistic: Callable[[Floats], Floats], count: int) -> Measure:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(table.sum(0, keepdims=True))[0])
        if not np.isfinite(value):
            return NotMeasured("the first code uses no atom")
        return with_interval(Measured(value=value, n=count), table, statistic)

    def closed() -> Measure:
        if table[:, 2].sum() <= noise * table[:, 1].sum():
            return NotMeasured(
                f"the first row leaves less than {noise:.1e} of the variance unexplained, which is "
                "float32 rounding"
            )
        return measure(left(2), n)

    return CodeScore(
        name=name,
        explained_variance=measure(left(1), n),
        l0=measure(ratio(column + 1, 0), n),
        closed=closed(),
        shared=measure(ratio(column + 2, 3), int(table[:, 3].sum()))
        if same
        else NotMeasured("of another dictionary"),
    )


def _keys(latents: SparseLatents) -> Tensor:
    return latents.token_ids() * latents.d_sae + latents.indices
