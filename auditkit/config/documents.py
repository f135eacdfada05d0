"""The documents a user writes to start a run: `audit.yaml` and `train.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from auditkit.config.sweep_document import SweepDocument
from auditkit.config.trainer_document import TrainerDocument
from auditkit.core.documents import Document

Dtype = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]


class ModelDocument(Document):
    """A model: hub id, folder, .gguf file, or `package:NAME/FILE`."""

    source: str
    dtype: Dtype = "float32"
    device: str = "cpu"


class SubjectDocument(Document):
    """A suite that the audit is about; `generate` asks for the model's own replies."""

    suite: str
    generate: Annotated[int, Field(ge=0, le=4096)] = 0
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0


class RecordDocument(Document):
    """How prompts are recorded."""

    max_tokens: Annotated[int, Field(ge=8, le=131072)] = 512


class ConfirmDocument(Document):
    """How causes are tested.

    The prompts are shared by every rule; controls run on the first `control_prompts` of them, and
    ablation on up to `ablation_prompts` examples on which a rule's latents fire. There are as many
    controls as the number of tests in the run asks for, unless `latent_controls` or
    `direction_controls` (isotropic) say otherwise.
    """

    enabled: bool = True
    openings: str = "builtin/neutral-openings"
    damage: str = "builtin/damage-text"
    prompts: Annotated[int, Field(ge=8, le=1024)] = 64
    control_prompts: Annotated[int, Field(ge=8, le=1024)] = 16
    ablation_prompts: Annotated[int, Field(ge=8, le=1024)] = 12
    latent_controls: Annotated[int, Field(ge=19, le=2000)] | None = None
    direction_controls: Annotated[int, Field(ge=19, le=2000)] | None = None
    generate: bool = True


class RobustnessDocument(Document):
    """Measure the rules' recall on variants of this many of their held-out positive examples."""

    examples: Annotated[int, Field(ge=1, le=1000)] = 30


class AuditDocument(Document):
    """`audit.yaml`: which model, SAE, rules and prompts, and where results go.

    Paths are relative to the file's folder; `builtin/NAME` names a shipped suite, `builtin` the
    shipped rules. `reference` are suites that latents' scales and densities are measured on
    besides those that the rules name. `joint_fpr`: at most this share of benign prompts may make
    any of the rules fire; without it that rate is measured. `robustness`: measure the rules' recall
    on altered examples too.
    """

    format: Literal["auditkit-audit/1"]
    name: Name
    title: str
    description: str = ""
    model: ModelDocument
    sae: str
    rules: Annotated[tuple[str, ...], Field(min_length=1)] = ("builtin",)
    subject: Annotated[tuple[SubjectDocument, ...], Field(min_length=1)]
    reference: tuple[str, ...] = ()
    store: str
    output: str
    record: RecordDocument = RecordDocument()
    confirm: ConfirmDocument = ConfirmDocument()
    joint_fpr: Annotated[float, Field(gt=0, lt=1)] | None = None
    robustness: RobustnessDocument | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class TextSourceDocument(Document):
    """A file of training text and how much of it to take."""

    name: Name
    path: str
    characters: Annotated[int, Field(ge=1000)] | None = None


class HarvestTextDocument(Document):
    """Which text activations are harvested from, and into which folder."""

    sources: Annotated[tuple[TextSourceDocument, ...], Field(min_length=1)]
    context: Annotated[int, Field(ge=16, le=8192)] = 256
    max_tokens: Annotated[int, Field(ge=1000)] | None = None
    piece_characters: Annotated[int, Field(ge=200)] = 1000
    folder: str


class HarvestDocument(HarvestTextDocument):
    """Which activations to train on. With an `output_hook_point` a transcoder is trained, which
    reads at the one and writes what is to be at the other."""

    hook_point: str
    output_hook_point: str | None = None

    @model_validator(mode="after")
    def _writes_elsewhere(self) -> HarvestDocument:
        check_output_hook_point(self.hook_point, self.output_hook_point)
        return self


def check_output_hook_point(hook_point: str, output: str | None) -> None:
    """Raise ValueError where a transcoder is to write where it reads."""
    if output == hook_point:
        raise ValueError(
            "output_hook_point is the hook_point itself; leave it out for an autoencoder"
        )


class BufferDocument(Document):
    """Where training rows wait for their batch: `auto` keeps them in memory where they fit both
    `memory_gb` and half of what is free, else on disk. It changes no number."""

    place: Literal["auto", "memory", "disk"] = "auto"
    memory_gb: Annotated[float, Field(ge=0)] = 8.0


class RandomModelDocument(Document):
    """The model with all weights drawn anew from `weights_seed`, and how much of its activations
    to harvest (by default as much text as for the model itself)."""

    weights_seed: Annotated[int, Field(ge=0)] = 0
    max_tokens: Annotated[int, Field(ge=1000)] | None = None


class ComparisonsDocument(Document):
    """SAEs trained only to hold the document's own against: its seed stability and two floors.

    Each has the trainer's settings and `steps` steps (by default the trainer's). Where that is
    another number, a reference with the document's own seed is trained in as many, so that
    everything compared had the same budget.
    """

    folder: str
    steps: Annotated[int, Field(ge=1)] | None = None
    second_seed: Annotated[int, Field(ge=0)] | None = None
    frozen_decoder: bool = False
    random_model: RandomModelDocument | None = None


class TrainDocument(Document):
    """`train.yaml`: which activations to harvest, which SAE to train on them, what to hold it
    against, and which others to sweep over."""

    format: Literal["auditkit-train/1"]
    name: Name
    model: ModelDocument
    harvest: HarvestDocument
    trainer: TrainerDocument
    comparisons: ComparisonsDocument | None = None
    sweep: SweepDocument | None = None
    buffer: BufferDocument = BufferDocument()
    output: str
    seed: Annotated[int, Field(ge=0)] = 0
