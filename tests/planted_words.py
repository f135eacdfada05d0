"""An SAE on the tiny model in which each chosen word has a latent of its own, and rules on words.

It reads the embeddings (blocks.0.hook_resid_pre), where a word is always the same vector: which
tokens fire a rule is known from the text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from auditkit.core.hook_point import HookPoint, Site
from auditkit.core.locks import Frame, LockedRule, Severity
from auditkit.core.prompts import Role
from auditkit.models import LanguageModel
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from tests.watched import rule


def word_sae(model: LanguageModel, words: Sequence[str]) -> SparseAutoencoder:
    """Latent n is active on words[n] and nowhere else: it is nearest to its own embedding."""
    table = model.network.get_input_embeddings().weight.detach().float()
    ids = model.tokenizer.convert_tokens_to_ids(list(words))
    x = table[ids]
    norms = x.norm(dim=1)
    shares = table @ (x / norms[:, None]).T
    shares[ids, range(len(ids))] = -1.0
    nearest = shares.amax(dim=0)
    assert bool((norms - nearest > 0.05).all()), "two words' embeddings lie too near"
    tensors = {
        "W_enc": (x / norms[:, None]).T.contiguous(),
        "W_dec": x / norms[:, None],
        "b_enc": -(norms + nearest) / 2,
        "b_dec": torch.zeros(x.shape[1]),
    }
    config = SaeConfig(
        name="words",
        architecture=ArchitectureName.STANDARD,
        d_in=x.shape[1],
        d_sae=len(words),
        hook_point=HookPoint(layer=0, site=Site.RESID_PRE),
    )
    return SparseAutoencoder(config, tensors)


def word_rule(
    latent: int,
    word: str,
    *roles: Role,
    severity: Severity = Severity.HIGH,
    condition: str = "max(s) >= 0.01",
    unresolved: str | None = None,
) -> LockedRule:
    """Fires where a message of these roles (none: any) has the word of this latent."""
    made = rule(
        f"word.{word}",
        condition,
        latent,
        frame=Frame.MESSAGE,
        roles=roles,
        severity=severity,
        unresolved=unresolved,
    )
    return replace(made, title=f"The word {word}")
