"""`train.yaml` → activations → a sparse autoencoder in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from auditkit.config import Located, RandomModelDocument, TrainDocument, load_saes
from auditkit.core.hook_point import HookPoint
from auditkit.core.progress import Progress, Silent
from auditkit.core.prompts import Prompt
from auditkit.models import load_model
from auditkit.pipeline.live_measures import harvest_reporter, train_reporter
from auditkit.pipeline.objective_settings import plan_objective
from auditkit.pipeline.text_mix import TextSource, draw_pieces
from auditkit.pipeline.transcoders import output_folder, train_one_transcoder
from auditkit.saes import SparseAutoencoder, write_sae
from auditkit.training import (
    ALONE,
    ActivationStore,
    BufferPlan,
    Mesh,
    TrainPlan,
    harvest_activations,
    join_processes,
    train_sae,
    with_random_weights,
)
from auditkit.training.distributed.step import DistributedStep


def train_from(file: Path, *, latent_shards: int = 1, progress: Progress) -> str:
    """Harvest and train as `file` says; returns lines on what was made and where.

    Where it names several SAEs, all their hook points that are missing are harvested in one pass
    over the model, and then the SAEs are trained one after the other.

    Started by torchrun, rank 0 harvests and writes while all train, with the latents sharded over
    `latent_shards` of the processes and the tokens over the rest; other ranks return nothing.
    """
    saes = load_saes(file)
    with join_processes(latent_shards=latent_shards) as mesh:
        for one in saes:
            check_training(one.document, mesh)  # before hours of harvest
        told = progress if mesh.rank == 0 else Silent()
        stores = _harvest_once(saes, mesh, told)
        lines = [
            _train_one(
                located,
                stores,
                told,
                file=_named(file, located, saes),
                mesh=mesh,
            )
            for located in saes
        ]
    return "\n".join(lines) if mesh.rank == 0 else ""


def _harvest_once(
    saes: Sequence[Located[TrainDocument]], mesh: Mesh, progress: Progress
) -> dict[HookPoint, ActivationStore]:
    """What rank 0 harvests, opened on every rank."""
    stores = harvest_together(saes, progress) if mesh.rank == 0 else None
    mesh.wait_for_all()
    return stores or {
        place: ActivationStore(folder) for one in saes for place, folder in _folders(one).items()
    }


def _named(
    file: Path, located: Located[TrainDocument], saes: Sequence[Located[TrainDocument]]
) -> str:
    """How another command is told which SAE of the file is meant."""
    return str(file) if len(saes) == 1 else f"{file}#{located.document.name}"


def _train_one(
    located: Located[TrainDocument],
    stores: Mapping[HookPoint, ActivationStore],
    progress: Progress,
    *,
    file: str,
    mesh: Mesh,
) -> str:
    document = located.document
    output = located.resolve(document.output)
    checkpoint = located.resolve(document.harvest.folder).parent / f"{document.name}.checkpoint"
    activations, *targets = (stores[place] for place in _folders(located))
    if targets:
        return train_one_transcoder(
            plan_training(document, d_in=activations.d_in, d_out=targets[0].d_in),
            (activations, targets[0]),
            progress,
            name=document.name,
            checkpoint=checkpoint,
            output=output,
            buffer=plan_buffer(document),
        )
    sae = train(
        plan_training(document, d_in=activations.d_in),
        activations,
        progress,
        name=document.name,
        checkpoint=checkpoint,
        output=output,
        buffer=plan_buffer(document),
        mesh=mesh,
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
    hook_point = _hook_point(located)
    place = folder or located.resolve(located.document.harvest.folder)
    return _harvest(located, {hook_point: place}, progress, random_model)[hook_point]


def harvest_together(
    saes: Sequence[Located[TrainDocument]], progress: Progress
) -> dict[HookPoint, ActivationStore]:
    """Activations at the hook points of all SAEs of one file, in one pass over the model.

    Their rows are aligned: row i is the same token at every hook point.
    """
    folders = {place: folder for one in saes for place, folder in _folders(one).items()}
    return _harvest(saes[0], folders, progress, None)


def _hook_point(located: Located[TrainDocument]) -> HookPoint:
    return HookPoint.parse(located.document.harvest.hook_point)


def _folders(located: Located[TrainDocument]) -> dict[HookPoint, Path]:
    """Where its activations lie: what is read, and what a transcoder is to write."""
    harvest = located.document.harvest
    folders = {_hook_point(located): located.resolve(harvest.folder)}
    if harvest.output_hook_point is not None:
        written = HookPoint.parse(harvest.output_hook_point)
        folders[written] = output_folder(located, written)
    return folders


def _harvest(
    located: Located[TrainDocument],
    folders: Mapping[HookPoint, Path],
    progress: Progress,
    random_model: RandomModelDocument | None,
) -> dict[HookPoint, ActivationStore]:
    document = located.document
    plan = document.harvest
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
    names = [hook_point.name for hook_point in folders]
    if len(names) > 1:
        progress.note(f"one pass over the model for {', '.join(names)}")
    what = names[0] if len(names) == 1 else f"{len(names)} hook points"
    progress.begin(f"harvest {what} of {model.identity.name}", len(documents))
    return harvest_activations(
        model,
        documents,
        folders,
        max_tokens=max_tokens,
        context=plan.context,
        progress=harvest_reporter(progress),
    )


def plan_training(document: TrainDocument, *, d_in: int, d_out: int | None = None) -> TrainPlan:
    """What the document's trainer settings ask for, on activations of width `d_in`; for a
    transcoder, to activations of width `d_out`."""
    settings = document.trainer
    return TrainPlan(
        d_in=d_in,
        d_out=d_out,
        d_sae=settings.d_sae,
        objective=plan_objective(document),
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_fraction=settings.decay_fraction,
        sparsity_warmup=settings.sparsity_warmup,
        dead_after_tokens=settings.dead_after_tokens,
        held_out=settings.held_out,
        seed=document.seed,
        frozen_decoder=settings.frozen_decoder,
    )


def check_training(document: TrainDocument, mesh: Mesh = ALONE) -> None:
    """Raise InvalidInput for settings that nothing can be trained by, whatever the activations, and
    NotSupportedYet for those that several processes cannot be."""
    plan = plan_training(document, d_in=1, d_out=1 if document.harvest.output_hook_point else None)
    if mesh.size > 1:
        DistributedStep(plan, mesh)


def plan_buffer(document: TrainDocument) -> BufferPlan:
    """Where the document wants its training rows kept."""
    asked = document.buffer
    return BufferPlan(place=asked.place, memory_bytes=round(asked.memory_gb * 1e9))


def train(
    plan: TrainPlan,
    activations: ActivationStore,
    progress: Progress,
    *,
    name: str,
    checkpoint: Path,
    output: Path,
    buffer: BufferPlan | None = None,
    mesh: Mesh = ALONE,
) -> SparseAutoencoder:
    """Train on harvested activations and write the SAE's folder (rank 0 does); resumes from its
    checkpoint."""
    progress.begin(f"train {name}", plan.steps)
    sae = train_sae(
        plan,
        activations,
        name=name,
        checkpoint_dir=checkpoint,
        progress=train_reporter(progress, d_sae=plan.d_sae),
        buffer=buffer,
        mesh=mesh,
    )
    return write_sae(sae, output) if mesh.rank == 0 else sae
