"""The `trainer` block of train.yaml: how an SAE is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from auditkit.core.documents import Document

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

COMMON_SETTINGS = frozenset(
    {
        "architecture", "objective", "d_sae", "batch_size", "steps", "learning_rate",
        "warmup_steps", "decay_fraction", "sparsity_warmup", "dead_after_tokens", "held_out",
        "frozen_decoder",
    }
)  # fmt: skip
"""What every objective has, apart from its own settings."""


class TrainerDocument(Document):
    """The trainer's settings; `frozen_decoder` leaves the decoder as it was drawn, `held_out` rows
    of the activations are kept to follow the training on.

    `objective` is what training minimises. It has settings of its own among the last keys here;
    which those are and what they are by default is its own affair (docs/objectives.md lists them).
    Files from before there was a choice say `architecture: topk`.
    """

    architecture: Literal["topk"] | None = None
    objective: str = "topk"
    d_sae: Annotated[int, Field(ge=8)]
    batch_size: Annotated[int, Field(ge=16)] = 2048
    steps: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    decay_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    sparsity_warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    dead_after_tokens: Count = 200_000
    held_out: Count = 16_384
    frozen_decoder: bool = False

    k: Count | None = None
    k_aux: Annotated[int, Field(ge=0)] | None = None
    aux_coefficient: Weight | None = None
    l1: Weight | None = None
    l0_coefficient: Weight | None = None
    target_l0: Annotated[float, Field(gt=0)] | None = None
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    initial_threshold: Annotated[float, Field(gt=0)] | None = None
    log_threshold: bool | None = None
    threshold_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    group_shares: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    resample_at: tuple[Count, ...] | None = None

    @model_validator(mode="after")
    def _has_one_name(self) -> TrainerDocument:
        if self.architecture is not None and self.architecture != self.objective:
            raise ValueError(
                f"architecture is {self.architecture} and objective {self.objective}: "
                "leave out architecture, the older name of the same"
            )
        return self

    @property
    def own_settings(self) -> dict[str, Any]:
        """What the file says of the objective's own settings."""
        given = {name: getattr(self, name) for name in TrainerDocument.model_fields}
        return {n: v for n, v in given.items() if n not in COMMON_SETTINGS and v is not None}
