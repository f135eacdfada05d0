"""Training objectives with a fault planted in them: what a gate for trainers has to catch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from auditkit.training import TrainPlan


class Fault(StrEnum):
    """What is wrong with a trainer."""

    FROZEN_ENCODER = "the encoder is never trained"
    GROWING_DECODER = "the decoder's rows are not kept at norm 1"
    SHUFFLED_TOKENS = "the encoder's gradients are those of other tokens"
    NO_BIASES = "the biases are dropped"
    DEAD_START = "most latents start dead and nothing revives them"


_DEAD_SHARE = 0.7
_DEAD_BIAS = -20.0
_GROWTH = 1.0005

Step = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """An objective that trains as `inner` does, but for the fault."""

    inner: Any
    fault: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.inner.name)

    def check(self, plan: TrainPlan) -> None:
        self.inner.check(plan)

    def complete(self, plan: TrainPlan, parameters: Any) -> Any:
        complete, buffers = self.inner.complete(self._plain(plan), parameters)
        if self.fault == Fault.DEAD_START:
            dead = torch.arange(plan.d_sae) < _DEAD_SHARE * plan.d_sae
            complete.b_enc[dead] = _DEAD_BIAS
        return complete, buffers

    def make_step(self, plan: TrainPlan, kernel: Any) -> Step:
        step: Step = self.inner.make_step(self._plain(plan), kernel)
        after = {
            Fault.FROZEN_ENCODER: _with_frozen_encoder,
            Fault.GROWING_DECODER: _with_growing_decoder,
            Fault.SHUFFLED_TOKENS: _with_shuffled_tokens,
            Fault.NO_BIASES: _without_biases,
        }
        fault = Fault(self.fault)
        return after[fault](step) if fault in after else step

    def penalty(self, report: Any) -> float:
        return self.inner.penalty(report)

    def reconstruct(self, state: Any, x: Tensor) -> Any:
        return self.inner.reconstruct(state, x)

    def fold(self, state: Any) -> Any:
        return self.inner.fold(state)

    def _plain(self, plan: TrainPlan) -> TrainPlan:
        return replace(plan, objective=self.inner)


def _with_frozen_encoder(step: Step) -> Step:
    def faulty(state: Any, x: Tensor) -> Any:
        before = state.parameters.W_enc_rows.clone()
        report = step(state, x)
        state.parameters.W_enc_rows.copy_(before)
        return report

    return faulty


def _with_growing_decoder(step: Step) -> Step:
    """The step keeps them at norm 1, so they are let go afterwards."""
    grown = [1.0]

    def faulty(state: Any, x: Tensor) -> Any:
        report = step(state, x)
        grown[0] *= _GROWTH
        state.parameters.W_dec.mul_(grown[0])
        return report

    return faulty


def _with_shuffled_tokens(step: Step) -> Step:
    """The encoder learns from tokens whose coordinates were shuffled among tokens."""

    def faulty(state: Any, x: Tensor) -> Any:
        generator = torch.Generator().manual_seed(state.step)
        other = copy.deepcopy(state)
        order = torch.rand(x.shape, generator=generator).argsort(dim=0)
        step(other, x.gather(0, order))
        report = step(state, x)
        # Moments too: those of the right tokens would steer the encoder for many steps.
        for part in ("parameters", "first_moments", "second_moments"):
            right, wrong = getattr(state, part), getattr(other, part)
            right.W_enc_rows.copy_(wrong.W_enc_rows)
            right.b_enc.copy_(wrong.b_enc)
        return report

    return faulty


def _without_biases(step: Step) -> Step:
    def faulty(state: Any, x: Tensor) -> Any:
        report = step(state, x)
        state.parameters.b_dec.zero_()
        state.parameters.b_enc.zero_()
        return report

    return faulty
