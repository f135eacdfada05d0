"""Where in a text latents fire, and a fair draw of such places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.models import LanguageModel, length_sorted_batches
from auditkit.saes import SparseAutoencoder

_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A latent active at a token: the number of the prompt, the position in it, the value."""

    latent: int
    prompt: int
    position: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CapturedText:
    """Prompts, their activations [pos, d_in] at the hook point, and every fire of a latent."""

    prompts: Sequence[TokenizedPrompt]
    x: Sequence[Float[Tensor, "_ d_in"]]
    latent: Int64[Tensor, " fire"]
    prompt: Int64[Tensor, " fire"]
    position: Int64[Tensor, " fire"]
    value: Float[Tensor, " fire"]

    @property
    def live(self) -> int:
        """How many latents fire anywhere."""
        return int(self.latent.unique().numel())


def capture_text(
    model: LanguageModel,
    sae: SparseAutoencoder,
    prompts: Sequence[TokenizedPrompt],
    *,
    norm_limit: float | None = None,
) -> CapturedText:
    """Find the fires on unmasked tokens of norm at most `norm_limit`, first tokens aside."""
    x: list[Tensor] = [torch.zeros(0, model.d_model)] * len(prompts)
    found: list[Tensor] = []
    values: list[Tensor] = []
    for rows in length_sorted_batches(prompts, max_tokens=_BATCH_TOKENS):
        batch = model.pad([prompts[i] for i in rows])
        captured = model.capture(batch, [sae.hook_point])[sae.hook_point]
        for row, prompt in enumerate(rows):
            own = captured[row, : len(prompts[prompt])]
            x[prompt] = own.clone()
            usable = batch.masks[row, : len(own)] == int(TokenMask.NONE)
            usable[0] = False
            if norm_limit is not None:
                usable &= own.norm(dim=1) <= norm_limit
            places = usable.nonzero()[:, 0]
            latents = sae.encode(own[places])
            at = places.cpu()[latents.token_ids()]
            found.append(torch.stack([latents.indices, torch.full_like(at, prompt), at]))
            values.append(latents.values)
    columns = torch.cat(found, dim=1) if found else torch.zeros(3, 0, dtype=torch.int64)
    return CapturedText(
        prompts=prompts,
        x=x,
        latent=columns[0],
        prompt=columns[1],
        position=columns[2],
        value=torch.cat(values) if values else torch.zeros(0),
    )


def draw_fires(text: CapturedText, *, latents: int, fires: int, seed: int = 0) -> list[Fire]:
    """Up to `fires` fires of each of up to `latents` live latents, every one as likely as another;
    in the order of the text."""
    rng = np.random.default_rng((seed, 0xF17E))
    live = text.latent.unique()
    chosen = torch.from_numpy(rng.permutation(len(live))[:latents])
    of_chosen = torch.isin(text.latent, live[chosen]).nonzero()[:, 0]
    shuffled = of_chosen[torch.from_numpy(rng.permutation(len(of_chosen)))]
    ordered = shuffled[text.latent[shuffled].argsort(stable=True)]
    _, counts = text.latent[ordered].unique_consecutive(return_counts=True)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    kept = ordered[torch.arange(len(ordered)) - starts < fires]
    picked = [
        Fire(
            latent=int(text.latent[i]),
            prompt=int(text.prompt[i]),
            position=int(text.position[i]),
            value=float(text.value[i]),
        )
        for i in kept.tolist()
    ]
    return sorted(picked, key=lambda f: (f.prompt, f.position, f.latent))
