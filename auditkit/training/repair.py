"""Undo feature suppression: keep what fires, fit anew what it means.

Wright & Sharkey 2024, "Addressing Feature Suppression in SAEs": an L1 penalty makes latents smaller
than they should be, and fine-tuning without it, with the choice of active latents frozen, undoes
that. With the choice frozen the reconstruction is linear in the product of each latent's scale and
its decoder row, so the fit is a ridge regression with one answer, and it is solved rather than
trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.saes import ArchitectureName, SparseAutoencoder, fold_decoder_norm
from auditkit.tensors import SparseLatents
from auditkit.training.activations.store import ActivationStore
from auditkit.training.sparse_regression import SparseDesign, solve_ridge

_SMALLEST_SCALE = 1e-6


class RepairForm(StrEnum):
    """Where a latent's new scale goes.

    `gated` makes a ReLU SAE a gated one: its gate is the encoder as it was, r_mag the scale, and
    the latents come out at their new size. `decoder` lengthens the decoder's rows and leaves the
    encoder as it is: latents keep their values. `auto` takes gated for a ReLU SAE, decoder for all
    others, whose choice of latents would change with the encoder.
    """

    AUTO = "auto"
    GATED = "gated"
    DECODER = "decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """`rows` activations are fitted on (all there are, if fewer), drawn with `seed`.

    `prior_fires` holds rare latents to their old decoder rows: each latent's row counts as having
    been seen on so many more tokens. `tolerance` and `max_rounds` end the solver.
    """

    rows: int = 131_072
    prior_fires: float = 10.0
    tolerance: float = 1e-4
    max_rounds: int = 200
    form: RepairForm = RepairForm.AUTO
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.max_rounds < 1:
            raise InvalidInput("rows and max_rounds must be at least 1")
        if not (self.prior_fires >= 0 and 0 < self.tolerance < 1):
            raise InvalidInput("prior_fires must be 0 or more, tolerance between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repaired:
    """The repaired SAE. `scales` [d_sae] is each latent's new size over its old one, 1 for those
    that never fired on the rows fitted on; `fires` how often each did.

    `bias_refitted` says whether b_dec was fitted too: not where the encoder reads it, because then
    the active latents would change. `residual` is what the solver left undone, of 1.
    """

    sae: SparseAutoencoder
    form: RepairForm
    scales: Float[Tensor, " d_sae"]
    fires: Int64[Tensor, " d_sae"]
    rows: int
    bias_refitted: bool
    rounds: int
    residual: float


def repair_sae(
    sae: SparseAutoencoder, activations: ActivationStore, rows: np.ndarray, plan: RepairPlan
) -> Repaired:
    """Refit scales and decoder of any SAE on the training `rows` of `activations`.

    For every token the same latents fire as before, to the bit; where the decoder's norms take part
    in the selection (rescale_acts_by_decoder_norm) they are folded into the encoder first, which
    rounds. Raises MismatchError for activations of another width or hook point, InvalidInput for a
    form that the architecture does not have.
    """
    form = _form(sae, plan.form)
    _check_fits(sae, activations)
    if sae.config.rescale_acts_by_decoder_norm:
        sae = fold_decoder_norm(sae)
    generator = np.random.default_rng((plan.seed, 0x12E))
    if len(rows) > plan.rows:
        rows = np.sort(generator.choice(rows, size=plan.rows, replace=False))
    latents, residual, token_scales = _encode(sae, activations, rows)
    # A bias that the encoder subtracts must stay: another one would make other latents fire.
    with_bias = not sae.config.apply_b_dec_to_input
    design = SparseDesign.of(_regressors(latents, token_scales, with_bias=with_bias))
    fires = design.counts()
    squares = design.squared_norms()
    penalty = plan.prior_fires * squares / fires.clamp_min(1)
    solution = solve_ridge(
        design, residual, penalty, tolerance=plan.tolerance, max_rounds=plan.max_rounds
    )
    d_sae = sae.config.d_sae
    scales, W_dec = _split_scales(sae.W_dec, solution.change[:d_sae])
    b_dec = sae.b_dec + solution.change[d_sae] if with_bias else sae.b_dec
    return Repaired(
        sae=_express(sae, form, scales, W_dec, b_dec),
        form=form,
        scales=scales,
        fires=fires[:d_sae],
        rows=len(rows),
        bias_refitted=with_bias,
        rounds=solution.rounds,
        residual=solution.residual,
    )


def _form(sae: SparseAutoencoder, asked: RepairForm) -> RepairForm:
    architecture = sae.config.architecture
    is_relu = architecture is ArchitectureName.STANDARD
    if asked is RepairForm.GATED and not is_relu:
        raise InvalidInput(
            f"SAE {sae.config.name}: a {architecture.value} SAE cannot be expressed as a gated one "
            "in which the same latents fire to the bit",
            help="use the form `decoder`: any architecture has it",
        )
    if asked is RepairForm.AUTO:
        return RepairForm.GATED if is_relu else RepairForm.DECODER
    return asked


def _check_fits(sae: SparseAutoencoder, activations: ActivationStore) -> None:
    activations.check_width(sae.config.d_in)
    found, own = activations.meta.hook_point, sae.hook_point.name
    if found != own:
        raise MismatchError(
            f"SAE {sae.config.name} reads {own}, and these activations are of {found}",
            help="harvest at the SAE's own hook point",
        )


def _encode(
    sae: SparseAutoencoder, activations: ActivationStore, rows: np.ndarray
) -> tuple[SparseLatents, Tensor, Tensor]:
    """Latents, x − x̂ [token, d_in] and the token's scale, of the rows."""
    latents: list[SparseLatents] = []
    residual = torch.empty(len(rows), sae.config.d_in)
    scales: list[Tensor] = []
    start = 0
    for part in np.array_split(rows, -(-len(rows) // sae.chunk_tokens())):
        x = activations.rows(torch.from_numpy(part))
        f = sae.encode(x)
        torch.sub(x, sae.decode(f, x), out=residual[start : start + len(x)])
        latents.append(f)
        scales.append(sae.token_scales(x))
        start += len(x)
    return SparseLatents.concatenate(latents), residual, torch.cat(scales)


def _regressors(
    latents: SparseLatents, token_scales: Float[Tensor, " token"], *, with_bias: bool
) -> SparseLatents:
    """Latents in the units that they have in x̂; behind them b_dec as one that always fires."""
    values = latents.values * token_scales[latents.token_ids()]
    if not with_bias:
        return replace(latents, values=values)
    n, nnz = latents.n_tokens, latents.nnz
    offsets = latents.offsets + torch.arange(n + 1)
    last = offsets[1:] - 1
    is_latent = torch.ones(nnz + n, dtype=torch.bool)
    is_latent[last] = False
    indices = torch.full((nnz + n,), latents.d_sae)
    indices[is_latent] = latents.indices
    widened = torch.empty(nnz + n)
    widened[is_latent], widened[last] = values, token_scales
    return SparseLatents(indices=indices, values=widened, offsets=offsets, d_sae=latents.d_sae + 1)


def _split_scales(
    W_dec: Float[Tensor, "d_sae d_in"], change: Float[Tensor, "d_sae d_in"]
) -> tuple[Tensor, Tensor]:
    """Scales, and decoder rows that have their old norms."""
    moved = W_dec + change
    before, after = W_dec.norm(dim=1), moved.norm(dim=1)
    fits = (before > 0) & (after > _SMALLEST_SCALE * before)
    fits &= (change != 0).any(dim=1)
    scales = torch.where(fits, after / before.where(before > 0, torch.ones(())), 1.0)
    return scales, moved / scales[:, None]


def _express(
    sae: SparseAutoencoder,
    form: RepairForm,
    scales: Float[Tensor, " d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
) -> SparseAutoencoder:
    tensors = {**sae.tensors, "b_dec": b_dec}
    config = replace(sae.config, name=f"{sae.config.name}-repaired")
    if form is RepairForm.DECODER:
        tensors["W_dec"] = W_dec * scales[:, None]
        return SparseAutoencoder(config, tensors, notes=sae.notes)
    gate = tensors.pop("b_enc")
    r_mag = scales.log()
    tensors["W_dec"] = W_dec
    tensors["b_gate"], tensors["r_mag"] = gate, r_mag
    # Made of the same factors as in the encoder, so that there the difference is exactly 0 and no
    # latent that its gate lets through is lost.
    tensors["b_mag"] = gate * r_mag.exp()
    config = replace(config, architecture=ArchitectureName.GATED)
    return SparseAutoencoder(config, tensors, notes=sae.notes)
