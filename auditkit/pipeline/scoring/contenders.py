"""What a scored SAE is held against: floors, the SAEs that were trained for it, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.config import Located, TrainDocument
from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import NotMeasured
from auditkit.models import LanguageModel
from auditkit.pipeline.comparisons import (
    Kind,
    is_trained_by,
    list_comparisons,
    load_comparison,
    training_of,
)
from auditkit.pipeline.train import plan_training
from auditkit.quality import Floor
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.training import with_random_weights

REFERENCE, FROZEN, RANDOM_MODEL = "reference", "frozen decoder", "random model"
NOT_DECLARED = NotMeasured("the train.yaml declares no such comparison (key `comparisons`)")
_FROZEN_NOTE = (
    "an SAE whose decoder rows stay the random unit vectors they start as; encoder and biases "
    "trained in the reference's budget"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """A dictionary with its column's name. `absent`: it could be here and is not, so that what an
    earlier score says of it still holds."""

    column: str
    note: str
    found: SparseAutoencoder | Floor | NotMeasured
    absent: bool = False

    @property
    def digest(self) -> str:
        """What its measures depend on, apart from the text."""
        if isinstance(self.found, SparseAutoencoder):
            return fingerprint(self.found.identity)
        return self.found.reason if isinstance(self.found, NotMeasured) else self.found.note


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """The SAEs of a train.yaml's `comparisons`, each found or with the reason why not.

    `matched` says whether the scored SAE follows the train.yaml's plan, so that they speak of it.
    """

    reference: Contender
    second_seed: Contender
    frozen: Contender
    random_model: Contender
    matched: bool

    @property
    def shown(self) -> tuple[Contender, ...]:
        """Those with columns of their own; the reference only where it is another SAE."""
        own = () if self.reference.note == "" else (self.reference,)
        return (self.frozen, self.random_model, *own)


def load_compared(
    located: Located[TrainDocument], sae: SparseAutoencoder, model: LanguageModel
) -> Compared:
    """Load what `auditkit sae compare` trained for this SAE."""
    runs = {c.kind: c for c in list_comparisons(located, d_in=sae.config.d_in)}
    matched = is_trained_by(sae, plan_training(located.document, d_in=sae.config.d_in))
    found: dict[Kind, SparseAutoencoder | NotMeasured] = {
        kind: load_comparison(run) for kind, run in runs.items()
    }
    if not matched:
        other = NotMeasured("the scored SAE was not trained by this train.yaml's plan")
        found = dict.fromkeys(Kind, other)
    reference = found.get(Kind.REFERENCE, sae)
    own = _same_data(reference, sae)
    note = ""
    if Kind.REFERENCE in runs:
        plan = runs[Kind.REFERENCE].plan
        note = (
            "this SAE's plan and seed in the comparisons' budget, "
            f"{plan.steps:,} steps of {plan.batch_size:,} tokens: what the frozen decoder and the "
            "random model are to be held against"
        )

    def contender(kind: Kind, column: str, note: str) -> Contender:
        sae_found = found.get(kind, NOT_DECLARED)
        absent = matched and isinstance(sae_found, NotMeasured)
        if kind is not Kind.RANDOM_MODEL:
            sae_found = _same_data(sae_found, own)
        return Contender(column=column, note=note, found=sae_found, absent=absent)

    random = contender(Kind.RANDOM_MODEL, RANDOM_MODEL, _random_note(located, found))
    return Compared(
        reference=Contender(
            column=REFERENCE,
            note=note,
            found=own,
            absent=matched and isinstance(reference, NotMeasured),
        ),
        second_seed=contender(Kind.SECOND_SEED, "second seed", ""),
        frozen=contender(Kind.FROZEN_DECODER, FROZEN, _FROZEN_NOTE),
        random_model=_of_this_model(random, located, model),
        matched=matched,
    )


def random_model_of(located: Located[TrainDocument], model: LanguageModel) -> LanguageModel:
    """The model with the weights drawn anew that the document's comparisons ask for."""
    asked = located.document.comparisons
    if asked is None or asked.random_model is None:
        raise InvalidInput(
            f"{located.document.name}: no random model is declared under `comparisons`",
            help="docs/measures.md shows the block",
        )
    return with_random_weights(model, seed=asked.random_model.weights_seed)


def load_beside(folders: Sequence[Path], sae: SparseAutoencoder) -> tuple[Contender, ...]:
    """Other SAEs of the same hook point, with columns named after them.

    Raises MismatchError for an SAE of another width or hook point, InvalidInput for two of a name.
    """
    found: dict[str, Contender] = {}
    for folder in folders:
        other = load_sae(str(folder))
        if (other.hook_point, other.config.d_in) != (sae.hook_point, sae.config.d_in):
            raise MismatchError(
                f"{folder}: reads {other.hook_point} (d_in {other.config.d_in}), and the scored "
                f"SAE {sae.hook_point} (d_in {sae.config.d_in})",
                help="name SAEs of the same hook point of the same model",
            )
        name = other.config.name
        if name in found or name in (REFERENCE, FROZEN, RANDOM_MODEL):
            raise InvalidInput(f"{folder}: another column is called {name!r} already")
        k = f", k {other.config.k}" if other.config.k else ""
        note = f"{other.config.architecture.value}, {other.config.d_sae:,} latents{k}"
        found[name] = Contender(column=name, note=note, found=other)
    return tuple(found.values())


def _same_data(
    sae: SparseAutoencoder | NotMeasured, reference: SparseAutoencoder | NotMeasured
) -> SparseAutoencoder | NotMeasured:
    """`sae`, unless there is no reference or it saw other activations than the reference."""
    if isinstance(sae, NotMeasured) or isinstance(reference, NotMeasured):
        return sae if isinstance(sae, NotMeasured) else reference
    if training_of(sae).get("activations") != training_of(reference).get("activations"):
        return NotMeasured("it was trained on other activations than its reference")
    return sae


def _of_this_model(
    random: Contender, located: Located[TrainDocument], model: LanguageModel
) -> Contender:
    asked = located.document.comparisons
    if not isinstance(random.found, SparseAutoencoder) or asked is None:
        return random
    seed = asked.random_model.weights_seed if asked.random_model is not None else None
    wanted = f"{model.identity.name}, random weights of seed {seed}"
    if training_of(random.found).get("model", {}).get("name") == wanted:
        return random
    reason = NotMeasured("it was trained on another model than this one with random weights")
    return Contender(column=random.column, note=random.note, found=reason)


def _random_note(
    located: Located[TrainDocument], found: Mapping[Kind, SparseAutoencoder | NotMeasured]
) -> str:
    asked, sae = located.document.comparisons, found.get(Kind.RANDOM_MODEL, NOT_DECLARED)
    said = "an SAE of the same architecture with all weights drawn anew"
    if isinstance(sae, NotMeasured) or asked is None or asked.random_model is None:
        return said
    training: dict[str, Any] = training_of(sae)
    distinct, seen = training.get("distinct_tokens", 0), training.get("tokens_seen", 0)
    dtype = training.get("model", {}).get("dtype", "its dtype")
    return (
        f"{said} (seed {asked.random_model.weights_seed}); same text, hook point and budget, "
        f"{distinct:,} distinct tokens harvested in {dtype}, each seen "
        f"{seen / max(1, distinct):.1f} times; measured on its own activations. What it reaches is "
        "owed to tokens and architecture, with nothing learnt; where tokens were seen many times, "
        "it would reach more with more text"
    )
