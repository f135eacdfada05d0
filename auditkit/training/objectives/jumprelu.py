"""JumpReLU (Rajamanoharan et al. 2024, "Jumping Ahead"; Lieberum et al. 2024, "Gemma Scope").

    z = v · 1[v > θ],  v = W_encᵀ(x − b_dec) + b_enc,  x̂ = W_decᵀ z + b_dec
    L = Σ‖x − x̂‖² / Σ‖x − mean x‖²  +  S,   S = λ·L0  or  λ·(L0/target − 1)²

L0 is the batch's mean number of active latents per token. Neither z nor L0 has a useful derivative
by θ; the paper's pseudo-derivatives (eq. 11, 12) stand in for them, with the rectangle kernel
K(u) = 1[|u| < ½] and a bandwidth ε:

    ∂z/∂θ = −(θ/ε) K((v − θ)/ε),   ∂1[v > θ]/∂θ = −(1/ε) K((v − θ)/ε)

The encoder gets the ordinary derivative ∂z/∂v = 1[v > θ], and nothing from S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditkit.saes import ArchitectureName
from auditkit.training.objective_step import Batch, Descent, require_torch
from auditkit.training.pairs import clear_unless_positive, listed_where
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import FoldedWeights, Kernel, Step, TrainPlan, require_setting
from auditkit.training.sliced_step import Part, SlicedStep, Sums

THRESHOLD, LOG_THRESHOLD = "threshold", "log_threshold"


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpReLU:
    """The penalty is `l0_coefficient` · L0, or with a `target_l0` it is
    `l0_coefficient` · (L0/target_l0 − 1)², the coefficient then 1 by default.

    `bandwidth` and `initial_threshold` are in units of the inputs' root mean square norm, as Gemma
    Scope gives them (0.001 both). With `log_threshold` it is log θ that Adam moves, as in the
    paper; without, θ itself, which it moves much further in a short training.
    """

    l0_coefficient: float | None = None
    target_l0: float | None = None
    bandwidth: float = 0.001
    initial_threshold: float = 0.001
    log_threshold: bool = False
    name: str = field(default="jumprelu", init=False)

    def __post_init__(self) -> None:
        require_setting(
            not (self.l0_coefficient is None and self.target_l0 is None),
            "target_l0",
            None,
            "a number of latents per token, or an l0_coefficient to do without",
        )
        for name in ("l0_coefficient", "target_l0", "bandwidth", "initial_threshold"):
            value = getattr(self, name)
            good = value is None or (math.isfinite(value) and value > 0)
            require_setting(good, name, value, "a positive number")

    @property
    def parameter(self) -> str:
        """Which of θ and log θ is trained."""
        return LOG_THRESHOLD if self.log_threshold else THRESHOLD

    def threshold(self, parameters: SaeParameters) -> Float[Tensor, " d_sae"]:
        """θ."""
        trained = parameters.own[self.parameter]
        return trained.exp() if self.log_threshold else trained

    def sparsity(self, l0: float) -> tuple[float, float]:
        """The penalty for a mean of `l0` latents per token, and its derivative by l0."""
        if self.target_l0 is None:
            weight = self.l0_coefficient or 0.0
            return weight * l0, weight
        weight = 1.0 if self.l0_coefficient is None else self.l0_coefficient
        excess = l0 / self.target_l0 - 1.0
        return weight * excess**2, 2.0 * weight * excess / self.target_l0

    def check(self, plan: TrainPlan) -> None:
        """Raise InvalidInput unless there are as many latents as wanted."""
        wanted = self.target_l0
        good = wanted is None or wanted <= plan.d_sae
        require_setting(good, "target_l0", wanted, f"at most d_sae ({plan.d_sae})")

    def complete(
        self, plan: TrainPlan, parameters: SaeParameters
    ) -> tuple[SaeParameters, dict[str, Tensor]]:
        """All thresholds alike."""
        first = self.initial_threshold * math.sqrt(plan.d_in)
        trained = torch.full_like(
            parameters.b_enc, math.log(first) if self.log_threshold else first
        )
        return SaeParameters.from_named({**parameters.named(), self.parameter: trained}), {}

    def make_step(self, plan: TrainPlan, kernel: Kernel) -> Step:
        """In torch."""
        require_torch(kernel, self.name)
        return JumpReLUStep(plan, self)

    def penalty(self, report: StepReport) -> float:
        """The weighted penalty on L0."""
        return report.penalty

    def reconstruct(
        self, state: TrainState, x: Float[Tensor, "token d_in"]
    ) -> tuple[Float[Tensor, "token d_out"], int]:
        """x̂ − b_dec, and how many latents are active."""
        p = state.parameters
        pre_acts = (state.centre(x) @ p.W_enc_rows.T).add_(p.b_enc)
        pairs = listed_where(pre_acts, pre_acts > self.threshold(p))
        return pairs.decode(pairs.values, p.W_dec), len(pairs.latents)

    def fold(self, state: TrainState) -> FoldedWeights:
        """JumpReLU, with bias and thresholds in the target's units."""
        p = state.parameters
        return FoldedWeights(
            architecture=ArchitectureName.JUMPRELU,
            per_latent={
                "b_enc": p.b_enc / state.unit,
                "threshold": self.threshold(p) / state.unit,
            },
        )


class JumpReLUStep(SlicedStep):
    """Active pairs, and those about the threshold."""

    def __init__(self, plan: TrainPlan, settings: JumpReLU) -> None:
        super().__init__(plan)
        self._settings = settings
        self._bandwidth = settings.bandwidth * math.sqrt(plan.d_in)

    def chosen(
        self, state: TrainState, pre_acts: Float[Tensor, "token d_sae"]
    ) -> Bool[Tensor, "token d_sae"]:
        """Values above the threshold, and as far below it as the kernel reaches."""
        return pre_acts > self._settings.threshold(state.parameters) - 0.5 * self._bandwidth

    def add(self, state: TrainState, batch: Batch, part: Part, sums: Sums) -> None:
        """Gradients of the error; for the thresholds Σ K and Σ K · ∂L/∂z, because the penalty's
        slope is known only once all tokens are counted."""
        p, pairs = state.parameters, part.pairs
        v, of = pairs.values, pairs.take(self._settings.threshold(p))
        above = torch.sub(v, of, out=sums.spare("near", v))
        z = clear_unless_positive(v, above)
        near = self._kernel(above)
        error = part.wanted - pairs.decode(z, p.W_dec)
        x_hat = batch.gradient(error)
        pull = pairs.pull(x_hat, p.W_dec, memory=sums.spare("pull", v))
        sums.error[part.tokens] = error
        sums.active += int(torch.count_nonzero(z))
        sums.add_weights("near", pairs, near)
        sums.add_weights("near_pull", pairs, near.mul_(pull))
        sums.add_weights("z", pairs, z)
        clear_unless_positive(pull, z)
        sums.add_weights("b_enc", pairs, pull)
        sums.add_rows("W_enc_rows", pairs, pull, part.centred)
        sums.add_rows("W_dec", pairs, z, x_hat)

    def _kernel(self, u: Tensor) -> Tensor:
        """1 where |u| is below half the bandwidth, else 0, in place of u."""
        half = u.new_tensor(0.5 * self._bandwidth)
        torch.sub(half, u.abs_(), out=u)
        return u.sign_().clamp_(min=0.0)

    def conclude(self, state: TrainState, batch: Batch, sums: Sums) -> Descent:
        """Gradients, and pseudo-gradients for the thresholds."""
        theta = self._settings.threshold(state.parameters)
        warm = self.plan.sparsity_weight(state.step)
        loss, slope = self._settings.sparsity(sums.active / len(batch))
        jump = sums["near_pull"] * theta + sums["near"] * (warm * slope / len(batch))
        by_theta = jump.div_(-self._bandwidth)
        if self._settings.log_threshold:
            by_theta.mul_(theta)
        return sums.descent(batch, own={self._settings.parameter: by_theta}, penalty=warm * loss)

    def settle(self, state: TrainState, batch: Batch, descent: Descent) -> None:
        """A threshold below zero would let negative values pass."""
        del batch, descent
        if not self._settings.log_threshold:
            state.parameters.own[THRESHOLD].clamp_(min=0.0)
