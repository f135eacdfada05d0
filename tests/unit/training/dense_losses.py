"""Every objective's loss, written plainly and densely from its paper, for autograd.

No code is shared with the steps that are tested against these.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from auditkit.training import (
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Objective,
    ReluL1,
    TopK,
)


class Step(torch.autograd.Function):
    """1[v > θ], with the pseudo-derivative −K((v − θ)/ε)/ε by θ (Rajamanoharan 2024b, eq. 12)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(v, theta)
        ctx.width = width
        return (v > theta).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        v, theta = ctx.saved_tensors
        kernel = (((v - theta) / ctx.width).abs() < 0.5).to(v.dtype)
        return None, (-kernel / ctx.width * grad).sum(0), None


class Jump(torch.autograd.Function):
    """v·1[v > θ], with −(θ/ε)·K((v − θ)/ε) by θ (eq. 11) and 1[v > θ] by v."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(v, theta)
        ctx.width = width
        return v * (v > theta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        v, theta = ctx.saved_tensors
        kernel = (((v - theta) / ctx.width).abs() < 0.5).to(v.dtype)
        return (v > theta) * grad, (-theta / ctx.width * kernel * grad).sum(0), None


def fvu(target: Tensor, x_hat: Tensor) -> Tensor:
    return (target - x_hat).square().sum() / (target - target.mean(0)).square().sum()


def keep_largest(values: Tensor, count: int) -> Tensor:
    """ReLU of the `count` largest entries of all; zero elsewhere."""
    flat = values.flatten()
    kept = flat.topk(min(count, len(flat))).indices
    return torch.zeros_like(flat).scatter(0, kept, flat[kept].relu()).view_as(values)


def auxk(p: dict[str, Tensor], pre: Tensor, error: Tensor, dead: Tensor, k_aux: int) -> Tensor:
    error = error.detach()
    rows = torch.stack([keep_largest(row, k_aux) for row in pre[:, dead]])
    left = (error - rows @ p["W_dec"][dead]).square().sum()
    return left / (error - error.mean(0)).square().sum()


def dense_objective(
    objective: Objective,
    p: dict[str, Tensor],
    x: Tensor,
    target: Tensor,
    *,
    b_in: Tensor | None,
    dead: Tensor,
    warm: float,
) -> tuple[Tensor, Tensor]:
    """The loss and the dense latents; `b_in` is a transcoder's."""
    centred = x - (p["b_dec"] if b_in is None else b_in)
    product = centred @ p["W_enc_rows"].T
    pre = product + p["b_enc"]
    unit = len(x) * math.sqrt(target.shape[1])

    def decode(z: Tensor) -> Tensor:
        return z @ p["W_dec"] + p["b_dec"]

    if isinstance(objective, ReluL1):
        z = pre.relu()
        return fvu(target, decode(z)) + warm * objective.l1 * z.sum() / unit, z
    if isinstance(objective, Gated):
        magnitude = (p["r_mag"].exp() * product + p["b_mag"]).relu()
        z = (pre > 0) * magnitude
        frozen = pre.relu() @ p["W_dec"].detach() + p["b_dec"].detach()
        penalty = warm * objective.l1 * pre.relu().sum() / unit
        return fvu(target, decode(z)) + penalty + fvu(target, frozen), z
    if isinstance(objective, JumpReLU):
        width = objective.bandwidth * math.sqrt(x.shape[1])
        theta = p["log_threshold"].exp() if objective.log_threshold else p["threshold"]
        z = Jump.apply(pre, theta, width)
        l0 = Step.apply(pre, theta, width).sum() / len(x)
        if objective.target_l0 is None:
            penalty = objective.l0_coefficient * l0
        else:
            penalty = (objective.l0_coefficient or 1.0) * (l0 / objective.target_l0 - 1) ** 2
        return fvu(target, decode(z)) + warm * penalty, z
    assert isinstance(objective, TopK | BatchTopK)
    if isinstance(objective, TopK):
        z = torch.stack([keep_largest(row, objective.k) for row in pre])
    else:
        z = keep_largest(pre, objective.k * len(x))
    ends = [z.shape[1]]
    if isinstance(objective, MatryoshkaBatchTopK):
        ends = [round(share * z.shape[1]) for share in objective.group_shares]
    prefixes = [z * (torch.arange(z.shape[1]) < end) for end in ends]
    loss = torch.stack([fvu(target, decode(prefix)) for prefix in prefixes]).mean()
    if bool(dead.any()) and objective.k_aux and objective.aux_coefficient:
        error = target - decode(z)
        loss = loss + objective.aux_coefficient * auxk(p, pre, error, dead, objective.k_aux)
    return loss, z
