"""`auditkit sae compare`: the SAEs that a train.yaml's own SAE is held against."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from auditkit.config import ComparisonsDocument, Located, TrainDocument, load_train
from auditkit.core.errors import AuditkitError, InvalidInput
from auditkit.core.measured import NotMeasured
from auditkit.core.progress import Progress
from auditkit.pipeline.train import check_training, harvest, plan_training, train
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.training import ActivationStore, TrainPlan, is_plan_of_card


class Kind(StrEnum):
    """What an SAE is trained for, and the name of its folder."""

    REFERENCE = "reference"
    SECOND_SEED = "second-seed"
    FROZEN_DECODER = "frozen-decoder"
    RANDOM_MODEL = "random-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One SAE to train: by which plan, and into which folder."""

    kind: Kind
    plan: TrainPlan
    folder: Path


def list_comparisons(located: Located[TrainDocument], *, d_in: int) -> tuple[Comparison, ...]:
    """What the document's `comparisons` ask for; none without such a block.

    Raises InvalidInput where the second seed is the first one.
    """
    asked = located.document.comparisons
    if asked is None:
        return ()
    own = plan_training(located.document, d_in=d_in)
    reference = dataclasses.replace(own, steps=asked.steps or own.steps)
    if asked.second_seed == own.seed:
        raise InvalidInput(
            f"comparisons.second_seed is {own.seed}, the seed of the SAE itself",
            help="name another seed",
        )
    plans: dict[Kind, TrainPlan] = {}
    if reference != own:
        plans[Kind.REFERENCE] = reference
    if asked.second_seed is not None:
        plans[Kind.SECOND_SEED] = dataclasses.replace(reference, seed=asked.second_seed)
    if asked.frozen_decoder:
        plans[Kind.FROZEN_DECODER] = dataclasses.replace(reference, frozen_decoder=True)
    if asked.random_model is not None:
        plans[Kind.RANDOM_MODEL] = reference
    return tuple(
        Comparison(kind=kind, plan=plan, folder=located.resolve(asked.folder) / kind.value)
        for kind, plan in plans.items()
    )


def compare_from(file: Path, *, progress: Progress) -> str:
    """Train what `file` declares as comparisons and is not there yet; a line on each."""
    located = load_train(file)
    require_autoencoder(located.document, "compare")
    asked = located.document.comparisons
    if asked is None:
        raise InvalidInput(
            f"{file}: no comparisons are declared in it",
            help="add a `comparisons:` block; docs/measures.md shows one",
        )
    check_training(located.document)
    activations = harvest(located, progress)
    lines: list[str] = []
    for comparison in list_comparisons(located, d_in=activations.d_in):
        kind = comparison.kind
        found = load_comparison(comparison)
        if isinstance(found, NotMeasured):
            rows = activations
            if kind is Kind.RANDOM_MODEL:
                rows = _harvest_random(located, asked, progress)
            train(
                comparison.plan,
                rows,
                progress,
                name=f"{located.document.name}-{kind.value}",
                checkpoint=comparison.folder.with_suffix(".checkpoint"),
                output=comparison.folder,
            )
        lines.append(f"{kind.value}: {comparison.plan.steps:,} steps, in {comparison.folder}")
    return "\n".join([*lines, f"measure with them: auditkit sae score {file}"])


def load_comparison(comparison: Comparison) -> SparseAutoencoder | NotMeasured:
    """The SAE in a comparison's folder, or why it cannot be used."""
    remedy = "auditkit sae compare trains it"
    if not (comparison.folder / "cfg.json").exists():
        return NotMeasured(f"no {comparison.kind.value} SAE has been trained; {remedy}")
    try:
        sae = load_sae(str(comparison.folder))
    except AuditkitError as error:
        return NotMeasured(f"the {comparison.kind.value} SAE cannot be read: {error}")
    if not is_trained_by(sae, comparison.plan):
        return NotMeasured(f"the {comparison.kind.value} SAE follows another plan; {remedy} anew")
    return sae


def is_trained_by(sae: SparseAutoencoder, plan: TrainPlan) -> bool:
    """Whether the SAE's card names this very plan."""
    stored: Any = training_of(sae).get("plan")
    return stored is not None and is_plan_of_card(plan, stored)


def training_of(sae: SparseAutoencoder) -> dict[str, Any]:
    """What an SAE's metadata say of its training; empty where they say nothing."""
    return dict(sae.config.metadata.get("auditkit", {}).get("training", {}))


def _harvest_random(
    located: Located[TrainDocument], asked: ComparisonsDocument, progress: Progress
) -> ActivationStore:
    folder = located.resolve(asked.folder) / f"{Kind.RANDOM_MODEL.value}.activations"
    return harvest(located, progress, random_model=asked.random_model, folder=folder)
