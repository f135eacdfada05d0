"""k-sparse probing: how well k latents tell labelled texts apart (Gurnee et al. 2023; Gao et al.
2024, §4.1), beside a dense probe and the larger class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure
from auditkit.core.statistics import auroc, binomial_rate
from auditkit.tensors import SparseLatents

SPARSITIES = (1, 2, 5)
SPARSE_C, DENSE_C = 1.0, 0.1
Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledFeatures:
    """Features [example, feature] of two halves of labelled examples: one to fit, one to test.

    Raises InvalidInput where a half lacks a class.
    """

    fit: Floats
    fit_labels: Labels
    test: Floats
    test_labels: Labels

    def __post_init__(self) -> None:
        for name, labels in (("fitting", self.fit_labels), ("testing", self.test_labels)):
            if not 0 < int(labels.sum()) < len(labels):
                raise InvalidInput(
                    f"the {name} half has {int(labels.sum())} positives among {len(labels)} "
                    "examples",
                    help="a probe needs both classes in both halves",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe on the features `chosen` (None: all of them), scored on the half it did not see.

    Intervals: Clopper–Pearson for accuracy, DeLong's and Newcombe's for AUROC.
    """

    chosen: tuple[int, ...] | None
    accuracy: Measure
    auroc: Measure


def probe_sparse(task: LabelledFeatures, *, ks: Sequence[int] = SPARSITIES) -> dict[int, Probe]:
    """For each k, a logistic regression on the k features that tell the fitting half apart best.

    Features are ranked by |AUROC − ½| there, ties by the difference of means in standard
    deviations; choosing and fitting see nothing of the other half.
    """
    order = rank_features(task.fit, task.fit_labels)
    probes: dict[int, Probe] = {}
    for k in ks:
        chosen = order[:k]
        scores = _scores(
            task.fit[:, chosen], task.fit_labels, task.test[:, chosen], inverse_strength=SPARSE_C
        )
        probes[k] = _scored(scores, task.test_labels, tuple(int(i) for i in chosen))
    return probes


def probe_dense(task: LabelledFeatures) -> Probe:
    """A logistic regression on all features, standardised (L2, C = 0.1)."""
    scores = _scores(task.fit, task.fit_labels, task.test, inverse_strength=DENSE_C)
    return _scored(scores, task.test_labels, None)


def majority_accuracy(task: LabelledFeatures) -> Measure:
    """Accuracy on the test half of always naming the larger class of the fitting half."""
    named = int(task.fit_labels.sum()) * 2 >= len(task.fit_labels)
    return binomial_rate(int((task.test_labels == named).sum()), len(task.test_labels))


def rank_features(x: Floats, labels: Labels) -> NDArray[np.int64]:
    """Features from the best single one down; equal ones by their index."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    ranks = rankdata(x, axis=0)[labels].sum(axis=0)
    areas = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    gap = np.abs(x[labels].mean(axis=0) - x[~labels].mean(axis=0))
    spread = x.std(axis=0)
    apart = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
    # Rounded, so that areas that differ only in their last bits tie.
    return np.lexsort((-np.round(apart, 9), -np.round(np.abs(areas - 0.5), 9)))


def mean_latents(
    latents: SparseLatents, pieces: Int64[Tensor, " token"], n: int
) -> Float[Tensor, "piece d_sae"]:
    """Each latent's mean over the tokens of each of `n` pieces of text; 0 without any token."""
    tokens = torch.bincount(pieces, minlength=n)
    places = pieces[latents.token_ids()] * latents.d_sae + latents.indices
    sums = torch.zeros(n * latents.d_sae, dtype=torch.float64)
    sums.index_add_(0, places, latents.values.double())
    return sums.view(n, latents.d_sae) / tokens.clamp(min=1).unsqueeze(1)


def _scores(fit: Floats, labels: Labels, test: Floats, *, inverse_strength: float) -> Floats:
    from sklearn.linear_model import LogisticRegression  # a second to load

    mean, deviation = fit.mean(axis=0), fit.std(axis=0)
    deviation[deviation == 0] = 1.0
    model = LogisticRegression(C=inverse_strength, max_iter=5000)
    model.fit((fit - mean) / deviation, labels)
    return np.asarray(model.decision_function((test - mean) / deviation), dtype=np.float64)


def _scored(scores: Floats, labels: Labels, chosen: tuple[int, ...] | None) -> Probe:
    right = int(((scores > 0) == labels).sum())
    return Probe(
        chosen=chosen,
        accuracy=binomial_rate(right, len(labels)),
        auroc=auroc(scores[labels], scores[~labels]),
    )
