"""What is trained, on how much, and how fast."""

from __future__ import annotations

import math
from dataclasses import dataclass

from auditkit.core.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """A TopK SAE and its training; every number that changes the result is here.

    Activations are scaled so that mean ‖x‖² = d_in (folded back into the weights on save), so
    `lr` means the same for every model. `init_scale` is the norm of an encoder column at the
    start (the decoder's is 1). A latent is dead when it was silent for `dead_after_tokens`
    tokens; AuxK then has `k_aux` of them explain the residual, at `aux_coefficient`.
    Rows above `high_norm_factor` × the median norm are not trained on.

    With `frozen_decoder` the decoder's rows stay the random unit vectors that they start as, while
    the encoder and both biases are trained: the floor that a trained dictionary has to beat
    (Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders").
    """

    d_in: int
    d_sae: int
    k: int
    steps: int
    batch_size: int = 2048
    lr: float = 1e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-10
    k_aux: int = 256
    aux_coefficient: float = 1 / 32
    dead_after_tokens: int = 200_000
    init_scale: float = 0.1
    seed: int = 0
    held_out: int = 16_384
    high_norm_factor: float = 10.0
    frozen_decoder: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise InvalidInput(f"k is {self.k}, expected 1 to d_sae ({self.d_sae})", help="lower k")
        for name in ("d_in", "batch_size", "steps", "dead_after_tokens", "held_out"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("lr", "eps", "init_scale", "high_norm_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name} is {value}, expected a positive number")
        for name in ("k_aux", "aux_coefficient", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.decay_fraction <= 1:
            raise InvalidInput(f"decay_fraction is {self.decay_fraction}, expected 0 to 1")

    def learning_rate(self, step: int) -> float:
        """Rate of step `step` (from 0): linear warm-up, then flat, then linear to zero over the
        last `decay_fraction` of the steps."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay_steps = round(self.decay_fraction * self.steps)
        left = self.steps - step
        cool = min(1.0, left / (decay_steps + 1)) if decay_steps else 1.0
        return self.lr * warm * cool
