"""Plain detectors that a rule has to stand beside: dense directions and text alone.

Each is fitted on the selection part of the examples and returns scores for the other part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

Floats = NDArray[np.float64]

DIFFERENCE_OF_MEANS = "difference of means"
LOGISTIC = "logistic regression on dense activations"
TFIDF = "text only (TF-IDF)"


def difference_of_means(x: Floats, y: NDArray[np.bool_], test: Floats) -> Floats:
    """Project `test` [example, d_in] on the difference of the class means of `x`."""
    direction = x[y].mean(axis=0) - x[~y].mean(axis=0)
    return np.asarray(test @ direction, dtype=np.float64)


def logistic_regression(x: Floats, y: NDArray[np.bool_], test: Floats) -> Floats:
    """Scores of an L2 logistic regression on standardised dense activations (C = 0.1)."""
    weights, bias = fit_logistic(x, y)
    return np.asarray(test @ weights + bias, dtype=np.float64)


def fit_logistic(x: Floats, y: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Weights [d_in] and bias of that regression, on `x` as it is."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1.0
    model = LogisticRegression(C=0.1, max_iter=5000, class_weight="balanced")
    model.fit((x - mean) / deviation, y)
    coefficients = np.asarray(model.coef_, dtype=np.float64)
    bias = np.asarray(model.intercept_, dtype=np.float64)
    weights: Floats = coefficients[0] / deviation
    return weights, float(bias[0] - mean @ weights)


def text_only(texts: Sequence[str], y: NDArray[np.bool_], test: Sequence[str]) -> Floats | None:
    """Scores of a logistic regression on TF-IDF of word 1- and 2-grams; None without any word."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1),
        LogisticRegression(C=10.0, max_iter=5000, class_weight="balanced"),
    )
    try:
        model.fit(list(texts), y)
    except ValueError:
        return None
    return np.asarray(model.decision_function(list(test)), dtype=np.float64)
