"""A model that knows nothing: the same architecture with freshly drawn weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from auditkit.core.errors import InvalidInput
from auditkit.models import LanguageModel


def with_random_weights(model: LanguageModel, *, seed: int) -> LanguageModel:
    """A model of `model`'s configuration, tokenizer, dtype and device whose weights, embeddings
    included, are drawn anew as its architecture draws them before training.

    The weights are drawn in float32 from `seed` alone and then rounded to the model's dtype, so
    that two dtypes hold the same draw. Name and identity are the new model's own. Raises
    InvalidInput where the weights that come out equal the given ones.

    An SAE on such a model is a floor for one on a trained model (Heap et al. 2025, "Sparse
    Autoencoders Can Interpret Randomly Initialized Transformers").
    """
    old: Any = model.network
    first = next(old.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = type(old)(copy.deepcopy(old.config))
    drawn = LanguageModel.wrap(
        network.to(dtype=first.dtype, device=first.device),
        model.tokenizer,
        name=f"{model.identity.name}, random weights of seed {seed}",
    )
    if drawn.identity.weights_sha256 == model.identity.weights_sha256:
        raise InvalidInput(
            f"{model.identity.name}: its weights already are the random ones of seed {seed}",
            help="name another seed, or a trained model",
        )
    return drawn
