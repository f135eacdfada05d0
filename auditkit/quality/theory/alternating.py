"""Dictionary learning by alternating minimisation: the baseline that an SAE amortises.

Codes by orthogonal matching pursuit, then the dictionary by least squares: the method of optimal
directions (Engan, Aase & Husøy 1999; that such schemes converge for incoherent dictionaries:
Arora et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.errors import InvalidInput
from auditkit.quality.theory.pursuit import orthogonal_matching_pursuit
from auditkit.tensors import SparseLatents, sparse_decode

_RIDGE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternatingPlan:
    """`latents` atoms, k per sample, so many rounds; the seed draws the first atoms."""

    latents: int
    k: int
    rounds: int = 30
    nonnegative: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnedDictionary:
    """Unit rows around a mean; `fvu` is the share of variance unexplained after each round's codes.

    `replaced` counts the atoms that some round found unused and drew anew.
    """

    rows: Float32[Tensor, "latent d"]
    mean: Float32[Tensor, " d"]
    k: int
    nonnegative: bool
    fvu: tuple[float, ...]
    replaced: int

    def encode(self, x: Float[Tensor, "token d"]) -> SparseLatents:
        """Codes by pursuit: there is no encoder but the search itself."""
        return orthogonal_matching_pursuit(
            x.float() - self.mean, self.rows, self.k, nonnegative=self.nonnegative
        )

    def decode(
        self, latents: SparseLatents, x: Float[Tensor, "token d"] | None = None
    ) -> Float32[Tensor, "token d"]:
        """The rows' sum, around the mean."""
        del x
        return sparse_decode(latents, self.rows) + self.mean


@torch.no_grad()
def learn_dictionary(x: Float[Tensor, "token d"], plan: AlternatingPlan) -> LearnedDictionary:
    """Learn a dictionary and what it is centred on from samples x.

    The centre starts as their mean and takes up the mean residual of every round. An atom that a
    round leaves unused starts anew as the sample that is explained worst. Raises InvalidInput for
    fewer samples than atoms, or samples that are all alike.
    """
    if len(x) < plan.latents:
        raise InvalidInput(
            f"{len(x)} samples for {plan.latents} atoms, expected at least as many",
            help="give more samples",
        )
    mean = x.float().mean(0)
    y = x.float() - mean
    total = float(y.double().square().sum())
    if total <= 0:
        raise InvalidInput("all samples are alike: there is nothing to learn")
    rows = _first_rows(y, plan)
    fvu: list[float] = []
    replaced = 0
    for _ in range(plan.rounds):
        codes = orthogonal_matching_pursuit(y, rows, plan.k, nonnegative=plan.nonnegative)
        residual = y - sparse_decode(codes, rows)
        fvu.append(float(residual.double().square().sum()) / total)
        shift = residual.mean(0)
        mean, y = mean + shift, y - shift
        rows, unused = update_rows(y, codes, rows, residual - shift)
        replaced += unused
    return LearnedDictionary(
        rows=rows,
        mean=mean,
        k=plan.k,
        nonnegative=plan.nonnegative,
        fvu=tuple(fvu),
        replaced=replaced,
    )


def _first_rows(y: Tensor, plan: AlternatingPlan) -> Tensor:
    """Samples drawn at random, each of norm 1; random directions where too few are not zero."""
    generator = torch.Generator().manual_seed(plan.seed)
    drawn = y[torch.randperm(len(y), generator=generator)]
    drawn = drawn[drawn.norm(dim=1) > 0][: plan.latents]
    more = torch.randn(plan.latents - len(drawn), y.shape[1], generator=generator)
    return normalize(torch.cat([drawn, more]), dim=1)


@torch.no_grad()
def update_rows(
    y: Float32[Tensor, "token d"],
    codes: SparseLatents,
    rows: Float32[Tensor, "latent d"],
    residual: Float32[Tensor, "token d"],
) -> tuple[Float32[Tensor, "latent d"], int]:
    """The unit rows of argmin_D ‖y − Z D‖², and how many unused ones were drawn anew.

    The normal equations are damped by 1e-4 of their mean diagonal towards the old rows, which
    keeps atoms in place that hardly any sample tells apart.
    """
    gram, moment = _moments(codes, y)
    used = gram.diagonal() > 0
    damping = _RIDGE * float(gram.diagonal()[used].mean()) if used.any() else 1.0
    gram.diagonal().add_(damping)
    new = torch.linalg.solve(gram, moment + damping * rows.double())
    idle = (~used).nonzero().squeeze(1)
    if len(idle):
        worst = residual.norm(dim=1).topk(min(len(idle), len(y))).indices
        new[idle[: len(worst)]] = residual[worst].double()
    flat = new.norm(dim=1) == 0
    new[flat] = rows[flat].double()
    return normalize(new, dim=1).float(), len(idle)


def _moments(codes: SparseLatents, y: Tensor) -> tuple[Tensor, Tensor]:
    """ZᵀZ and Zᵀy in float64, from chunks of dense codes."""
    gram = torch.zeros(codes.d_sae, codes.d_sae, dtype=torch.float64)
    moment = torch.zeros(codes.d_sae, y.shape[1], dtype=torch.float64)
    for start in range(0, codes.n_tokens, 4096):
        stop = min(codes.n_tokens, start + 4096)
        z = codes.rows(start, stop).to_dense().double()
        gram += z.T @ z
        moment += z.T @ y[start:stop].double()
    return gram, moment
