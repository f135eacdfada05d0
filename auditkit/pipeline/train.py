"""`train.yaml` → activations → a sparse autoencoder in its folder."""

from __future__ import annotations

from pathlib import Path

from auditkit.config import Located, RandomModelDocument, TrainDocument, load_train
from auditkit.core.hook_point import HookPoint
from auditkit.core.progress import Progress
from auditkit.core.prompts import Prompt
from auditkit.models import load_model
from auditkit.pipeline.text_mix import TextSource, draw_pieces
from auditkit.saes import SparseAutoencoder, write_sae
from auditkit.training import (
    ActivationStore,
    HarvestEvent,
    TrainEvent,
    TrainPlan,
    harvest_activations,
    train_sae,
    with_random_weights,
)


def train_from(file: Path, *, progress: Progress) -> str:
    """Harvest and train as `file` says; returns a line on what was made and where."""
    located = load_train(file)
    document = located.document
    activations = harvest(located, progress)
    output = located.resolve(document.output)
    sae = train(
        plan_training(document, d_in=activations.d_in),
        activations,
        progress,
        name=document.name,
        checkpoint=located.resolve(document.harvest.folder).parent / f"{document.name}.checkpoint",
        output=output,
    )
    return (
        f"{document.name}: {sae.config.d_sae:,} latents at {sae.hook_point}, trained on "
        f"{len(activations):,} tokens, in {output}\n"
        f"measure it: auditkit sae score {file}"
    )


def draw_documents(located: Located[TrainDocument], *, held_out: bool) -> list[Prompt]:
    """The training pieces of the text mix, or those kept for evaluation."""
    plan = located.document.harvest
    sources = [
        TextSource(name=s.name, path=located.resolve(s.path), characters=s.characters)
        for s in plan.sources
    ]
    return draw_pieces(
        sources,
        seed=located.document.seed,
        held_out=held_out,
        piece_characters=plan.piece_characters,
    )


def harvest(
    located: Located[TrainDocument],
    progress: Progress,
    *,
    random_model: RandomModelDocument | None = None,
    folder: Path | None = None,
) -> ActivationStore:
    """The activations of the document's text at its hook point, harvested where they are not.

    With `random_model`, those of the model with its weights drawn anew, in `folder`.
    """
    document = located.document
    plan = document.harvest
    hook_point = HookPoint.parse(plan.hook_point)
    documents = draw_documents(located, held_out=False)
    progress.note(f"loading {document.model.source}")
    model = load_model(
        located.resolve_source(document.model.source),
        dtype=document.model.dtype,
        device=document.model.device,
    )
    max_tokens = plan.max_tokens
    if random_model is not None:
        model = with_random_weights(model, seed=random_model.weights_seed)
        max_tokens = random_model.max_tokens or max_tokens
    progress.begin(f"harvest {hook_point.name} of {model.identity.name}", len(documents))
    before = 0

    def report(event: HarvestEvent) -> None:
        nonlocal before
        progress.advance(event.documents - before)
        before = event.documents

    stores = harvest_activations(
        model,
        documents,
        {hook_point: folder or located.resolve(plan.folder)},
        max_tokens=max_tokens,
        context=plan.context,
        progress=report,
    )
    return stores[hook_point]


def plan_training(document: TrainDocument, *, d_in: int) -> TrainPlan:
    """What the document's trainer settings ask for, on activations of width `d_in`."""
    settings = document.trainer
    return TrainPlan(
        d_in=d_in,
        d_sae=settings.d_sae,
        k=settings.k,
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_fraction=settings.decay_fraction,
        k_aux=settings.k_aux,
        aux_coefficient=settings.aux_coefficient,
        dead_after_tokens=settings.dead_after_tokens,
        held_out=settings.held_out,
        seed=document.seed,
        frozen_decoder=settings.frozen_decoder,
    )


def train(
    plan: TrainPlan,
    activations: ActivationStore,
    progress: Progress,
    *,
    name: str,
    checkpoint: Path,
    output: Path,
) -> SparseAutoencoder:
    """Train on harvested activations and write the SAE's folder; resumes from its checkpoint."""
    progress.begin(f"train {name}", plan.steps)
    before = 0

    def report(event: TrainEvent) -> None:
        nonlocal before
        progress.advance(event.step - before)
        before = event.step
        if event.held_out_explained_variance is not None:
            progress.note(
                f"step {event.step}: explained variance {event.held_out_explained_variance:.4f} "
                f"on held-out rows, {event.dead} dead, {event.tokens_per_second:,.0f} tokens/s"
            )

    sae = train_sae(plan, activations, name=name, checkpoint_dir=checkpoint, progress=report)
    return write_sae(sae, output)
