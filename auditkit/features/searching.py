"""Which latents fire on a text more than elsewhere."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa

from auditkit.core.errors import InvalidInput, NothingEvaluated
from auditkit.core.measured import NotMeasured
from auditkit.features.selection import RecordedPrompt, Scope
from auditkit.features.totals import NO_TOKENS, Totals, measure_totals
from auditkit.store import Store
from auditkit.store.latent_queries import Numbers, TokenSet, prompt_tokens

NO_LABELS = NotMeasured("the store holds no table of labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLatent:
    """A latent on the tokens of the text and on all other eligible tokens.

    `z` is its log odds ratio (½ added to each count) in units of its standard error: what ranks.
    `mean` is over the text's tokens on which it fires.
    """

    latent: int
    inside: int
    outside: int
    rate_inside: float
    rate_outside: float
    z: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Occurrences of `text`: in how many prompts, over how many eligible tokens, of how many.

    `tried` latents fire on at least one of those tokens. `examples` are (suite, prompt, text
    around it).
    """

    text: str
    occurrences: int
    prompts: int
    tokens: int
    all_tokens: int
    tried: int
    latents: tuple[FoundLatent, ...]
    examples: tuple[tuple[str, str, str], ...]
    labels: NotMeasured = NO_LABELS


def search_text(
    store: Store,
    scope: Scope,
    text: str,
    prompts: tuple[RecordedPrompt, ...] | None = None,
    *,
    most: int = 20,
    ignore_case: bool = True,
    examples: int = 3,
) -> Found:
    """The latents that fire on the tokens of `text` more than on the other eligible tokens.

    The text is looked for in each prompt as the model reads it, across tokens. Raises
    InvalidInput for an empty text, NothingEvaluated where it does not occur.
    """
    if not text:
        raise InvalidInput("there is no text to look for", help="give at least one character")
    sets = scope.tokens(store, prompts)
    if not sets:
        raise NothingEvaluated("no token is eligible here", help=NO_TOKENS)
    suites = {r.id: r.suite for r in scope.recordings}
    inside: list[TokenSet] = []
    seen: list[tuple[str, str, str]] = []
    occurrences, where = 0, set[tuple[str, str]]()
    for some in sets:
        rows = prompt_tokens(store, some.recording, np.unique(some.ordinals))
        hits = _occurrences(rows, text, ignore_case)
        held = some.only(np.isin(some.tokens, hits.tokens))
        inside += [held] if len(held) else []
        occurrences += hits.count
        where |= {(some.recording, p) for p, _ in hits.shown}
        seen += [(suites[some.recording], p, around) for p, around in hits.shown]
    if not inside:
        raise NothingEvaluated(
            f"{text!r} occurs on no eligible token", help="try a part of it, or another suite"
        )
    on_it = measure_totals(store, inside, scope.d_sae)
    everywhere = measure_totals(store, sets, scope.d_sae)
    return Found(
        text=text,
        occurrences=occurrences,
        prompts=len(where),
        tokens=on_it.tokens,
        all_tokens=everywhere.tokens,
        tried=int((on_it.fires > 0).sum()),
        latents=_ranked(on_it, everywhere, most),
        examples=tuple(seen[:examples]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hits:
    """Tokens of all occurrences, and per prompt that has one, the first with what is around it."""

    count: int
    tokens: Numbers
    shown: tuple[tuple[str, str], ...]


def _occurrences(rows: pa.Table, text: str, ignore_case: bool) -> _Hits:
    prompts, texts = rows["prompt"].to_pylist(), rows["text"].to_pylist()
    tokens = rows["token"].to_numpy()
    ordinals = tokens >> 20
    starts = [0, *(np.flatnonzero(np.diff(ordinals)) + 1).tolist()] if len(tokens) else []
    hit: list[int] = []
    shown: list[tuple[str, str]] = []
    count = 0
    # Lower case letter by letter: `str.lower` may change a text's length, and so the places in it.
    fold = _lower if ignore_case else str
    wanted = fold(text)
    for start, stop in zip(starts, [*starts[1:], len(texts)], strict=True):
        joined = "".join(texts[start:stop])
        folded = fold(joined)
        at = folded.find(wanted)
        if at < 0:
            continue
        shown.append((prompts[start], joined[max(0, at - 40) : at + len(text) + 40]))
        ends = list(accumulate(len(t) for t in texts[start:stop]))
        while at >= 0:
            count += 1
            first, last = bisect_right(ends, at), bisect_right(ends, at + len(text) - 1)
            hit += range(start + first, start + last + 1)
            at = folded.find(wanted, at + 1)
    return _Hits(count=count, tokens=tokens[np.unique(np.array(hit, int))], shown=tuple(shown))


def _lower(text: str) -> str:
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower()[:1] for c in text)


def _ranked(on_it: Totals, everywhere: Totals, most: int) -> tuple[FoundLatent, ...]:
    outside = everywhere.tokens - on_it.tokens
    found: list[FoundLatent] = []
    for latent in np.flatnonzero(on_it.fires).tolist():
        fires = int(on_it.fires[latent])
        other = int(everywhere.fires[latent]) - fires
        z = _log_odds_z(fires, on_it.tokens, other, outside)
        if z <= 0:
            continue
        found.append(
            FoundLatent(
                latent=latent,
                inside=fires,
                outside=other,
                rate_inside=fires / on_it.tokens,
                rate_outside=other / outside if outside else 0.0,
                z=z,
                mean=float(on_it.sums[latent]) / fires,
            )
        )
    found.sort(key=lambda f: (-f.z, f.latent))
    return tuple(found[:most])


def _log_odds_z(fires: int, tokens: int, other: int, others: int) -> float:
    a, b = fires + 0.5, tokens - fires + 0.5
    c, d = other + 0.5, others - other + 0.5
    return math.log(a * d / (b * c)) / math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
