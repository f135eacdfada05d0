"""What a causal test did and found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.measured import Measure, NotMeasured

_NOT_RUN = NotMeasured("not run")


class CausalVerdict(StrEnum):
    """The verdicts of a causal test."""

    CONFIRMED = "confirmed"
    SUFFICIENT_ONLY = "sufficient only"
    NECESSARY_ONLY = "necessary only"
    NONSPECIFIC = "nonspecific"
    DETECTOR_ONLY = "detector only"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class Arm(StrEnum):
    """What a trial is for: the watched latents, or one of the controls they are held against."""

    TARGET = "target"
    LATENT = "matched latent"
    ISOTROPIC = "isotropic direction"
    COVARIANCE = "covariance-matched direction"
    SIGN_FLIP = "sign flip"
    POSITIVE = "difference of means"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One intervention on one prompt: a row of the store.

    `outcome` is the change of the outcome against the untouched run, in the outcome's unit
    (nats for log-odds); `relative_norm` is ‖Δx‖/‖x‖ averaged over the edited tokens.
    """

    confirmation: str
    arm: Arm
    control: int
    op: str
    dose: float
    prompt_id: str
    metric: str
    outcome: float
    relative_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DosePoint:
    """Mean effect at one dose, with its interval, beside the band of the controls (5%–95%)."""

    dose: float
    effect: Measure
    control_low: float
    control_high: float
    control_mean: float
    relative_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectTest:
    """Target against controls for one operation and metric.

    `effect` is the target's own mean over prompts, `difference` that of target minus mean of
    controls, prompt by prompt, which is tested: `p_sign` by sign-flip over prompts, `p_rank` by
    rank among `controls` controls, `p` the larger, `q` after Benjamini–Hochberg over the run.
    `dose` is in multiples of the latents' 99th percentile; None for an ablation.
    """

    op: str
    metric: str
    effect: Measure
    control_mean: float
    control_sd: float
    controls: int
    prompts: int
    p_sign: float
    p_rank: float
    p: float
    q: float
    difference: Measure = _NOT_RUN
    dose: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyExample:
    """The same prompt answered untouched, steered, and under a control of equal norm."""

    prompt: str
    base: str
    steered: str
    control: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A causal verdict on one rule's confirmation plan, and everything it rests on.

    `damage_kl` and `damage_ce` (nats per token) are of the steering test's dose on benign text
    where the signal is silent; `damage_budget` is the 95th percentile of the KL of controls of
    equal norm.
    `control_counts` are pairs of arm and number of controls. Where the verdict is inconclusive,
    `more_prompts` and `more_controls` say how many of either would tell.
    """

    id: str
    rule_id: str
    name: str
    signal: str
    verdict: CausalVerdict
    why: str
    metric: str
    prompts: int
    identity_gate: Measure
    steering: EffectTest | None
    ablation: EffectTest | None
    other_tests: tuple[EffectTest, ...]
    doses: tuple[DosePoint, ...]
    trend_p: Measure
    mean_spearman: Measure
    specificity: Measure
    damage_kl: Measure
    damage_budget: Measure
    positive_control: Measure
    sign_flip: Measure
    more_prompts: int | None
    damage_ce: Measure = _NOT_RUN
    control_counts: tuple[tuple[str, int], ...] = ()
    replies: tuple[ReplyExample, ...] = ()
    notes: tuple[str, ...] = ()
    more_controls: int | None = None
