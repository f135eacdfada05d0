"""How often and how strongly every latent fires on given tokens; the strongest by some order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.core.errors import InvalidInput, NothingEvaluated
from auditkit.core.fixed_point import SCALE
from auditkit.features.contexts import Context, Place, contexts_of
from auditkit.features.selection import RecordedPrompt, Scope
from auditkit.store import Store
from auditkit.store.latent_queries import TokenSet, latent_peaks, latent_totals

ORDERS = ("max", "mean", "density", "fires")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Totals:
    """Per latent [d_sae] over `tokens` eligible tokens: fires, sum and maximum of its values.

    The maximum of a latent that never fires is −inf.
    """

    tokens: int
    fires: NDArray[np.int64]
    sums: NDArray[np.float64]
    maxima: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRow:
    """One latent: fires among `tokens` tokens, mean over the active ones, and where it is highest.

    The mean and the maximum are in the SAE's own units.
    """

    latent: int
    fires: int
    tokens: int
    density: float
    mean: float
    max: float
    context: Context


def measure_totals(store: Store, sets: Sequence[TokenSet], d_sae: int) -> Totals:
    """Sum up every latent over `sets` of tokens; latents beyond `d_sae` are left out."""
    fires = np.zeros(d_sae, dtype=np.int64)
    units, maxima = np.zeros(d_sae), np.full(d_sae, -np.inf)
    for tokens in sets:
        table = latent_totals(store, tokens)
        latent = table["latent"].to_numpy()
        inside = latent < d_sae
        latent = latent[inside]
        fires[latent] += table["fires"].to_numpy()[inside]
        units[latent] += table["units"].to_numpy()[inside]
        maxima[latent] = np.maximum(maxima[latent], table["max"].to_numpy()[inside])
    count = sum(len(tokens) for tokens in sets)
    return Totals(tokens=count, fires=fires, sums=units / SCALE, maxima=maxima)


def top_latents(
    store: Store,
    scope: Scope,
    prompts: Sequence[RecordedPrompt] | None,
    *,
    by: str,
    most: int,
    least: int = 1,
) -> list[LatentRow]:
    """The `most` latents that are highest by `by` (one of ORDERS) on the eligible tokens.

    Ties go to the lower index; latents with fewer than `least` fires are left out. Raises
    NothingEvaluated where no token is eligible, InvalidInput for an unknown order.
    """
    if by not in ORDERS:
        raise InvalidInput(f"unknown order {by!r}", help=f"one of {', '.join(ORDERS)}")
    sets = scope.tokens(store, prompts)
    if not sets:
        raise NothingEvaluated("no token is eligible here", help=NO_TOKENS)
    totals = measure_totals(store, sets, scope.d_sae)
    mean = totals.sums / np.maximum(totals.fires, 1)
    key = {"max": totals.maxima, "mean": mean}.get(by, totals.fires.astype(np.float64))
    key = np.where(totals.fires >= max(1, least), key, -np.inf)
    order = [int(i) for i in np.argsort(-key, kind="stable")[:most] if np.isfinite(key[i])]
    contexts = _strongest(store, scope, sets, order, totals.maxima)
    return [
        LatentRow(
            latent=latent,
            fires=int(totals.fires[latent]),
            tokens=totals.tokens,
            density=int(totals.fires[latent]) / totals.tokens,
            mean=float(mean[latent]),
            max=float(totals.maxima[latent]),
            context=contexts[latent],
        )
        for latent in order
    ]


NO_TOKENS = "the prompts may hold only masked tokens, or none of the roles asked for"


def _strongest(
    store: Store,
    scope: Scope,
    sets: Sequence[TokenSet],
    latents: Sequence[int],
    maxima: NDArray[np.float64],
) -> dict[int, Context]:
    """The context of each latent's highest value, the earliest of equals."""
    best: dict[int, Place] = {}
    for tokens in sets:
        wanted = np.array([n for n in latents if n not in best], dtype=np.int64)
        table = latent_peaks(store, tokens.recording, wanted, maxima[wanted])
        _, inside = tokens.places(table["token"].to_numpy())
        rows = (table[c].to_numpy()[inside].tolist() for c in ("latent", "token"))
        for latent, token in zip(*rows, strict=True):
            place = Place(recording=tokens.recording, token=token, latent=latent)
            best.setdefault(latent, place)
    order = list(best)
    contexts = contexts_of(store, scope, [best[n] for n in order], around=8)
    return dict(zip(order, contexts, strict=True))
