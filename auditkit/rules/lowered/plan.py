"""The lowered form of a locked rule: integer thresholds and a small tree, shared by SQL and stream.

Everything that the two evaluators must agree on is decided here, once. `and`, `or` and `k of` are
all "at least k of"; `any(tok)` is `count(tok) >= 1` and `all(tok)` is `frac(tok) >= 1`, which have
the same Kleene meaning; `(a) then (b) within N tokens` is "at least one token b closes a pair".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.locks import Frame, Scope
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason
from auditkit.rules.language.ast import Op

SHARE_SCALE = 10**6
"""A quantile's q is kept in millionths, so that its rank is a quotient of integers."""

FAR = 2**60
"""Where `first` and `last` lie (+, −) if no token satisfies their test: beyond every threshold."""


class Statistic(StrEnum):
    """What an aggregate computes over the tokens that it sees."""

    MAX = "max"
    SUM = "sum"
    MEAN = "mean"
    COUNT = "count"
    FRAC = "frac"
    RUN = "run"
    QUANTILE = "quantile"
    TOPK_MEAN = "topk_mean"
    ROLLING = "rolling_mean_max"
    FIRST = "first"
    LAST = "last"
    THEN = "then"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A comparison with a threshold in units of 2⁻²⁰ (None: there is none, for reason `missing`:
    `calibrated` without a certificate, a percentile that was not measured)."""

    op: Op
    threshold: int | None
    calibrated: bool = False
    missing: Reason = Reason.NOT_CALIBRATED


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCut:
    """Is the value of signal number `signal` at this token beyond the cut?"""

    signal: int
    cut: Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenNot:
    operand: TokenNode


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAtLeast:
    """At least k of the operands hold at this token."""

    k: int
    operands: tuple[TokenNode, ...]


TokenNode = TokenCut | TokenNot | TokenAtLeast


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAggregate:
    """A statistic over the tokens of `roles` (empty: all): of a signal, or of a token test.

    `argument`: the k of topk_mean, the w of rolling_mean_max, the q of a quantile in millionths,
    the N of `then … within N`. `second` is what a `then` waits for, on tokens of `second_roles`.
    `window`: taken over every `window` neighbouring tokens by themselves (0: over the frame).
    """

    statistic: Statistic
    roles: tuple[Role, ...]
    signal: int | None = None
    test: TokenNode | None = None
    argument: int = 0
    second: TokenNode | None = None
    second_roles: tuple[Role, ...] = ()
    window: int = 0

    def sees(self, role: Role) -> bool:
        """Does a token of this role count? A `then` counts the distance over all tokens."""
        return not self.roles or role in self.roles or self.second is not None

    @property
    def tests(self) -> tuple[TokenNode, ...]:
        """The token tests inside."""
        return tuple(t for t in (self.test, self.second) if t is not None)

    @property
    def by_role(self) -> bool:
        """Does it matter whose tokens they are?"""
        return bool(self.roles or self.second_roles)

    def cuts(self) -> Iterator[TokenCut]:
        """Every comparison inside its token tests."""
        for test in self.tests:
            yield from token_cuts(test)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCut:
    """Is aggregate number `aggregate` beyond the cut? `paired`: is it, less the twin's?"""

    aggregate: int
    cut: Cut
    paired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameNot:
    operand: FrameNode


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAtLeast:
    """At least k of the operands hold in this frame."""

    k: int
    operands: tuple[FrameNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameKnown:
    """What is settled when the rule is bound: `defined(NAME)`."""

    truth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameWindow:
    """Does the operand hold on some `size` neighbouring tokens?

    Its aggregates carry `window = size`. It is false of a window in which one of them sees no
    token, unknown of a frame in which one of them sees none.
    """

    size: int
    operand: FrameNode


FrameNode = FrameCut | FrameNot | FrameAtLeast | FrameKnown | FrameWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLatent:
    """A latent's share: lower(weight · (activation − zero) / scale) − silence."""

    latent: int
    weight: float
    zero: float
    scale: float
    silence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSignal:
    """A signal per token: `constant`, its value in silence, + the shares of its active latents.

    `largest`: instead the largest of its latents, active ones (share + silence) and silent ones
    (silence). `floor` bounds the value of a token that is not covered from below (None: no bound).
    """

    name: str
    resolved: bool
    largest: bool
    constant: int
    floor: int | None
    latents: tuple[PlanLatent, ...]

    @property
    def falling(self) -> tuple[PlanLatent, ...]:
        """The latents by falling silence, where `largest` needs to know which are silent."""
        if not self.largest or not any(x.silence for x in self.latents):
            return ()
        return tuple(sorted(self.latents, key=lambda x: -x.silence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rule, lowered. `score` is the aggregate whose value is reported (none inside a window),
    or, with `score_paired`, its difference from the twin's; `latching` says that a true verdict on
    a part of a frame holds for the whole frame."""

    signals: tuple[PlanSignal, ...]
    aggregates: tuple[PlanAggregate, ...]
    root: FrameNode
    latching: bool
    score: int | None
    frame: Frame
    scope: Scope
    score_paired: bool = False

    @property
    def compares_twins(self) -> bool:
        """Is something compared with the twin's message?"""
        return any(cut.paired for cut in frame_cuts(self.root))


def token_cuts(node: TokenNode) -> Iterator[TokenCut]:
    """Every comparison inside a token test, in the order written."""
    match node:
        case TokenCut():
            yield node
        case TokenNot(operand=operand):
            yield from token_cuts(operand)
        case TokenAtLeast(operands=operands):
            for operand in operands:
                yield from token_cuts(operand)


def frame_nodes(node: FrameNode) -> Iterator[FrameNode]:
    """A node and all beneath it, outermost first, in the order written."""
    yield node
    match node:
        case FrameNot(operand=operand) | FrameWindow(operand=operand):
            yield from frame_nodes(operand)
        case FrameAtLeast(operands=operands):
            for operand in operands:
                yield from frame_nodes(operand)
        case FrameCut() | FrameKnown():
            pass


def frame_cuts(node: FrameNode) -> Iterator[FrameCut]:
    """Every comparison of a condition, those inside windows too, in the order written."""
    return (n for n in frame_nodes(node) if isinstance(n, FrameCut))


def frame_windows(node: FrameNode) -> Iterator[FrameWindow]:
    """Every window of a condition, in the order written."""
    return (n for n in frame_nodes(node) if isinstance(n, FrameWindow))
