"""Linear probes for classes of words, and which few latents stand for a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, one_hot

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.tensors import SparseLatents

PENALTIES = (1e-4, 1e-3, 1e-2)
LEAST_WORDS = 5
_VALIDATE_EVERY = 5
_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearProbes:
    """One logistic probe per class: a word is called of class c where x·weight_c + bias_c > 0."""

    weight: Float32[Tensor, "classes d_in"]
    bias: Float32[Tensor, " classes"]
    penalty: float

    def scores(self, x: Float[Tensor, "word d_in"]) -> Float[Tensor, "word classes"]:
        """Log-odds of every class."""
        return x @ self.weight.T + self.bias

    @property
    def directions(self) -> Float32[Tensor, "classes d_in"]:
        """The probes' directions at length 1."""
        return normalize(self.weight, dim=1)


def fit_probes(
    x: Float[Tensor, "word d_in"], labels: Int64[Tensor, " word"], classes: int
) -> LinearProbes:
    """Fit one-against-rest logistic probes on standardised activations, all classes at once.

    The L2 penalty is the one of `PENALTIES` with the highest mean F1 on every fifth word, probes
    being fitted on the others; then all words are fitted. Invariant to the scale of each
    coordinate. Raises InvalidInput for fewer than ten words.
    """
    if len(x) < 2 * _VALIDATE_EVERY:
        raise InvalidInput(f"probes need at least {2 * _VALIDATE_EVERY} words, not {len(x)}")
    held = torch.arange(len(x)) % _VALIDATE_EVERY == 0
    found: list[tuple[float, float]] = []
    for penalty in PENALTIES:
        probes = _fit(x[~held], labels[~held], classes, penalty)
        called = probes.scores(x[held]) > 0
        scores = [class_f1(called[:, c], labels[held] == c) for c in range(classes)]
        values = [s.value for s in scores if isinstance(s, Measured)]
        found.append((float(np.mean(values)) if values else 0.0, penalty))
    return _fit(x, labels, classes, max(found)[1])


def class_f1(called: Bool[Tensor, " word"], true: Bool[Tensor, " word"]) -> Measure:
    """F1 over words; not measured with fewer than LEAST_WORDS words of the class. n is theirs."""
    n = int(true.sum())
    if n < LEAST_WORDS:
        return NotMeasured(f"{n} words of this class, fewer than {LEAST_WORDS}")
    return Measured(value=2 * int((called & true).sum()) / (int(called.sum()) + n), n=n)


@torch.enable_grad()
def _fit(x: Tensor, labels: Tensor, classes: int, penalty: float) -> LinearProbes:
    mean, deviation = x.double().mean(0), x.double().std(0)
    scale = torch.where(deviation > 0, deviation, 1.0)
    z = ((x.double() - mean) / scale).float()
    y = one_hot(labels, classes).float()
    weight = torch.zeros(z.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = binary_cross_entropy_with_logits(z @ weight + bias, y, reduction="sum") / len(z)
        total = fit + penalty * weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    rows = (weight.detach().double() / scale.unsqueeze(1)).T
    return LinearProbes(
        weight=rows.float(),
        bias=(bias.detach().double() - rows @ mean).float(),
        penalty=penalty,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MainLatents:
    """The few latents that stand for a class; `f1` are those of the best 1, 2, … latents."""

    latents: Int64[Tensor, " k"]
    f1: tuple[float, ...]


def find_main_latents(
    latents: SparseLatents,
    member: Bool[Tensor, " word"],
    *,
    most: int = 5,
    jump: float = 0.03,
    strength: float = 1e-3,
) -> MainLatents:
    """The latents that k-sparse probing finds for a class (Gurnee 2023; Chanin 2024, §4).

    Latents are ranked by their positive weights in a logistic probe with L1 penalty; then k = 1,
    2, … of them are probed, and one more is taken as long as it raises F1 by more than `jump`:
    with more than one, the class is split. Classes are weighted as if equally frequent, each
    latent is measured in units of its largest value. Empty where no latent has a positive weight.
    """
    x = _scaled(latents)
    y = member.numpy()
    if not 0 < int(y.sum()) < len(y):
        return MainLatents(latents=torch.empty(0, dtype=torch.int64), f1=())
    ranking = LogisticRegression(
        l1_ratio=1.0,
        solver="liblinear",
        C=1 / (strength * len(y)),
        max_iter=2000,
        class_weight="balanced",
        random_state=0,
    ).fit(x, y)
    weights = np.asarray(ranking.coef_[0])
    order = [int(j) for j in np.argsort(-weights, kind="stable")[:most] if weights[j] > 0]
    scores: list[float] = []
    for k in range(1, len(order) + 1):
        scores.append(_sparse_f1(x[:, order[:k]].toarray(), y))
        if k > 1 and scores[-1] <= scores[-2] + jump:
            break
    kept = len(scores) - (len(scores) > 1 and scores[-1] <= scores[-2] + jump)
    return MainLatents(latents=torch.tensor(order[:kept], dtype=torch.int64), f1=tuple(scores))


def _scaled(latents: SparseLatents) -> csr_matrix:
    largest = torch.zeros(latents.d_sae).scatter_reduce(
        0, latents.indices, latents.values, "amax", include_self=True
    )
    values = latents.values / largest[latents.indices]
    return csr_matrix(
        (values.double().numpy(), latents.indices.numpy(), latents.offsets.numpy()),
        shape=(latents.n_tokens, latents.d_sae),
    )


def _sparse_f1(x: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    called = LogisticRegression(class_weight="balanced", max_iter=500).fit(x, y).predict(x)
    return 2 * int((called & y).sum()) / (int(called.sum()) + int(y.sum()))
