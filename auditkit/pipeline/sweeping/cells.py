"""What a sweep trains, and what it found: cells, their measures, and who dominates whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.measured import Measure, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One SAE of the grid: `knob` is what its sparsity is set by (k, l1, target_l0)."""

    objective: str
    d_sae: int
    knob: str
    setting: float

    @property
    def name(self) -> str:
        return f"{self.objective}-{self.d_sae}-{self.knob}{self.setting:g}"

    @property
    def series(self) -> str:
        """What it has in common with the cells of one line of the plot."""
        return f"{self.objective}, {self.d_sae:,} latents"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """A trained cell on held-out text: `explained_variance` (centred) and `l0` over tokens,
    `delta_ce` in nats per token, `dead` the share of latents silent over the tokens.

    `sae` is the SAE's digest, `folder` where it lies beside the sweep's other files.
    """

    cell: Cell
    folder: str
    sae: str
    steps: int
    tokens_seen: int
    l0: Measure
    explained_variance: Measure
    delta_ce: Measure
    dead: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePoint:
    """What a dictionary that learnt nothing of features reaches with k terms per token."""

    kind: str
    k: int
    explained_variance: Measure
    delta_ce: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether another cell has no more latents per token and does no worse, and one of them
    better; None where a measure is missing."""

    on_explained_variance: bool | None
    on_delta_ce: bool | None

    @property
    def mark(self) -> str:
        """How a table says it."""
        if self.on_explained_variance is None and self.on_delta_ce is None:
            return "not measured"
        beaten = [
            name
            for name, dominated in (("EV", self.on_explained_variance), ("ΔCE", self.on_delta_ce))
            if dominated
        ]
        return f"dominated on {' and '.join(beaten)}" if beaten else "frontier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep. `tokens_left_out` are held-out tokens above the norm limit, `missing` the cells
    that are not finished."""

    name: str
    model: str
    hook_point: str
    cells: tuple[CellResult, ...]
    standings: tuple[Standing, ...]
    baselines: tuple[BaselinePoint, ...]
    base_ce: Measure
    tokens_left_out: int
    missing: tuple[str, ...] = ()


def dominated(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Which (cost, value) points are dominated: another costs no more and is worth no less, and
    differs in one of them. Equal points do not dominate one another."""
    return tuple(
        any(
            other_cost <= cost
            and other_value >= value
            and (other_cost, other_value) != (cost, value)
            for other_cost, other_value in points
        )
        for cost, value in points
    )


def stand(cells: Sequence[CellResult]) -> tuple[Standing, ...]:
    """Each cell's standing among all, on explained variance and on ΔCE against L0."""
    variance = _dominated([(c.l0, c.explained_variance) for c in cells], sign=1.0)
    loss = _dominated([(c.l0, c.delta_ce) for c in cells], sign=-1.0)
    return tuple(
        Standing(on_explained_variance=v, on_delta_ce=d)
        for v, d in zip(variance, loss, strict=True)
    )


def _dominated(pairs: Sequence[tuple[Measure, Measure]], *, sign: float) -> list[bool | None]:
    places = [
        i
        for i, (cost, value) in enumerate(pairs)
        if isinstance(cost, Measured) and isinstance(value, Measured)
    ]
    points = [(_value(pairs[i][0]), sign * _value(pairs[i][1])) for i in places]
    found: list[bool | None] = [None] * len(pairs)
    for i, beaten in zip(places, dominated(points), strict=True):
        found[i] = beaten
    return found


def counts(measures: Sequence[Measure]) -> str:
    """The n of what was measured, or their range, for a reader."""
    found = sorted({m.n for m in measures if isinstance(m, Measured)})
    return "–".join(f"{n:,}" for n in dict.fromkeys((found[0], found[-1]))) if found else "0"


def _value(measure: Measure) -> float:
    assert isinstance(measure, Measured), "only measured pairs are compared"
    return measure.value
