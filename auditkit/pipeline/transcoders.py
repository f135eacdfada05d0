"""A train.yaml with an `output_hook_point`: a transcoder in place of an autoencoder."""

from __future__ import annotations

from pathlib import Path

from auditkit.config import Located, TrainDocument
from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.hook_point import HookPoint
from auditkit.core.progress import Progress
from auditkit.pipeline.live_measures import train_reporter
from auditkit.saes import Transcoder, load_transcoder, write_transcoder
from auditkit.training import (
    ActivationStore,
    BufferPlan,
    TrainPlan,
    is_plan_of_card,
    train_transcoder,
)


def output_folder(located: Located[TrainDocument], written: HookPoint) -> Path:
    """Where the activations lie that a transcoder is to write: beside those that it reads."""
    harvest = located.document.harvest
    folder = located.resolve(harvest.folder)
    shared = folder.name == harvest.hook_point  # a file of several keeps a folder per hook point
    return folder.with_name(written.name if shared else f"{folder.name}-{written.name}")


def require_autoencoder(document: TrainDocument, verb: str) -> None:
    """Raise InvalidInput for a transcoder's document, which `verb` can do nothing with."""
    written = document.harvest.output_hook_point
    if written is not None:
        raise InvalidInput(
            f"{document.name} writes at {written}: a transcoder, and sae {verb} is for "
            "autoencoders",
            help="sae train makes a transcoder; its explained variance is in its cfg.json",
        )


def train_one_transcoder(
    plan: TrainPlan,
    stores: tuple[ActivationStore, ActivationStore],
    progress: Progress,
    *,
    name: str,
    checkpoint: Path,
    output: Path,
    buffer: BufferPlan,
) -> str:
    """Train on what is read and what is to be written, unless its folder is there; a line on it.

    Raises MismatchError where the folder holds a transcoder of another plan or other activations.
    """
    inputs, targets = stores
    found = _finished(plan, inputs, output)
    if found is None:
        progress.begin(f"train {name}", plan.steps)
        made = train_transcoder(
            plan,
            inputs,
            targets,
            name=name,
            checkpoint_dir=checkpoint,
            progress=train_reporter(progress, d_sae=plan.d_sae),
            buffer=buffer,
        )
        found = write_transcoder(made, output)
    config, card = found.config, found.config.metadata["auditkit"]["training"]
    return (
        f"{name}: a transcoder of {config.d_sae:,} latents from {config.hook_point.name} to "
        f"{config.hook_point_out.name}, trained on {len(inputs):,} tokens, in {output}\n"
        f"explained variance on {card['held_out_tokens']:,} held-out rows: "
        f"{card['held_out_explained_variance']:.4f}"
    )


def _finished(plan: TrainPlan, inputs: ActivationStore, output: Path) -> Transcoder | None:
    if not (output / "cfg.json").exists():
        return None
    found = load_transcoder(output)
    card = dict(found.config.metadata.get("auditkit", {}).get("training", {}))
    same = card.get("activations") == inputs.meta.key and is_plan_of_card(
        plan, card.get("plan", {})
    )
    if not same:
        raise MismatchError(
            f"{output}: holds a transcoder of another plan or of other activations",
            help="name another output, or delete this one",
        )
    return found
