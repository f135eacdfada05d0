"""Neuron resampling: latents that died start anew where the SAE does worst.

Bricken et al. 2023, "Towards Monosemanticity", appendix on training. They score 819,200 inputs;
here the inputs are those of one batch, which a resumed run sees again.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.training.objective_step import Batch
from auditkit.training.parameters import TrainState

ENCODER_SHARE = 0.2


def resample(
    state: TrainState,
    batch: Batch,
    error: Float[Tensor, "batch d_out"],
    dead: Int[Tensor, " dead"],
    *,
    seed: int,
) -> None:
    """Draw the `dead` latents of `state` anew, in place, after the step that it counts last.

    Each takes a token of the batch, drawn with a probability that is as the square of the token's
    loss ‖e‖². The decoder's row becomes the token's direction (the target's), the encoder's the
    direction of what the encoder reads there, at 0.2 of the mean norm of the living latents; the
    bias is 0 and Adam forgets them. Their silence is counted from now on.
    """
    p = state.parameters
    alive = torch.ones(p.d_sae, dtype=torch.bool)
    alive[dead] = False
    norms = p.W_enc_rows[alive].norm(dim=1)
    size = ENCODER_SHARE * (norms.mean() if len(norms) else p.W_enc_rows.norm(dim=1).mean())
    loss = error.square().sum(dim=1, dtype=torch.float64)
    generator = torch.Generator().manual_seed((seed << 32) + state.step)
    drawn = torch.multinomial(
        (loss / loss.max().clamp_min(torch.finfo(loss.dtype).tiny)).square() + 1e-30,
        len(dead),
        replacement=True,
        generator=generator,
    )
    p.W_dec[dead] = normalize(batch.wanted[drawn], dim=1)
    p.W_enc_rows[dead] = normalize(batch.centred[drawn], dim=1) * size
    p.b_enc[dead] = 0.0
    for moments in (state.first_moments, state.second_moments):
        for tensor in (moments.W_dec, moments.W_enc_rows, moments.b_enc):
            tensor[dead] = 0.0
    state.silent_tokens[dead] = 0
