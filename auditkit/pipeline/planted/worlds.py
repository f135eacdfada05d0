"""The gate: an objective trained on a world whose truth is known, floors and ceilings beside."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditkit.core.fingerprint import to_plain
from auditkit.core.measured import Measure, Measured
from auditkit.core.progress import Progress, Silent
from auditkit.pipeline.plain_table import plain_table
from auditkit.pipeline.planted.world_training import (
    WorldBudget,
    store_world,
    train_on_world,
    world_budget,
    world_objective,
    world_plan,
)
from auditkit.quality.worlds import (
    DictionaryReader,
    FeatureRecovery,
    GateVerdict,
    PlantedWorld,
    Reader,
    Recovery,
    ceiling_readers,
    floor_readers,
    gate,
    gate_world,
    measure_features,
    measure_recovery,
)
from auditkit.training import Objective
from auditkit.training.plan import Kernel

TRAINED = "trained"
FROZEN = "frozen decoder"
LEAST_F1 = {"relu_l1": 0.8}
"""Where the gate asks for less F1 than 0.9. A ReLU under L1 has no threshold: raising it shrinks
what does fire, so that some small values fire beside it. Measured 0.87 (n = 1)."""
_SHOWN = {
    "recall": "MMCS, over features",
    "recall_found": "features with a cosine above 0.9",
    "recall_over_random": "MMCS above random directions",
    "precision": "MMCS, over latents",
    "mcc": "MCC, one to one, signed",
    "f1": "F1 of firing",
    "uniqueness": "uniqueness",
    "splitting": "latents that fire on part of a feature",
    "shrinkage": "shrinkage (1: none)",
    "explained_variance": "explained variance",
    "l0": "L0, latents per token",
    "dead_rate": "dead latents",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRun:
    """One objective at the gate. `recoveries` are of the trained SAE, of the floors and of the
    ceilings, by name."""

    objective: str
    world: str
    rho: Measured
    true_l0: float
    n_features: int
    d_in: int
    tokens_seen: int
    verdict: GateVerdict
    recoveries: Mapping[str, Recovery]

    @property
    def passed(self) -> bool:
        return self.verdict.passed

    def text(self) -> str:
        """The verdict with its reasons, and a table of what it was held against."""
        words = "passes" if self.passed else "does not pass"
        head = [
            f"{self.objective} {words} the gate: world {self.world}, {self.n_features} features in "
            f"{self.d_in} dimensions (ρ {self.rho.value:.3f}), {self.true_l0:.3g} a token; "
            f"{self.tokens_seen:,} tokens seen in training",
            *(f"  - {reason}" for reason in self.verdict.reasons),
        ]
        names = list(self.recoveries)
        rows: list[tuple[str, ...]] = [("measure", *names)]
        for measure, said in _SHOWN.items():
            cells = (short(getattr(self.recoveries[name], measure)) for name in names)
            rows.append((said, *cells))
        return "\n".join([*head, "", *plain_table(rows)])

    def json(self) -> str:
        """The same for machines, every measure in it."""
        plain = to_plain(self)
        plain["passed"] = self.passed
        plain["reasons"] = list(self.verdict.reasons)
        return json.dumps(plain, indent=1, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldRun:
    """A world with what was trained on it and what that is held against, ready to be read."""

    world: PlantedWorld
    readers: Mapping[str, Reader]
    tokens_seen: int

    def features(self, name: str) -> FeatureRecovery:
        """Feature by feature, of one of the readers that has a live latent."""
        found = measure_features(self.world, self.readers[name])
        assert isinstance(found, FeatureRecovery)
        return found


def run_gate(
    objective: str = "topk", *, seed: int = 0, floors: bool = True, progress: Progress | None = None
) -> GateRun:
    """Train an objective of the registry on the gate world and judge what it found.

    `seed` is of the training; the world stays the same. About half a minute a core, twice that
    with the frozen decoder among the floors. Raises InvalidInput for an objective without settings
    for planted worlds.
    """
    world = gate_world()
    chosen, budget = world_objective(objective, world), world_budget(objective, world)
    run = train_in_world(world, chosen, budget, seed=seed, floors=floors, progress=progress)
    return judge_run(objective, run, least_f1=LEAST_F1.get(objective, 0.9))


def train_in_world(
    world: PlantedWorld,
    objective: Objective,
    budget: WorldBudget,
    *,
    seed: int = 0,
    floors: bool = True,
    folder: Path | None = None,
    kernel: Kernel = "auto",
    progress: Progress | None = None,
) -> WorldRun:
    """Train on a world, its activations in `folder` (a temporary one where none is given), and
    with `floors` a frozen decoder too."""
    said = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="auditkit-world-") as temporary:
        store = store_world(world, folder or Path(temporary), rows=budget.rows)
        readers: dict[str, Reader] = {}
        for name in (TRAINED, FROZEN) if floors else (TRAINED,):
            said.begin(f"{objective.name}, {name}", budget.steps)
            plan = world_plan(
                world, objective, budget=budget, seed=seed, frozen_decoder=name == FROZEN
            )
            sae = train_on_world(
                plan, store, name=f"{world.name}-{name}", kernel=kernel, progress=said
            )
            readers[name] = DictionaryReader.of_sae(sae)
    if floors:
        readers |= floor_readers(world, seed=seed) | ceiling_readers(world)
    return WorldRun(world=world, readers=readers, tokens_seen=budget.tokens)


def judge_run(objective: str, run: WorldRun, *, least_f1: float = 0.9) -> GateRun:
    """Hold what was trained on a gate world against the gate."""
    world = run.world
    recoveries = {name: measure_recovery(world, reader) for name, reader in run.readers.items()}
    return GateRun(
        objective=objective,
        world=world.name,
        rho=world.coherence(),
        true_l0=world.true_l0,
        n_features=world.n_features,
        d_in=world.d_in,
        tokens_seen=run.tokens_seen,
        verdict=gate(world, recoveries[TRAINED], least_f1=least_f1),
        recoveries=recoveries,
    )


def short(value: Measure) -> str:
    """A measure for a table cell; a dash where it was not measured."""
    if not isinstance(value, Measured):
        return "–"
    return f"{value.value:.3f}" if abs(value.value) < 10 else f"{value.value:.1f}"
