"""k-sparse probes find planted features, and find nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured
from auditkit.quality import (
    LabelledFeatures,
    Probe,
    majority_accuracy,
    mean_latents,
    probe_dense,
    probe_sparse,
)
from auditkit.quality.sparse_probing import rank_features
from auditkit.tensors import SparseLatents


def task(seed: int, *, features: int = 40, n: int = 80, planted: int | None = None, gap: float = 4):
    """Noise, and with `planted` one feature whose classes lie `gap` deviations apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(2 * n) % 2 == 0
    x = rng.normal(size=(2 * n, features))
    if planted is not None:
        x[labels, planted] += gap
    return LabelledFeatures(fit=x[:n], fit_labels=labels[:n], test=x[n:], test_labels=labels[n:])


def area(probe: Probe) -> Measured:
    assert isinstance(probe.auroc, Measured)
    assert isinstance(probe.accuracy, Measured)
    return probe.auroc


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_feature_is_chosen_first_and_separates(sign: int) -> None:
    found = probe_sparse(task(0, planted=17, gap=6 * sign))
    assert found[1].chosen == (17,)
    for k in (1, 2, 5):
        assert found[k].chosen is not None
        assert len(found[k].chosen) == k
        assert found[k].chosen[0] == 17
        assert area(found[k]).value > 0.99
        assert isinstance(found[k].accuracy, Measured)
        assert found[k].accuracy.value > 0.95
        assert found[k].accuracy.n == 80


def test_two_planted_features_need_two() -> None:
    """Labels are the sign of a sum: either feature alone tells it half the way."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 30))
    labels = x[:, 3] + x[:, 8] > 0
    both = LabelledFeatures(
        fit=x[:200], fit_labels=labels[:200], test=x[200:], test_labels=labels[200:]
    )
    found = probe_sparse(both)
    assert set(found[2].chosen or ()) == {3, 8}
    assert area(found[1]).value < 0.9
    assert area(found[2]).value > 0.97


def test_on_noise_the_interval_of_auroc_holds_one_half() -> None:
    """Features are chosen among many, and the half that is scored knows nothing of the choice."""
    covered = 0
    for seed in range(30):
        interval = area(probe_sparse(task(seed, features=300, n=60))[1]).interval
        assert interval is not None
        covered += interval.low <= 0.5 <= interval.high
    assert covered >= 27


def test_a_dense_probe_on_noise_finds_nothing_and_on_a_plant_all() -> None:
    noise = area(probe_dense(task(2))).interval
    assert noise is not None
    assert noise.low <= 0.5 <= noise.high
    assert area(probe_dense(task(2, planted=5, gap=6))).value > 0.99


def test_the_larger_class_is_that_of_the_fitting_half() -> None:
    x = np.zeros((10, 1))
    fit = np.array([True] * 7 + [False] * 3)
    test = np.array([True] * 2 + [False] * 8)
    found = majority_accuracy(LabelledFeatures(fit=x, fit_labels=fit, test=x, test_labels=test))
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(0.2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_choice_and_score_do_not_change_with_scale_or_the_order_of_examples(
    seed: int, scale: float
) -> None:
    one = task(seed, features=12, n=40, planted=4, gap=1.5)
    order = np.random.default_rng(seed).permutation(40)
    other = LabelledFeatures(
        fit=one.fit[order] * scale,
        fit_labels=one.fit_labels[order],
        test=one.test[order] * scale,
        test_labels=one.test_labels[order],
    )
    a, b = probe_sparse(one), probe_sparse(other)
    for k in a:
        assert a[k].chosen == b[k].chosen
        assert area(b[k]).value == pytest.approx(area(a[k]).value, abs=1e-3)


def test_a_feature_that_never_varies_is_chosen_last() -> None:
    given_task = task(3, features=5, planted=2)
    x = given_task.fit.copy()
    x[:, 4] = 1.0
    assert rank_features(x, given_task.fit_labels)[-1] == 4


def test_a_half_of_one_class_is_refused() -> None:
    x, labels = np.zeros((4, 2)), np.array([True, True, False, False])
    with pytest.raises(InvalidInput, match="testing half has 4 positives among 4"):
        LabelledFeatures(fit=x, fit_labels=labels, test=x, test_labels=np.ones(4, dtype=bool))


def test_means_are_over_all_tokens_of_a_piece() -> None:
    latents = SparseLatents.from_dense(
        torch.tensor([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0], [0.0, 0.0]])
    )
    pieces = torch.tensor([0, 2, 0, 2])
    found = mean_latents(latents, pieces, 3)
    assert found.tolist() == [[3.0, 0.0], [0.0, 0.0], [0.0, 1.5]]
