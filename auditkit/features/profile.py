"""One latent: how often and how strongly it fires, and the texts on which it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.core.errors import NothingEvaluated
from auditkit.core.measured import NotMeasured
from auditkit.features.contexts import Context, Place, contexts_of
from auditkit.features.decoder import LatentDirections
from auditkit.features.selection import RecordedPrompt, Scope
from auditkit.features.totals import NO_TOKENS
from auditkit.store import Store
from auditkit.store.latent_queries import TokenSet, latent_places

BINS = 30
PER_DECILE = 2
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Fires of a value in [low, high); the last bin holds its upper end as well."""

    low: float
    high: float
    fires: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decile:
    """A tenth of the latent's fires by value (10: the highest), with some at random."""

    decile: int
    low: float
    high: float
    examples: tuple[Context, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentProfile:
    """A latent on the eligible tokens of some recordings.

    `quantiles` are (share, value) over its fires; `top` its highest places, one a prompt;
    `random` places drawn evenly from its fires. Values are in the SAE's own units. `directions`
    is what needs the SAE's weights.
    """

    latent: int
    sae: str
    model: str
    hook_point: str
    suites: tuple[str, ...]
    fires: int
    tokens: int
    prompts: int
    density: float
    mean: float
    max: float
    quantiles: tuple[tuple[float, float], ...]
    histogram: tuple[Bin, ...]
    top: tuple[Context, ...]
    random: tuple[Context, ...]
    deciles: tuple[Decile, ...]
    directions: LatentDirections | NotMeasured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fires:
    """Everywhere that the latent fires, highest first; of equals, the earliest first."""

    places: tuple[Place, ...]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.places)


def profile_latent(
    store: Store,
    scope: Scope,
    latent: int,
    prompts: Sequence[RecordedPrompt] | None = None,
    *,
    most: int = 10,
    seed: int = 0,
    deciles: bool = False,
    directions: LatentDirections | NotMeasured,
) -> LatentProfile:
    """Look at a latent with its `most` highest and as many random contexts.

    Raises InvalidInput for a latent that the SAE lacks, NothingEvaluated where it never fires.
    """
    scope.check_latent(latent)
    sets = scope.tokens(store, prompts)
    if not sets:
        raise NothingEvaluated("no token is eligible here", help=NO_TOKENS)
    tokens = sum(len(s) for s in sets)
    fires = _fires(store, sets, latent)
    if not len(fires):
        raise NothingEvaluated(
            f"latent {latent} fires on none of {tokens:,} eligible tokens",
            help="auditkit features top lists latents that do",
        )
    draw = np.random.default_rng((seed, latent))
    return LatentProfile(
        latent=latent,
        sae=scope.recordings[0].sae.name,
        model=scope.recordings[0].model.name,
        hook_point=scope.recordings[0].sae.hook_point,
        suites=tuple(
            sorted({r.suite for r in scope.recordings for s in sets if r.id == s.recording})
        ),
        fires=len(fires),
        tokens=tokens,
        prompts=len(_one_a_prompt(fires, len(fires))),
        density=len(fires) / tokens,
        mean=float(fires.values.mean()),
        max=float(fires.values[0]),
        quantiles=tuple((q, float(np.quantile(fires.values, q))) for q in QUANTILES),
        histogram=_histogram(fires.values),
        top=tuple(contexts_of(store, scope, _one_a_prompt(fires, most))),
        random=tuple(contexts_of(store, scope, _drawn(fires, range(len(fires)), most, draw))),
        deciles=_deciles(store, scope, fires, draw) if deciles else (),
        directions=directions,
    )


def _fires(store: Store, sets: Sequence[TokenSet], latent: int) -> _Fires:
    found: list[tuple[float, int, int]] = []
    for number, some in enumerate(sets):
        table = latent_places(store, some.recording, latent)
        token, value = table["token"].to_numpy(), table["value"].to_numpy()
        _, inside = some.places(token)
        found += zip(
            (-value[inside].astype(np.float64)).tolist(),
            [number] * int(inside.sum()),
            token[inside].tolist(),
            strict=True,
        )
    found.sort()
    return _Fires(
        places=tuple(
            Place(recording=sets[n].recording, token=token, latent=latent) for _, n, token in found
        ),
        values=np.array([-v for v, _, _ in found]),
    )


def _one_a_prompt(fires: _Fires, most: int) -> list[Place]:
    kept: dict[tuple[str, int], Place] = {}
    for place in fires.places:
        if len(kept) == most:
            break
        kept.setdefault((place.recording, place.token >> 20), place)
    return list(kept.values())


def _drawn(fires: _Fires, among: range, most: int, draw: np.random.Generator) -> list[Place]:
    picked = draw.permutation(np.arange(among.start, among.stop))[:most]
    return [fires.places[i] for i in sorted(picked.tolist())]


def _histogram(values: NDArray[np.float64]) -> tuple[Bin, ...]:
    low, high = min(0.0, float(values[-1])), float(values[0])
    if high <= low:
        high = low + 1.0
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    return tuple(
        Bin(low=float(edges[i]), high=float(edges[i + 1]), fires=int(n))
        for i, n in enumerate(counts)
    )


def _deciles(
    store: Store, scope: Scope, fires: _Fires, draw: np.random.Generator
) -> tuple[Decile, ...]:
    """By rank; with fewer than ten fires some tenths are empty and left out."""
    edges = [round(i * len(fires) / 10) for i in range(11)]
    spans = [(10 - i, range(edges[i], edges[i + 1])) for i in range(10) if edges[i] < edges[i + 1]]
    places = [(d, span, _drawn(fires, span, PER_DECILE, draw)) for d, span in spans]
    contexts = iter(contexts_of(store, scope, [p for _, _, some in places for p in some]))
    return tuple(
        Decile(
            decile=decile,
            low=float(fires.values[span.stop - 1]),
            high=float(fires.values[span.start]),
            examples=tuple(next(contexts) for _ in some),
        )
        for decile, span, some in places
    )
