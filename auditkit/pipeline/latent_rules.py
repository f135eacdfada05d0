"""A rule made of named latents: what a causal test needs where there is no rule yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import (
    ConfirmPlan,
    Frame,
    Intervention,
    LockedLatent,
    LockedRule,
    LockedSignal,
    Pool,
    Scope,
    Selector,
    Severity,
    Status,
    Unit,
)

SIGNAL = "latents"
_PART = re.compile(r"(\d+)(?::([+-]?\d*\.?\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLatents:
    """Latents that are pushed together, each with its weight."""

    parts: tuple[tuple[int, float], ...]

    @property
    def name(self) -> str:
        """The latents' numbers, weights other than 1 beside them."""
        return "+".join(f"{k}" if w == 1 else f"{k}:{w:g}" for k, w in self.parts)


def parse_latents(text: str, *, d_sae: int, together: bool) -> list[NamedLatents]:
    """`4091,120:-0.5` as one test of all, or one test of each.

    Raises InvalidInput for what is no latent of an SAE of width `d_sae`, or stands twice.
    """
    parts: list[tuple[int, float]] = []
    for word in text.split(","):
        found = _PART.fullmatch(word.strip())
        if found is None:
            raise InvalidInput(
                f"--latents: {word.strip()!r} is no latent",
                help="numbers, with a weight where it is not 1: 4091,120:-0.5",
            )
        latent, weight = int(found[1]), float(found[2] or 1)
        if latent >= d_sae:
            raise InvalidInput(
                f"--latents: there is no latent {latent}", help=f"the SAE has 0 to {d_sae - 1}"
            )
        if latent in {k for k, _ in parts}:
            raise InvalidInput(f"--latents: {latent} stands twice", help="name it once")
        if weight == 0:
            raise InvalidInput(f"--latents: {latent} has weight 0", help="leave it out")
        parts.append((latent, weight))
    if together:
        return [NamedLatents(parts=tuple(parts))]
    return [NamedLatents(parts=(part,)) for part in parts]


def rule_on_latents(
    named: NamedLatents,
    lexicon: str,
    *,
    op: str = "steer",
    doses: Sequence[float] = (0.5, 1.0, 2.0),
    direction: str = "increase",
    q: float = 0.05,
) -> LockedRule:
    """A locked rule that watches `named` and claims that they move the words of `lexicon`."""
    signal = LockedSignal(
        name=SIGNAL,
        selector=Selector.INDEX,
        pool=Pool.SUM,
        unit=Unit.RAW,
        latents=tuple(LockedLatent(latent=k, weight=w) for k, w in named.parts),
    )
    plan = ConfirmPlan(
        name="dose",
        intervene=Intervention(op=op, signal=SIGNAL, doses=tuple(doses), unit=Unit.FMAX),
        metric="lexicon_logodds",
        target=lexicon,
        contrast=lexicon,
        direction=direction,
        monotonic=True,
        q=q,
    )
    many = len(named.parts) > 1
    return LockedRule(
        id=f"latents.{named.name}",
        rev=1,
        digest="0" * 16,
        title=f"Latents {named.name}" if many else f"Latent {named.name}",
        description="",
        severity=Severity.INFO,
        status=Status.TEST,
        tags=(),
        false_positives=("Unknown",),
        frame=Frame.CONVERSATION,
        scope=Scope(),
        signals=(signal,),
        let=(),
        condition=f"max({SIGNAL}) > 0",
        calibration=None,
        scores=(),
        confirm=(plan,),
    )
