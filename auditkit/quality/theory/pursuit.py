"""Orthogonal matching pursuit for many tokens at once: a greedy oracle for a given dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory.coherence import unit_rows
from auditkit.tensors import SparseLatents

_GATHERED = 2**22
_SWEEPS = 30
_LAST_SWEEPS = 200
_EXACT = 1e-6
_RIDGE = 1e-10


@dataclass(slots=True, kw_only=True, eq=False)
class _Chosen:
    """The atoms chosen so far for each token, the inner products among them and with x."""

    indices: Tensor  # [token, step]
    gram: Tensor  # [token, step, step], float64
    target: Tensor  # [token, step], float64
    values: Tensor  # [token, step], float64


@torch.no_grad()
def orthogonal_matching_pursuit(
    x: Float[Tensor, "token d"],
    directions: Float[Tensor, "latent d"],
    k: int,
    *,
    nonnegative: bool = False,
) -> SparseLatents:
    """Codes of at most k atoms per token on the unit rows of `directions` (Pati et al. 1993).

    Each step takes the atom of largest |⟨residual, atom⟩| and refits all coefficients by least
    squares. With `nonnegative` it takes that of the largest positive product, and coefficients are
    fitted under z ≥ 0 (Bruckstein, Elad & Zibulevsky 2008), as an SAE's latents are. A token stops
    early once its residual is below 1e-6 of its norm, or no product is positive. Values are
    coefficients of unit atoms. Raises InvalidInput unless 1 ≤ k ≤ latent.
    """
    units = unit_rows(directions.float())
    if not 1 <= k <= len(units):
        raise InvalidInput(f"k is {k}, expected 1 to {len(units)}, the number of atoms")
    parts = [
        _pursue(part, units, k, nonnegative) for part in x.float().split(_chunk(k, x.shape[1]))
    ]
    return SparseLatents.concatenate(parts or [SparseLatents.empty(len(units))])


def _chunk(k: int, d: int) -> int:
    """How many tokens are coded together: their chosen atoms are gathered."""
    return max(64, _GATHERED // max(1, k * d))


def _pursue(x: Tensor, units: Tensor, k: int, nonnegative: bool) -> SparseLatents:
    n = len(x)
    enough = _EXACT * x.norm(dim=1)
    chosen = _Chosen(
        indices=torch.zeros(n, 0, dtype=torch.int64),
        gram=torch.zeros(n, 0, 0, dtype=torch.float64),
        target=torch.zeros(n, 0, dtype=torch.float64),
        values=torch.zeros(n, 0, dtype=torch.float64),
    )
    residual = x
    for _ in range(k):
        products = residual @ units.T
        scores = products if nonnegative else products.abs()
        scores.scatter_(1, chosen.indices, -torch.inf)
        best, atoms = scores.max(dim=1)
        going = (residual.norm(dim=1) > enough) & (best > 0)
        if not going.any():
            break
        _add(chosen, x, units, atoms, going)
        _fit(chosen, nonnegative, _SWEEPS)
        residual = x - _decode(chosen, units)
    if nonnegative and chosen.indices.shape[1]:
        _fit(chosen, nonnegative, _LAST_SWEEPS)
    return SparseLatents.from_topk(chosen.values.float(), chosen.indices, len(units))


def _add(chosen: _Chosen, x: Tensor, units: Tensor, atoms: Tensor, going: Tensor) -> None:
    """One more column; where a token is done, one that is orthogonal to all and fits nothing."""
    new = units[atoms].double() * going[:, None]
    old = units[chosen.indices]
    cosines = torch.einsum("tsd,td->ts", old, new.float()).double()
    size = chosen.indices.shape[1] + 1
    gram = torch.zeros(len(x), size, size, dtype=torch.float64)
    gram[:, :-1, :-1] = chosen.gram
    gram[:, -1, :-1] = gram[:, :-1, -1] = cosines
    gram[:, -1, -1] = 1.0 + _RIDGE  # two atoms may all but coincide
    chosen.indices = torch.cat([chosen.indices, atoms[:, None]], dim=1)
    chosen.gram = gram
    target = (x.double() * new).sum(1)
    chosen.target = torch.cat([chosen.target, target[:, None]], dim=1)
    chosen.values = torch.cat([chosen.values, torch.zeros_like(target)[:, None]], dim=1)


def _fit(chosen: _Chosen, nonnegative: bool, sweeps: int) -> None:
    if nonnegative:
        chosen.values = nonnegative_least_squares(
            chosen.gram, chosen.target, chosen.values, sweeps=sweeps
        )
    else:
        chosen.values = torch.linalg.solve(chosen.gram, chosen.target.unsqueeze(2)).squeeze(2)


def _decode(chosen: _Chosen, units: Tensor) -> Tensor:
    return torch.einsum("tsd,ts->td", units[chosen.indices], chosen.values.float())


@torch.no_grad()
def nonnegative_least_squares(
    gram: Float64[Tensor, "token s s"],
    target: Float64[Tensor, "token s"],
    start: Float64[Tensor, "token s"],
    *,
    sweeps: int,
) -> Float64[Tensor, "token s"]:
    """min over z ≥ 0 of ½ zᵀ G z − tᵀ z, token by token, by cyclic coordinate descent.

    Each coordinate is set to its exact minimum in turn, which converges for a convex problem
    (Tseng 2001); it ends early once no coordinate moves by 1e-7 of the largest.
    """
    z = start.clamp(min=0.0)
    slope = torch.einsum("tsu,tu->ts", gram, z) - target
    for _ in range(sweeps):
        moved = z.new_zeros(())
        for s in range(z.shape[1]):
            new = (z[:, s] - slope[:, s] / gram[:, s, s]).clamp(min=0.0)
            step = new - z[:, s]
            slope.addcmul_(gram[:, :, s], step[:, None].expand_as(slope))
            z[:, s] = new
            moved = torch.maximum(moved, step.abs().max())
        if float(moved) <= 1e-7 * float(z.max().clamp(min=1e-300)):
            break
    return z


@torch.no_grad()
def refit_codes(
    x: Float[Tensor, "token d"],
    directions: Float[Tensor, "latent d"],
    codes: SparseLatents,
    *,
    nonnegative: bool = False,
) -> SparseLatents:
    """The best coefficients on the very atoms that `codes` chose (values of unit atoms)."""
    units = unit_rows(directions.float())
    size = _chunk(int(codes.counts().max()) if codes.n_tokens else 1, x.shape[1])
    parts = [
        _refit(part.float(), units, codes.rows(start, start + len(part)), nonnegative)
        for start, part in zip(range(0, len(x), size), x.split(size), strict=False)
    ]
    return SparseLatents.concatenate(parts or [SparseLatents.empty(len(units))])


def _refit(x: Tensor, units: Tensor, codes: SparseLatents, nonnegative: bool) -> SparseLatents:
    indices, real = _padded(codes)
    atoms = units[indices].double() * real[:, :, None]
    gram = atoms @ atoms.transpose(1, 2)
    # A place without an atom is orthogonal to all, and fits nothing.
    gram.diagonal(dim1=1, dim2=2).add_((~real).double() + _RIDGE)
    target = torch.einsum("tsd,td->ts", atoms, x.double())
    if nonnegative:
        zeros = torch.zeros_like(target)
        values = nonnegative_least_squares(gram, target, zeros, sweeps=_LAST_SWEEPS)
    else:
        values = torch.linalg.solve(gram, target.unsqueeze(2)).squeeze(2)
    return SparseLatents.from_topk((values * real).float(), indices, len(units))


def _padded(codes: SparseLatents) -> tuple[Int64[Tensor, "token s"], Tensor]:
    """Indices [token, most atoms of a token], and which places hold an atom."""
    counts = codes.counts()
    width = max(1, int(counts.max())) if len(counts) else 1
    places = torch.arange(codes.nnz) - codes.offsets[:-1].repeat_interleave(counts)
    indices = torch.zeros(codes.n_tokens, width, dtype=torch.int64)
    indices[codes.token_ids(), places] = codes.indices
    return indices, torch.arange(width)[None, :] < counts[:, None]


def threshold_codes(
    x: Float32[Tensor, "token d"],
    directions: Float32[Tensor, "latent d"],
    k: int,
    *,
    nonnegative: bool = False,
) -> SparseLatents:
    """The k atoms of largest product with x at once, refitted: pursuit without its feedback."""
    units = unit_rows(directions)
    products = x @ units.T
    scores = products.clamp(min=0.0) if nonnegative else products.abs()
    indices = scores.topk(min(k, len(units)), dim=1).indices
    chosen = SparseLatents.from_topk(products.gather(1, indices), indices, len(units))
    return refit_codes(x, directions, chosen, nonnegative=nonnegative)
