"""A rule made concrete for one model and one SAE: plain numbers, and nothing left to choose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.correlations import LockedCorrelation
from auditkit.core.directions import LockedDirection
from auditkit.core.filters import LockedFilter
from auditkit.core.identity import ModelIdentity, SaeIdentity
from auditkit.core.labels import LockedLabels
from auditkit.core.measured import Measure
from auditkit.core.prompts import Role
from auditkit.core.recordings import Provenance
from auditkit.core.standing import Severity, Status
from auditkit.core.tokens import TokenMask


class Pool(StrEnum):
    """How several latents become one value per token."""

    WEIGHTED = "weighted"
    MEAN = "mean"
    MAX = "max"
    SUM = "sum"


class Unit(StrEnum):
    """Unit of an activation: raw, fraction of fmax, z-score, or a bare fitted score."""

    RAW = "raw"
    FMAX = "fmax"
    Z = "z"
    BARE = "bare"


class Frame(StrEnum):
    """What a rule concludes about: the tokens that are looked at together."""

    TOKEN = "token"
    MESSAGE = "message"
    EXCHANGE = "exchange"
    CONVERSATION = "conversation"
    PAIRED_MESSAGE = "paired_message"


class Selector(StrEnum):
    """How a signal's latents are chosen."""

    INDEX = "index"
    LABEL = "label"
    CONTRAST = "contrast"
    DIRECTION = "direction"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedLatent:
    """A latent's share in a signal: weight · (activation − offset) / scale."""

    latent: int
    weight: float = 1.0
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorScore:
    """AUROC of one detector on held-out examples, and how many positives and negatives."""

    detector: str
    auroc: Measure
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedSignal:
    """A named value per token. `unresolved` says why there are no latents, where there are none.

    `percentiles`: (percent, value in the signal's unit) of the benign tokens, those that the rule
    names as thresholds. `labels`: what the latents were chosen by, which is no evidence.
    `direction`: what the one latent, numbered beyond the SAE's, stands for.
    """

    name: str
    selector: Selector
    pool: Pool
    unit: Unit
    latents: tuple[LockedLatent, ...]
    unresolved: str | None = None
    scores: tuple[DetectorScore, ...] = ()
    percentiles: tuple[tuple[float, float], ...] = ()
    labels: LockedLabels | None = None
    direction: LockedDirection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which tokens a rule looks at: their roles (empty: all), and how many to skip at the start."""

    roles: tuple[Role, ...] = ()
    skip_first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A certificate: with `threshold`, at most `target_fpr` of benign frames fire, at `confidence`.

    One-sided binomial-tail bound: of `frames` benign frames `exceedances` fire, and the upper
    bound of the rate, `bound`, is within the target. `verified` is the rate on benign frames that
    had no part in choosing the threshold.
    """

    threshold: float
    target_fpr: float
    confidence: float
    frames: int
    exceedances: int
    bound: float
    suite: str
    verified: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCalibrated:
    """No certified threshold, why, and how many more benign frames it needs (None: not a matter
    of number)."""

    reason: str
    frames: int
    needs_more: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What is done to a signal's latents: `op` ablate | clamp | steer, over `doses`."""

    op: str
    signal: str
    doses: tuple[float, ...]
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPlan:
    """How a rule's claim is tested causally: intervention, outcome and expectation."""

    name: str
    intervene: Intervention
    metric: str
    target: str
    contrast: str
    direction: str
    monotonic: bool
    q: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedRule:
    """A rule bound to one model and one SAE.

    `digest` is the semantic digest of the source rule; `thresholds` of the condition are plain
    numbers except `calibrated`, which `calibration` gives (None: the condition uses none).
    """

    id: str
    rev: int
    digest: str
    title: str
    description: str
    severity: Severity
    status: Status
    tags: tuple[str, ...]
    false_positives: tuple[str, ...]
    frame: Frame
    scope: Scope
    signals: tuple[LockedSignal, ...]
    let: tuple[tuple[str, str], ...]
    condition: str
    calibration: Calibration | NotCalibrated | None
    scores: tuple[DetectorScore, ...]
    confirm: tuple[ConfirmPlan, ...]
    notes: tuple[str, ...] = ()

    def signal(self, name: str) -> LockedSignal:
        """The signal called `name`; KeyError where there is none."""
        for signal in self.signals:
            if signal.name == name:
                return signal
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Every rule of one run, bound: `rules.lock.json`.

    `masked` are the token masks left out of every frame; a token of norm above `high_norm` at the
    hook point carries the mask HIGH_NORM (None: none does). Filters and correlations name rules of
    the lock.
    """

    model: ModelIdentity
    sae: SaeIdentity
    rules: tuple[LockedRule, ...]
    masked: TokenMask
    high_norm: float | None
    provenance: Provenance
    filters: tuple[LockedFilter, ...] = ()
    correlations: tuple[LockedCorrelation, ...] = ()

    @property
    def directions(self) -> tuple[LockedDirection, ...]:
        """The directions that its rules watch, each once."""
        signals = [s for rule in self.rules for s in rule.signals if s.unresolved is None]
        found = {s.direction.digest: s.direction for s in signals if s.direction is not None}
        return tuple(found.values())
