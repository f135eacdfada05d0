"""Directions that know nothing of an SAE, made to fire as rarely as its latents."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.tensors import SparseLatents

ICA_ITERATIONS = 200
ICA_TOLERANCE = 1e-3
_LEAST_VARIANCE = 1e-9
"""Share of the largest variance below which a component is noise of rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    """Some directions of activations and what should be known of how they were found."""

    name: str
    rows: Float32[Tensor, "unit d_in"]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """Principal components of some activations and their standard deviations, largest first."""

    components: Float[Tensor, "component d_in"]
    deviations: Float[Tensor, " component"]

    @classmethod
    def of(cls, x: Float[Tensor, "token d_in"]) -> Whitening:
        """From the covariance of `x`, in float64, without directions in which x does not vary."""
        centred = x.double() - x.double().mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(x) - 1))
        values, vectors = values.flip(0), vectors.flip(1)
        kept = values > _LEAST_VARIANCE * values[0]
        return cls(components=vectors.T[kept], deviations=values[kept].sqrt())

    @property
    def map(self) -> Float[Tensor, "component d_in"]:
        """What turns centred activations into uncorrelated ones of variance 1."""
        return self.components / self.deviations.unsqueeze(1)


def neuron_basis(d_in: int, n: int, *, seed: int = 0) -> Directions:
    """`n` of the `d_in` coordinates of the activations, drawn at random."""
    _check_number(n, d_in, "coordinates")
    drawn = np.random.default_rng((seed, 0xBA515)).permutation(d_in)[:n]
    rows = torch.eye(d_in)[torch.from_numpy(np.sort(drawn))]
    return Directions(name="neuron basis", rows=rows, note=f"{n} of {d_in} coordinates at random")


def principal_components(whitening: Whitening, n: int) -> Directions:
    """The `n` leading principal components."""
    _check_number(n, len(whitening.deviations), "principal components")
    return Directions(
        name="PCA", rows=whitening.components[:n].float(), note=f"the {n} leading components"
    )


def independent_components(
    x: Float[Tensor, "token d_in"],
    whitening: Whitening,
    n: int,
    *,
    seed: int = 0,
    iterations: int = ICA_ITERATIONS,
) -> Directions:
    """`n` components of an independent component analysis of all dimensions, drawn at random.

    FastICA (Hyvärinen & Oja 2000) with the log cosh contrast, all components at once. Where it
    does not converge in `iterations`, what it has reached is taken, and the note says so.
    """
    found = len(whitening.deviations)
    _check_number(n, found, "independent components")
    z = ((x.double() - x.double().mean(0)) @ whitening.map.T).float().numpy()
    already: Any = False
    ica = FastICA(whiten=already, max_iter=iterations, tol=ICA_TOLERANCE, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        ica.fit(z)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    unmixing = torch.from_numpy(np.asarray(ica.components_)).double() @ whitening.map
    drawn = np.random.default_rng((seed, 0x1CA)).permutation(found)[:n]
    how = "converged" if converged else "stopped before it converged"
    return Directions(
        name="ICA",
        rows=unmixing[torch.from_numpy(np.sort(drawn))].float(),
        note=f"{n} of {found} components at random; FastICA on {len(x):,} tokens {how} after "
        f"{int(ica.n_iter_)} iterations",
    )


def random_directions(d_in: int, n: int, *, seed: int = 0) -> Directions:
    """`n` directions uniform on the sphere."""
    rows = np.random.default_rng((seed, 0xD1)).standard_normal((n, d_in))
    return Directions(
        name="random directions", rows=torch.from_numpy(rows).float(), note="uniform on the sphere"
    )


def random_whitened(whitening: Whitening, n: int, *, seed: int = 0) -> Directions:
    """`n` directions uniform on the sphere of whitened activations: what ICA starts from."""
    drawn = np.random.default_rng((seed, 0xD2)).standard_normal((n, len(whitening.deviations)))
    return Directions(
        name="random directions, whitened",
        rows=(torch.from_numpy(drawn) @ whitening.map).float(),
        note="uniform on the sphere after whitening, where ICA starts",
    )


def fire_at_density(
    projections: Float[Tensor, "token unit"],
    fitted: Bool[Tensor, " token"],
    densities: Float[Tensor, " unit"],
) -> Float[Tensor, "token unit"]:
    """Let each direction fire on as many of the fitted tokens as its density asks for.

    A direction is turned to the side of its longer tail (positive skewness) and silenced below
    the threshold at which it fires on round(density · tokens) of the `fitted` tokens, at least
    one; the others meet the same threshold. An active value is the distance from rest, the median
    of the fitted tokens, as a TopK latent's value is not measured from its threshold either.
    Raises InvalidInput for densities that are not in (0, ½).
    """
    if not bool(((densities > 0) & (densities < 0.5)).all()):
        raise InvalidInput("densities lie between 0 and ½ for a unit that fires now and then")
    seen = projections[fitted].double()
    deviations = seen - seen.mean(0)
    side = torch.where(deviations.pow(3).mean(0) < 0, -1.0, 1.0)
    rest = seen.median(0).values
    ranked = (side * (seen - rest)).sort(dim=0, descending=True).values
    number = (densities.double() * len(seen)).round().long().clamp(1, len(seen) // 2)
    cut = ranked.gather(0, (number - 1).unsqueeze(0)).clamp(min=torch.finfo(torch.float32).tiny)
    values = side * (projections.double() - rest)
    return torch.where(values >= cut, values, 0.0).float()


def latent_columns(
    latents: SparseLatents, units: Int64[Tensor, " unit"]
) -> Float32[Tensor, "token unit"]:
    """The activations of some latents, with their zeros."""
    place = torch.full((latents.d_sae,), -1, dtype=torch.int64)
    place[units] = torch.arange(len(units))
    columns = place[latents.indices]
    kept = columns >= 0
    dense = torch.zeros(latents.n_tokens, len(units))
    dense[latents.token_ids()[kept], columns[kept]] = latents.values[kept]
    return dense


def draw_by_density(
    counts: Int64[Tensor, " d_sae"],
    usable: Bool[Tensor, " d_sae"],
    n: int,
    *,
    strata: int = 10,
    seed: int = 0,
) -> Int64[Tensor, " unit"]:
    """Draw `n` usable latents, as many from each of `strata` equal groups by rising count.

    The sample stands for the usable latents, and every density among them is in it. All of them
    where there are no more than `n`; in rising order.
    """
    candidates = usable.nonzero().squeeze(1)
    if len(candidates) <= n:
        return candidates
    rising = candidates[counts[candidates].argsort(stable=True)].numpy()
    rng = np.random.default_rng((seed, 0x5A))
    groups = np.array_split(rising, strata)
    quotas = [len(part) for part in np.array_split(np.arange(n), strata)]
    drawn = [rng.permutation(group)[:q] for group, q in zip(groups, quotas, strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(drawn))).long()


def _check_number(n: int, available: int, what: str) -> None:
    if n > available:
        raise InvalidInput(
            f"{n} directions are asked for, and there are {available} {what}",
            help="compare fewer units",
        )
