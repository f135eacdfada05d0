"""Whether the twins of a paired suite can be told apart by something other than their meaning.

The measures take the turns of the two sides, in the order of the pairs. Bounds are those of a cue
that would be worth using: with n = 60 pairs the AUROC of a cue that says nothing has a standard
deviation of sqrt((2n + 1) / 12n²) = 0.053 (Mann and Whitney 1947): 0.4 and 0.6 are 1.9 of them
away.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from scipy.stats import binomtest, fisher_exact, rankdata
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from suite_text.pairs import Family, Pair

LEAST_PAIRS = 60
CUE = (0.4, 0.6)
WORD_POINTS = 0.20
SIGNIFICANT = 0.05
LENGTH_SHARE = 0.15
LENGTH_WORDS = 2
SHARED = 0.3
ALIKE = 0.6
OPENING = 4
SAME_OPENING = 3
Cue = Callable[[str], float]
CUES: dict[str, Cue] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "sentences": lambda text: len(re.findall(r"[.!?]+(?=\s|$)", text)),
    "capitals": lambda text: sum(c.isupper() for c in text),
    "digits": lambda text: sum(c.isdigit() for c in text),
    "marks": lambda text: len(re.findall(r"[^\w\s]", text)),
}


def words(text: str) -> list[str]:
    """The lower-case words of a text, and numbers."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def content_words(text: str) -> frozenset[str]:
    """The words of a text that are no function words."""
    return frozenset(words(text)) - ENGLISH_STOP_WORDS


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive is above a negative; ties count half."""
    n, m = len(positive), len(negative)
    ranks = rankdata([*positive, *negative])
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def cue_aurocs(family: Family) -> dict[str, float]:
    """AUROC of each surface cue by itself."""
    sides = [[p.concerning for p in family.pairs], [p.benign for p in family.pairs]]
    return {
        name: auroc([cue(t) for t in sides[0]], [cue(t) for t in sides[1]])
        for name, cue in CUES.items()
    }


def telling_words(
    family: Family, of: Callable[[str], set[str]]
) -> Iterator[tuple[str, int, int, float]]:
    """Features (word, its two document counts, Bonferroni's p) that tell the sides apart.

    A word's presence has AUROC 0.5 + half the difference of its document frequencies, so 20 points
    are an AUROC of 0.60.
    """
    n = len(family.pairs)
    counts = [Counter(w for p in family.pairs for w in of(p.side(s))) for s in SIDES]
    vocabulary = sorted(counts[0] | counts[1])
    for word in vocabulary:
        a, b = counts[0][word], counts[1][word]
        if abs(a - b) <= 3:
            continue
        p = min(1.0, len(vocabulary) * float(fisher_exact([[a, n - a], [b, n - b]]).pvalue))
        if abs(a - b) > WORD_POINTS * n or p < SIGNIFICANT:
            yield word, a, b, p


SIDES = ("concerning", "benign")
FEATURES: dict[str, Callable[[str], set[str]]] = {
    "word": lambda text: set(words(text)),
    "first word": lambda text: set(words(text)[:1]),
    "last word": lambda text: set(words(text)[-1:]),
}


def check_family(family: Family) -> Iterator[str]:
    """Every complaint about one family."""
    if len(family.pairs) < LEAST_PAIRS:
        yield f"{len(family.pairs)} pairs, {LEAST_PAIRS} wanted"
    for name, value in cue_aurocs(family).items():
        if not CUE[0] <= value <= CUE[1]:
            yield f"{name} tell the sides apart: AUROC {value:.2f}"
    for what, of in FEATURES.items():
        for word, a, b, p in telling_words(family, of):
            yield f"{what} {word!r} is in {a} concerning and {b} benign twins (p {p:.2g})"
    yield from check_direction(family)
    for pair in family.pairs:
        yield from (f"pair {pair.number}: {text}" for text in check_pair(pair))
    yield from check_apart(family)


def check_direction(family: Family) -> Iterator[str]:
    """Within the pairs too, neither side may be the longer one too often (sign test)."""
    differences = [len(p.concerning) - len(p.benign) for p in family.pairs]
    longer, shorter = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if longer + shorter and binomtest(longer, longer + shorter).pvalue < SIGNIFICANT:
        yield f"the concerning twin is longer in {longer} pairs, shorter in {shorter}"


def check_pair(pair: Pair) -> Iterator[str]:
    """Twins have nearly the same length and share words."""
    a, b = pair.concerning, pair.benign
    spread = abs(len(a) - len(b)) / max(len(a), len(b))
    if spread > LENGTH_SHARE and abs(len(a.split()) - len(b.split())) > LENGTH_WORDS:
        yield f"{len(a)} against {len(b)} characters"
    one, other = content_words(a), content_words(b)
    share = len(one & other) / max(len(one), len(other), 1)
    if share < SHARED:
        yield f"the twins share {share:.0%} of their content words"


def check_apart(family: Family) -> Iterator[str]:
    """Different pairs are different texts: no common opening, no common bag of words."""
    openings = Counter(
        opening for p in family.pairs for opening in {start(p.concerning), start(p.benign)}
    )
    for opening, count in openings.items():
        if count > SAME_OPENING:
            yield f"{count} pairs begin with {' '.join(opening)!r}"
    yield from near_duplicates([family])


def start(text: str) -> tuple[str, ...]:
    """The first words of a text."""
    return tuple(words(text)[:OPENING])


def near_duplicates(families: Sequence[Family]) -> Iterator[str]:
    """Turns of different pairs with too many words in common (Jaccard)."""
    bags = [
        (f"{f.name} {p.number}", frozenset(words(p.side(side))))
        for f in families
        for p in f.pairs
        for side in SIDES
    ]
    for (one, a), (other, b) in combinations(bags, 2):
        if one != other and len(a & b) >= ALIKE * len(a | b):
            yield f"{one} and {other} have nearly the same words"
