"""What latents do on given tokens of one recording: the statements behind the workbench.

Sums are of fixed-point integers (core.fixed_point), as doubles that hold them exactly, so that the
same rows give the same bits whatever the number of threads and the order in which they were
committed. Every statement names one recording: a join on the token alone is then exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from auditkit.core.fixed_point import SCALE
from auditkit.core.prompts import Role
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenMask
from auditkit.store.batch import TOKENS_PER_PROMPT
from auditkit.store.store import Store

Numbers = NDArray[np.int64]

_TOKENS = """
SELECT token, (mask & $masked) = 0 AND (len($roles) = 0 OR list_contains($roles, role)) AS seen
FROM tokens WHERE recording = $recording ORDER BY token
"""

# JOIN is SEMI with the tokens wanted or ANTI with the others, whichever are fewer.
_TOTALS = f"""
SELECT latent, count(*) AS fires, max(value)::DOUBLE AS max,
       sum(floor(value::DOUBLE * {SCALE}.0 + 0.5)) AS units
FROM activations JOIN
WHERE recording = $recording GROUP BY latent ORDER BY latent
"""

_ROWS = """
SELECT token, latent, value FROM activations JOIN WHERE recording = $recording
"""

_PLACES = """
SELECT token, value FROM activations
WHERE recording = $recording AND latent = $latent ORDER BY token
"""

_OF_LATENTS = """
SELECT token, latent, value FROM activations SEMI JOIN wanted USING (latent)
WHERE recording = $recording
"""

_PEAKS = """
SELECT latent, token FROM activations SEMI JOIN wanted USING (latent, value)
WHERE recording = $recording ORDER BY latent, token
"""

_IN_PROMPTS = """
SELECT a.latent, a.token, a.value
FROM activations a SEMI JOIN wanted w ON a.latent = w.latent AND a.token >> 20 = w.ordinal
WHERE a.recording = $recording
"""

_TEXTS = """
SELECT t.prompt, t.token, t.text, t.role, t.mask, t.generated
FROM tokens t SEMI JOIN wanted w ON t.token >> 20 = w.ordinal
WHERE t.recording = $recording ORDER BY t.token
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenSet:
    """Some tokens of a recording in order, and the recording's other tokens."""

    recording: str
    tokens: Numbers
    others: Numbers

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ordinals(self) -> Numbers:
        """The ordinal of each token's prompt."""
        return self.tokens // TOKENS_PER_PROMPT

    def only(self, kept: NDArray[np.bool_]) -> TokenSet:
        """The tokens for which `kept` [n] holds."""
        others = np.sort(np.concatenate([self.others, self.tokens[~kept]]))
        return TokenSet(recording=self.recording, tokens=self.tokens[kept], others=others)

    def places(self, tokens: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
        """For each of `tokens` its place in this set, and whether it is in it at all."""
        if not len(self.tokens):
            return np.zeros(len(tokens), dtype=np.int64), np.zeros(len(tokens), dtype=bool)
        place = np.searchsorted(self.tokens, tokens).clip(max=len(self.tokens) - 1)
        return place, self.tokens[place] == tokens


def eligible_tokens(
    store: Store,
    recording: Recording,
    *,
    masked: TokenMask,
    roles: Sequence[Role] = (),
    ordinals: Numbers | None = None,
) -> TokenSet:
    """Covered tokens without those masked; of `roles` and of prompts only, where given."""
    given = {"masked": int(masked), "roles": [r.value for r in roles], "recording": recording.id}
    table = store.query(_TOKENS, given)
    tokens, seen = table["token"].to_numpy(), table["seen"].to_numpy()
    seen = seen & _covered(store, recording, tokens)
    if ordinals is not None:
        seen = seen & np.isin(tokens // TOKENS_PER_PROMPT, ordinals)
    return TokenSet(recording=recording.id, tokens=tokens[seen], others=tokens[~seen])


def latent_totals(store: Store, tokens: TokenSet) -> pa.Table:
    """Per latent that fires on `tokens`: latent, fires, max, units (the sum of its values in
    units of 2⁻²⁰), in order of latent."""
    return _on(store, _TOTALS, tokens)


def activation_rows(store: Store, tokens: TokenSet) -> pa.Table:
    """token, latent, value of every activation on `tokens`, in no order."""
    return _on(store, _ROWS, tokens)


def rows_of_latents(store: Store, recording: str, latents: Sequence[int]) -> pa.Table:
    """token, latent, value wherever one of `latents` fires, in no order."""
    wanted = pa.table({"latent": pa.array(latents, pa.int32())})
    return store.query(_OF_LATENTS, {"recording": recording}, tables={"wanted": wanted})


def latent_places(store: Store, recording: str, latent: int) -> pa.Table:
    """token, value wherever a latent fires, in order."""
    return store.query(_PLACES, {"recording": recording, "latent": latent})


def latent_peaks(
    store: Store, recording: str, latents: Numbers, values: NDArray[np.float64]
) -> pa.Table:
    """latent, token wherever one of `latents` [n] has exactly its value of `values` [n]."""
    wanted = pa.table({"latent": pa.array(latents, pa.int32()), "value": values.astype(np.float32)})
    return store.query(_PEAKS, {"recording": recording}, tables={"wanted": wanted})


def values_in_prompts(
    store: Store, recording: str, latents: Sequence[int], ordinals: Sequence[int]
) -> dict[tuple[int, int], float]:
    """(latent, token) → value, for each pair [n] of a latent and the ordinal of a prompt."""
    wanted = pa.table(
        {"latent": pa.array(latents, pa.int32()), "ordinal": pa.array(ordinals, pa.int64())}
    )
    table = store.query(_IN_PROMPTS, {"recording": recording}, tables={"wanted": wanted})
    columns = (table[c].to_pylist() for c in ("latent", "token", "value"))
    return {(latent, token): value for latent, token, value in zip(*columns, strict=True)}


def prompt_tokens(store: Store, recording: str, ordinals: Numbers) -> pa.Table:
    """prompt, token, text, role, mask, generated of whole prompts, in order of token."""
    wanted = pa.table({"ordinal": pa.array(np.unique(ordinals), pa.int64())})
    return store.query(_TEXTS, {"recording": recording}, tables={"wanted": wanted})


def seen_texts(store: Store, recording: str, token_ids: Sequence[int]) -> dict[int, str]:
    """How these token ids are written, of those that the recording holds."""
    table = store.query(
        "SELECT token_id, min(text) AS text FROM tokens "
        "WHERE recording = $recording AND list_contains($ids, token_id) GROUP BY token_id",
        {"recording": recording, "ids": list(token_ids)},
    )
    return dict(zip(table["token_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _on(store: Store, sql: str, tokens: TokenSet) -> pa.Table:
    given = {"recording": tokens.recording}
    if not len(tokens.others):
        return store.query(sql.replace("JOIN", ""), given)
    few = len(tokens.tokens) <= len(tokens.others)
    kind, named = ("SEMI", tokens.tokens) if few else ("ANTI", tokens.others)
    tables = {"wanted": pa.table({"token": pa.array(named, pa.int64())})}
    return store.query(
        sql.replace("JOIN", f"{kind} JOIN wanted USING (token)"), given, tables=tables
    )


def _covered(store: Store, recording: Recording, tokens: Numbers) -> NDArray[np.bool_]:
    """Which of the tokens lie in a covered range; ranges may touch or overlap."""
    ranges = store.query(
        "SELECT first_token, last_token FROM coverage WHERE recording = ? AND sae = ?",
        [recording.id, recording.sae.digest],
    )
    # A token is covered where more ranges have begun than have ended before it.
    begun = np.searchsorted(np.sort(ranges["first_token"].to_numpy()), tokens, side="right")
    ended = np.searchsorted(np.sort(ranges["last_token"].to_numpy()), tokens, side="left")
    return begun > ended
