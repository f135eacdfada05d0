"""Adam with a unit-norm decoder, for all latents at every step.

A latent without activity in a batch has a gradient of zero: its moments decay and its weights
move on with what momentum is left, exactly as in ordinary (dense) Adam. The lazy variant, which
leaves silent latents untouched, would be another optimiser than the one the references use.
"""

from __future__ import annotations

import torch

from auditkit.training.parameters import SaeParameters, TrainState
from auditkit.training.plan import TrainPlan


def bias_corrections(plan: TrainPlan, step: int) -> tuple[float, float]:
    """1/(1 − β1^t) and 1/(1 − β2^t) for step `step` (from 0), t = step + 1."""
    return 1.0 / (1.0 - plan.beta1 ** (step + 1)), 1.0 / (1.0 - plan.beta2 ** (step + 1))


def adam_update(state: TrainState, gradients: SaeParameters, plan: TrainPlan) -> None:
    """Update the state's parameters and moments in place; `gradients` are consumed.

    The part of W_dec's gradient along each row is removed before Adam (it would only change the
    norm), and rows are set back to norm 1 after. A frozen decoder and its moments stay as they
    are, to the bit.
    """
    p = state.parameters
    if not plan.frozen_decoder:
        along = (gradients.W_dec * p.W_dec).sum(dim=1, keepdim=True)
        gradients.W_dec.sub_(along * p.W_dec)
    rate = plan.learning_rate(state.step)
    first, second = bias_corrections(plan, state.step)
    m, v = state.first_moments.named(), state.second_moments.named()
    for name, parameter in p.named().items():
        if plan.frozen_decoder and name == "W_dec":
            continue
        gradient = gradients.named()[name]
        m[name].lerp_(gradient, 1.0 - plan.beta1)
        v[name].mul_(plan.beta2).addcmul_(gradient, gradient, value=1.0 - plan.beta2)
        scale = (v[name] * second).sqrt_().add_(plan.eps)
        parameter.addcdiv_(m[name], scale, value=-rate * first)
    if not plan.frozen_decoder:
        p.W_dec.div_(p.W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(p.W_dec.dtype).tiny))
