"""A lock made ready to watch with: its encoder, its rules lowered, which latent concerns whom."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import ModelIdentity
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules import Plan, RuleWatcher, SignalPool, lower_rule, offline_parts, watched_online
from auditkit.rules.lowered.plan import FrameKnown, Statistic, frame_cuts, frame_nodes
from auditkit.rules.streaming.token_tests import judge_token
from auditkit.saes import DirectionReader, SparseAutoencoder, WatchedEncoder, check_fits


class Entry(NamedTuple):
    """What a token showed: its active watched latents, and whether its norm is out of bounds."""

    latents: list[int]
    values: list[float]
    high_norm: bool


SILENT = Entry([], [], False)
MAX_ENCODERS = 16
Values = Mapping[str, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class WatchedRule:
    """A rule with its plan and pools; `silent` are the signals' values where no latent is active.

    `eager`: silence may make the rule true, so it is evaluated at every token.
    """

    rule: LockedRule
    plan: Plan
    pools: tuple[tuple[str, SignalPool | None], ...]
    silent: Values
    uncovered: Values
    eager: bool

    def values(self, entry: Entry) -> Values:
        """The signals' values at a token."""
        return {
            name: None if pool is None else pool.value(entry.latents, entry.values)
            for name, pool in self.pools
        }

    def undecided_by(self, role: Role) -> bool:
        """Are tokens of this role outside the rule's scope?"""
        return bool(self.rule.scope.roles) and role not in self.rule.scope.roles

    @property
    def uses_roles(self) -> bool:
        """Does the verdict depend on whose words they are?"""
        return bool(self.rule.scope.roles) or any(a.by_role for a in self.plan.aggregates)


class WatchedLock:
    """One SAE with the rules of one lock on it; shared by all requests, changed by none.

    Raises MismatchError for a lock of another model or SAE, InvalidInput for one without rules.
    """

    def __init__(self, model: ModelIdentity, sae: SparseAutoencoder, lock: Lock) -> None:
        _check(model, sae, lock)
        self.warnings = (*check_fits(sae, model), *offline_parts(lock))
        self.sae, self.lock = sae, lock
        self.rules = tuple(_watched(rule) for rule in lock.rules)
        self.by_latent: dict[int, tuple[int, ...]] = {}
        for number, watched in enumerate(self.rules):
            for latent in _latents(watched.rule):
                self.by_latent[latent] = (*self.by_latent.get(latent, ()), number)
        self.correlations = tuple(c for c in lock.correlations if watched_online(c))
        self.eager = tuple(n for n, rule in enumerate(self.rules) if rule.eager)
        self.directions = DirectionReader(lock.directions, sae.identity)
        _check_numbers(sae, self.rules)
        own = set(self.by_latent) - set(self.directions.numbers)
        self.encoder = _encoder_of(sae, tuple(sorted(own)))

    @property
    def hook_point(self) -> HookPoint:
        return self.sae.hook_point

    @property
    def is_tuned(self) -> bool:
        """Are there filters or correlations, which need to know where a sequence's frames lie?"""
        return bool(self.lock.filters or self.correlations)

    @property
    def reads_text(self) -> bool:
        """Does a filter ask for the text of frames?"""
        return any(e.text is not None for f in self.lock.filters for e in f.exceptions)

    @property
    def flops_per_token(self) -> int:
        """Operations of the watched latents at one token; 0 if no rule has latents."""
        own = self.encoder.flops_per_token if self.encoder.watched_latents else 0
        return own + 2 * self.sae.config.d_in * len(self.directions)

    def encode(self, x: Float[Tensor, "token d_in"]) -> list[Entry]:
        """What each token shows."""
        active = self.encoder.read(x).active
        if len(self.directions):
            numbers, rows = list(self.directions.numbers), self.directions.read(x).tolist()
            active = [
                (latents + numbers, values + row)
                for (latents, values), row in zip(active, rows, strict=True)
            ]
        if self.lock.high_norm is None:
            return [Entry(*own, False) if own[0] else SILENT for own in active]
        norms = x.detach().double().square().sum(dim=1).sqrt()  # as they are recorded
        high = (norms > self.lock.high_norm).tolist()
        return [
            Entry(*own, is_high) if own[0] or is_high else SILENT
            for own, is_high in zip(active, high, strict=True)
        ]

    def watchers(self) -> list[RuleWatcher]:
        """A watcher of each rule, for one sequence."""
        return [RuleWatcher(rule.plan, self.lock.masked) for rule in self.rules]

    def is_masked(self, mask: TokenMask | int) -> bool:
        """Is a token with this mask outside every frame?"""
        return bool(int(mask) & int(self.lock.masked))


_ENCODERS: WeakKeyDictionary[SparseAutoencoder, dict[tuple[int, ...], WatchedEncoder]] = (
    WeakKeyDictionary()
)
_ENCODERS_LOCK = threading.Lock()


def _encoder_of(sae: SparseAutoencoder, latents: tuple[int, ...]) -> WatchedEncoder:
    """The encoder of these latents; made once for an SAE, since it copies their weights."""
    with _ENCODERS_LOCK:
        known = _ENCODERS.setdefault(sae, {})
        if latents not in known:
            if len(known) == MAX_ENCODERS:
                known.clear()
            known[latents] = WatchedEncoder(sae, latents)
        return known[latents]


def _check_numbers(sae: SparseAutoencoder, rules: tuple[WatchedRule, ...]) -> None:
    """Raise InvalidInput where a signal's latents are not those of its direction."""
    for signal in (s for watched in rules for s in watched.rule.signals):
        if signal.direction is None or signal.unresolved is not None:
            continue
        number = signal.direction.latent(sae.config.d_sae)
        if [x.latent for x in signal.latents] != [number]:
            raise InvalidInput(
                f"the signal {signal.name!r} watches a direction under another number than "
                f"{number}",
                help="the lock was changed by hand; write it anew with: auditkit rules bind",
            )


def _latents(rule: LockedRule) -> list[int]:
    return [x.latent for s in rule.signals if s.unresolved is None for x in s.latents]


def _watched(rule: LockedRule) -> WatchedRule:
    plan = lower_rule(rule)
    pools = tuple((s.name, SignalPool(s) if s.resolved else None) for s in plan.signals)
    silent = {name: None if pool is None else pool.value((), ()) for name, pool in pools}
    return WatchedRule(
        rule=rule,
        plan=plan,
        pools=pools,
        silent=silent,
        uncovered=dict.fromkeys(silent),
        eager=plan.latching and _may_fire_in_silence(plan, silent),
    )


def _may_fire_in_silence(plan: Plan, silent: Values) -> bool:
    """Can a token that shows nothing bring a latching rule to fire?

    Silence leaves a maximum and a count as they are, and ends a run, unless it satisfies the
    comparison itself. What is not known counts as satisfying it. A silent token may be the one
    that fills a window, or the second of a `then`.
    """
    values = [silent[signal.name] for signal in plan.signals]
    if any(isinstance(node, FrameKnown) for node in frame_nodes(plan.root)):
        return True
    for cut in frame_cuts(plan.root):
        aggregate = plan.aggregates[cut.aggregate]
        if aggregate.window or aggregate.statistic is Statistic.ROLLING:
            return True
        if aggregate.test is not None:
            last = aggregate.tests[-1]
            if judge_token(last, values, plan.signals).truth is not False:
                return True
            continue
        assert aggregate.signal is not None
        value, threshold = values[aggregate.signal], cut.cut.threshold
        if value is None or threshold is None or value >= threshold:
            return True
    return False


def _check(model: ModelIdentity, sae: SparseAutoencoder, lock: Lock) -> None:
    if model.digest != lock.model.digest:
        raise MismatchError(
            f"the lock was bound for {lock.model.name} ({lock.model.digest[:12]}), the model is "
            f"{model.name} ({model.digest[:12]})",
            help="bind the rules for this model: auditkit rules bind",
        )
    if sae.identity.digest != lock.sae.digest:
        raise MismatchError(
            f"the lock was bound for the SAE {lock.sae.name} ({lock.sae.digest[:12]}), this is "
            f"{sae.identity.name} ({sae.identity.digest[:12]})",
            help="bind the rules for this SAE: auditkit rules bind",
        )
    if not lock.rules:
        raise InvalidInput("the lock holds no rules", help="bind at least one rule")
