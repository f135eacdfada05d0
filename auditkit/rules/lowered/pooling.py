"""Several latents of one token → one signal value, in integers of 2⁻²⁰ (core.fixed_point)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from auditkit.core.errors import InvalidInput
from auditkit.core.fixed_point import lower
from auditkit.core.locks import LockedLatent, LockedSignal, Pool, Unit
from auditkit.rules.lowered.plan import PlanLatent, PlanSignal


def lower_signal(signal: LockedSignal) -> PlanSignal:
    """Prepare a locked signal for evaluation.

    A latent's share is `lower(weight·(value − offset)/scale) − lower(weight·(0 − offset)/scale)`
    above the signal's constant, which is what silence of all its latents gives. Under `pool: max`
    the signal is the largest of its latents, active or silent. Raises InvalidInput for a scale that
    is not positive or a latent named twice.
    """
    _check_signal(signal)
    share = 1.0 / len(signal.latents) if signal.pool is Pool.MEAN and signal.latents else 1.0
    latents = tuple(_lower_latent(latent, share) for latent in signal.latents)
    largest = signal.pool is Pool.MAX
    silences = [latent.silence for latent in latents]
    constant = max(silences, default=0) if largest else sum(silences)
    resolved = signal.unresolved is None
    bounded = resolved and signal.unit in (Unit.RAW, Unit.FMAX)
    bounded = bounded and all(x.weight >= 0 for x in latents)
    return PlanSignal(
        name=signal.name,
        resolved=resolved,
        largest=largest,
        constant=constant,
        floor=constant if bounded else None,
        latents=latents,
    )


def _check_signal(signal: LockedSignal) -> None:
    numbers = [latent.latent for latent in signal.latents]
    if len(set(numbers)) != len(numbers):
        raise InvalidInput(f"the signal {signal.name!r} names a latent twice")
    if signal.unresolved is None and not numbers:
        raise InvalidInput(
            f"the signal {signal.name!r} has no latents and does not say why it is unresolved"
        )
    if any(not latent.scale > 0 for latent in signal.latents):
        raise InvalidInput(f"the signal {signal.name!r} has a latent whose scale is not positive")


def _lower_latent(latent: LockedLatent, share: float) -> PlanLatent:
    weight = latent.weight * share
    return PlanLatent(
        latent=latent.latent,
        weight=weight,
        zero=latent.offset,
        scale=latent.scale,
        silence=lower(weight * (0.0 - latent.offset) / latent.scale),
    )


class SignalPool:
    """Pools one signal, token after token; build it once and call `value` per token."""

    def __init__(self, signal: LockedSignal | PlanSignal) -> None:
        plan = signal if isinstance(signal, PlanSignal) else lower_signal(signal)
        self.plan = plan
        self._latents = {latent.latent: latent for latent in plan.latents}
        self._falling = sorted(plan.latents, key=lambda x: -x.silence) if plan.largest else []

    def value(self, latents: Iterable[int], values: Iterable[float]) -> int:
        """The token's value, given its active latents and their activations as stored (float32)."""
        if self.plan.largest:
            return self._largest(dict(zip(latents, values, strict=True)))
        total = self.plan.constant
        for number, value in zip(latents, values, strict=True):
            latent = self._latents.get(number)
            if latent is not None:
                total += _lowered(latent, value) - latent.silence
        return total

    def _largest(self, active: Mapping[int, float]) -> int:
        """The largest of the active latents and of the silent one whose silence is largest."""
        found = [_lowered(x, active[x.latent]) for x in self.plan.latents if x.latent in active]
        silent = next((x.silence for x in self._falling if x.latent not in active), None)
        return max(found) if silent is None else max([silent, *found])


def _lowered(latent: PlanLatent, value: float) -> int:
    return lower(latent.weight * (value - latent.zero) / latent.scale)


def pool_signal(signal: LockedSignal, latents: Sequence[int], values: Sequence[float]) -> int:
    """One token's value of one signal; `SignalPool` is the same for many tokens."""
    return SignalPool(signal).value(latents, values)
