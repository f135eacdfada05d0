"""How far plain text tells the twins of a family apart: an honest number beside every detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from suite_text.balance import FEATURES, SIDES, auroc, cue_aurocs, words
from suite_text.pairs import Family

FOLDS = 10


def classifiers() -> dict[str, Pipeline]:
    """TF-IDF with logistic regression, over words and over pieces of words."""
    word = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    char = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return {
        "words 1-2": make_pipeline(word, LogisticRegression(C=10.0, max_iter=1000)),
        "characters 2-5": make_pipeline(char, LogisticRegression(C=10.0, max_iter=1000)),
    }


def cross_validated(family: Family, model: Pipeline) -> float:
    """AUROC over ten folds; both twins of a pair are always in the same fold."""
    texts = [p.side(side) for side in SIDES for p in family.pairs]
    n = len(family.pairs)
    labels = np.repeat([1, 0], n)
    groups = np.tile([p.number for p in family.pairs], 2)
    scores = cross_val_predict(
        model, texts, labels, groups=groups, cv=GroupKFold(FOLDS), method="decision_function"
    )
    return auroc(list(scores[:n]), list(scores[n:]))


def strongest_word(family: Family) -> tuple[str, float]:
    """The word whose presence alone says most, and its AUROC."""
    counts: dict[str, int] = {}
    for pair in family.pairs:
        for sign, side in zip((1, -1), SIDES, strict=True):
            for word in FEATURES["word"](pair.side(side)):
                counts[word] = counts.get(word, 0) + sign
    word = max(sorted(counts), key=lambda w: abs(counts[w]))
    return word, 0.5 + counts[word] / len(family.pairs) / 2


def table(families: Sequence[Family]) -> str:
    """One line a family, in Markdown."""
    rows = [
        "| family | pairs | words | length | strongest word | TF-IDF words | TF-IDF characters |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in families:
        turns = [p.side(side) for p in family.pairs for side in SIDES]
        length = sum(len(words(t)) for t in turns) / len(turns)
        word, strength = strongest_word(family)
        scores = [f"{cross_validated(family, m):.2f}" for m in classifiers().values()]
        cues = f"{cue_aurocs(family)['characters']:.2f}"
        cells = [family.name, len(family.pairs), f"{length:.0f}", cues, f"{word} {strength:.2f}"]
        rows.append("| " + " | ".join(map(str, [*cells, *scores])) + " |")
    return "\n".join(rows)
