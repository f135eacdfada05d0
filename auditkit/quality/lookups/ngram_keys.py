"""The keys of a lookup: tokens, pairs of tokens, or how common a token is, densely numbered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from auditkit.quality.lookups.ngram_text import NgramText


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """One key per token, numbered 0 to `keys` − 1; tested tokens of an unseen key have `keys`.

    `pair` numbers the (key, document) pairs of the fitted tokens, so that a document's own share
    of a key can be taken out; `counts` and `pair_counts` are tokens per key (0 for the unseen
    one) and per pair.
    """

    fitted: Int64[Tensor, " fitted"]
    tested: Int64[Tensor, " tested"]
    pair: Int64[Tensor, " fitted"]
    counts: Float64[Tensor, " keys_and_1"]
    pair_counts: Float64[Tensor, " pairs"]

    @property
    def keys(self) -> int:
        return len(self.counts) - 1

    @property
    def pairs(self) -> int:
        return len(self.pair_counts)

    @classmethod
    def of(
        cls, fitted: Int64[Tensor, " fitted"], tested: Int64[Tensor, " tested"], documents: Tensor
    ) -> Level:
        """Number the keys of both halves; `documents` are those of the fitted tokens."""
        seen, codes = fitted.unique(return_inverse=True)
        places = torch.searchsorted(seen, tested).clamp(max=len(seen) - 1)
        tested_codes = torch.where(seen[places] == tested, places, len(seen))
        document = documents.unique(return_inverse=True)[1]
        pair = (codes * (int(document.max()) + 1) + document).unique(return_inverse=True)[1]
        return cls(
            fitted=codes,
            tested=tested_codes,
            pair=pair,
            counts=torch.bincount(codes, minlength=len(seen) + 1).double(),
            pair_counts=torch.bincount(pair).double(),
        )


def token_levels(ids: Int64[Tensor, " token"], text: NgramText) -> tuple[Level, ...]:
    """One token decides."""
    return (_level(ids, text),)


def bigram_levels(text: NgramText) -> tuple[Level, ...]:
    """The pair (previous, current) decides, then the current token."""
    base = int(torch.maximum(text.current.max(), text.previous.max())) + 2
    pairs = (text.previous + 1) * base + text.current
    return (_level(text.current, text), _level(pairs, text))


def frequency_levels(text: NgramText) -> tuple[Level, ...]:
    """⌊log2(1 + n)⌋ decides, n how often the current token occurs in the fitted half.

    A fitted token's own document is not counted, as it is not for a tested one.
    """
    tokens = _level(text.current, text)
    others = tokens.counts[tokens.fitted] - tokens.pair_counts[tokens.pair]
    fitted, tested = ((1 + n).log2().floor().long() for n in (others, tokens.counts[tokens.tested]))
    return (Level.of(fitted, tested, text.document[text.fitted]),)


def _level(keys: Tensor, text: NgramText) -> Level:
    return Level.of(keys[text.fitted], keys[~text.fitted], text.document[text.fitted])
