"""The data of `train_step.py`: planted sums of directions, or stored activations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from auditkit.training import ActivationStore, TrainPlan
from auditkit.training.activations.batches import split_rows

HELD_OUT = 8192
FREQUENT = 1000


@dataclass(frozen=True)
class Rows:
    """Training and held-out rows in the data's units; planted directions, the frequent first."""

    train: Tensor
    held_out: Tensor
    directions: Tensor | None


def planted_rows(n: int, d_in: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sums of ~40 of 16,384 unit directions with power-law frequencies, on a common mean; and the
    directions."""
    # A stream of their own: a trainer that draws its first decoder from the same seed must not
    # begin at the answer.
    g = torch.Generator().manual_seed(seed + 1_000_003)
    features, per_token = 16_384, 40
    directions = normalize(torch.randn(features, d_in, generator=g), dim=1)
    rate = (torch.arange(features) + 20.0) ** -0.8
    edges = (rate.cumsum(0) / rate.sum())[:-1].contiguous()
    chosen = torch.bucketize(torch.rand(n, per_token, generator=g), edges)
    amounts = torch.empty(n, per_token).exponential_(1.0, generator=g)
    x = embedding_bag(chosen, directions, mode="sum", per_sample_weights=amounts)
    mean = normalize(torch.randn(d_in, generator=g), dim=0) * float(x.norm(dim=1).mean())
    return x + mean + 0.02 * torch.randn(n, d_in, generator=g), directions


def load_rows(folder: Path | None, plan: TrainPlan, steps: int) -> Rows:
    """Rows for as many steps, at most 40 batches that then come again."""
    wanted = min(steps, 40) * plan.batch_size
    if folder is None:
        x, directions = planted_rows(wanted + HELD_OUT, plan.d_in)
        return Rows(x[HELD_OUT:], x[:HELD_OUT], directions)
    store = ActivationStore(folder)
    store.check_width(plan.d_in)
    split = split_rows(store, held_out=HELD_OUT, high_norm_factor=plan.high_norm_factor)
    order = np.random.default_rng(0).permutation(split.train)[:wanted]
    held_out = store.rows(torch.from_numpy(split.held_out))
    return Rows(store.rows(torch.from_numpy(order)), held_out, None)


def recovery(decoder: Tensor | None, directions: Tensor | None) -> float | None:
    """Mean over the most frequent planted directions of the best cosine with a decoder row."""
    if decoder is None or directions is None:
        return None
    return float((directions[:FREQUENT] @ normalize(decoder, dim=1).T).amax(dim=1).mean())
