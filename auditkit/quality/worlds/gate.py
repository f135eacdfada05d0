"""The gate: a world so easy that a trainer that does not recover it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured
from auditkit.quality.worlds.recipes import make_world
from auditkit.quality.worlds.recovery import Recovery
from auditkit.quality.worlds.world import PlantedWorld, WorldKind, WorldSize

LARGEST_RHO = 0.15
UNIT_NORM_WITHIN = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One measure and the bound that it keeps or not; what was not measured does not pass."""

    measure: str
    value: Measure
    bound: float
    kind: Literal["at least", "at most"] = "at least"

    @property
    def passed(self) -> bool:
        if not isinstance(self.value, Measured):
            return False
        if self.kind == "at least":
            return self.value.value >= self.bound
        return self.value.value <= self.bound

    @property
    def reason(self) -> str:
        """What it came to, in words."""
        wanted = f"{self.kind} {self.bound:g} needed"
        if isinstance(self.value, Measured):
            return f"{self.measure} is {self.value.value:.4g}, {wanted}"
        return f"{self.measure} was not measured ({self.value.reason}), {wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Whether a trainer passed the gate, and each check."""

    world: str
    checks: tuple[GateCheck, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass; empty where it did."""
        return tuple(check.reason for check in self.checks if not check.passed)


def gate_world(*, seed: int = 0) -> PlantedWorld:
    """The independent world in the small size."""
    return make_world(WorldKind.INDEPENDENT, WorldSize.SMALL, seed=seed)


def gate(
    world: PlantedWorld,
    recovery: Recovery,
    *,
    least_f1: float = 0.9,
    unit_decoder: bool = True,
) -> GateVerdict:
    """Judge what was recovered of a gate world.

    With `unit_decoder` the decoder's rows must have norm 1, as all SAEs have that are trained here:
    what steers by a latent relies on it. Raises InvalidInput for a world that is no gate world: one
    that is not independent, or whose features overlap too much to be told apart.
    """
    rho = world.coherence().value
    if world.kind != WorldKind.INDEPENDENT or rho > LARGEST_RHO:
        raise InvalidInput(
            f"world {world.name} is no gate world: it is {world.kind}, with ρ {rho:.3f}",
            help=f"a gate world is independent with ρ at most {LARGEST_RHO}: gate_world()",
        )
    checks = [
        GateCheck(measure="MMCS recall", value=recovery.recall, bound=0.95),
        GateCheck(measure="MMCS precision", value=recovery.precision, bound=0.95),
        GateCheck(measure="F1", value=recovery.f1, bound=least_f1),
        GateCheck(measure="uniqueness", value=recovery.uniqueness, bound=0.95),
    ]
    if unit_decoder:
        checks.append(
            GateCheck(
                measure="largest error of a decoder norm",
                value=recovery.decoder_norm_error,
                bound=UNIT_NORM_WITHIN,
                kind="at most",
            )
        )
    return GateVerdict(world=world.name, checks=tuple(checks))
