"""What fires together with a latent, beside what chance would have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.core.errors import InvalidInput, NothingEvaluated
from auditkit.features.selection import RecordedPrompt, Scope
from auditkit.features.totals import NO_TOKENS, measure_totals
from auditkit.store import Store
from auditkit.store.latent_queries import latent_places

ORDERS = ("jaccard", "lift", "pmi", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """Another latent: tokens on which `both` fire, and how many would by chance alone.

    `expected` is fires · fires of the other / tokens, as if they fired independently of one
    another; `lift` is both / expected, `pmi` its logarithm to base 2 (bits), and `jaccard` the
    share of the tokens of either on which both fire.
    """

    latent: int
    fires: int
    both: int
    expected: float
    lift: float
    pmi: float
    jaccard: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The partners of `latent`, which fires on `fires` of `tokens` eligible tokens.

    `tried` other latents fire with it at least `least` times.
    """

    latent: int
    fires: int
    tokens: int
    tried: int
    least: int
    partners: tuple[Partner, ...]


def fires_together(
    store: Store,
    scope: Scope,
    latent: int,
    prompts: tuple[RecordedPrompt, ...] | None = None,
    *,
    by: str = "jaccard",
    most: int = 20,
    least: int = 5,
) -> Together:
    """The `most` latents that fire together with `latent`, highest by `by` (one of ORDERS).

    Raises InvalidInput for a latent that the SAE lacks or an unknown order, NothingEvaluated
    where the latent never fires on an eligible token.
    """
    scope.check_latent(latent)
    if by not in ORDERS:
        raise InvalidInput(f"unknown order {by!r}", help=f"one of {', '.join(ORDERS)}")
    sets = scope.tokens(store, prompts)
    if not sets:
        raise NothingEvaluated("no token is eligible here", help=NO_TOKENS)
    on_it = [
        some.only(np.isin(some.tokens, _fired(store, some.recording, latent))) for some in sets
    ]
    both = measure_totals(store, [some for some in on_it if len(some)], scope.d_sae)
    if not both.tokens:
        raise NothingEvaluated(
            f"latent {latent} fires on no eligible token", help="auditkit features top lists others"
        )
    totals = measure_totals(store, sets, scope.d_sae)
    partners = [
        _partner(n, int(totals.fires[n]), int(both.fires[n]), both.tokens, totals.tokens)
        for n in np.flatnonzero(both.fires >= max(1, least)).tolist()
        if n != latent
    ]
    partners.sort(key=lambda p: (-float(getattr(p, by)), p.latent))
    return Together(
        latent=latent,
        fires=both.tokens,
        tokens=totals.tokens,
        tried=len(partners),
        least=least,
        partners=tuple(partners[:most]),
    )


def _fired(store: Store, recording: str, latent: int) -> NDArray[np.int64]:
    return latent_places(store, recording, latent)["token"].to_numpy()


def _partner(latent: int, fires: int, both: int, own: int, tokens: int) -> Partner:
    expected = fires * own / tokens
    return Partner(
        latent=latent,
        fires=fires,
        both=both,
        expected=expected,
        lift=both / expected,
        pmi=math.log2(both / expected),
        jaccard=both / (fires + own - both),
    )
