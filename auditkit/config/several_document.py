"""A `train.yaml` that names several SAEs: one model, one text, one pass over it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from auditkit.config.documents import (
    BufferDocument,
    ComparisonsDocument,
    HarvestDocument,
    HarvestTextDocument,
    ModelDocument,
    Name,
    TrainDocument,
    check_output_hook_point,
)
from auditkit.config.sweep_document import SweepDocument
from auditkit.config.trainer_document import COMMON_SETTINGS, TrainerDocument
from auditkit.core.documents import Document


class SaeDocument(Document):
    """One of several SAEs: where it reads and what it is trained by.

    In the file `trainer` holds what differs from the file's own `trainer` block; here it is whole.
    """

    name: Name
    hook_point: str
    output_hook_point: str | None = None
    trainer: TrainerDocument
    output: str

    @model_validator(mode="after")
    def _writes_elsewhere(self) -> SaeDocument:
        check_output_hook_point(self.hook_point, self.output_hook_point)
        return self


class SeveralDocument(Document):
    """`train.yaml` with `saes` in place of `harvest.hook_point`, `output` and a whole `trainer`."""

    format: Literal["auditkit-train/1"]
    name: Name
    model: ModelDocument
    harvest: HarvestTextDocument
    saes: Annotated[tuple[SaeDocument, ...], Field(min_length=1)]
    comparisons: ComparisonsDocument | None = None
    sweep: SweepDocument | None = None
    buffer: BufferDocument = BufferDocument()
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _names_are_distinct(self) -> SeveralDocument:
        for what in ("name", "output"):
            counted = Counter(getattr(sae, what) for sae in self.saes)
            twice = [value for value, n in counted.items() if n > 1]
            if twice:
                raise ValueError(f"two of the saes have the {what} {twice[0]!r}")
        return self

    def documents(self) -> tuple[TrainDocument, ...]:
        """A document for each SAE, as if it were alone in the file.

        Activations lie in a folder per hook point, comparisons and sweeps in a folder per SAE.
        """
        return tuple(self._document(sae) for sae in self.saes)

    def _document(self, sae: SaeDocument) -> TrainDocument:
        text = {name: getattr(self.harvest, name) for name in HarvestTextDocument.model_fields}
        text["folder"] = f"{self.harvest.folder}/{sae.hook_point}"
        return TrainDocument(
            format=self.format,
            name=sae.name,
            model=self.model,
            harvest=HarvestDocument(
                **text, hook_point=sae.hook_point, output_hook_point=sae.output_hook_point
            ),
            trainer=sae.trainer,
            comparisons=_own_comparisons(self.comparisons, sae.name),
            sweep=_own_sweep(self.sweep, sae.name),
            buffer=self.buffer,
            output=sae.output,
            seed=self.seed,
        )


def _own_comparisons(block: ComparisonsDocument | None, name: str) -> ComparisonsDocument | None:
    if block is None:
        return None
    return block.model_copy(update={"folder": f"{block.folder}/{name}"})


def _own_sweep(block: SweepDocument | None, name: str) -> SweepDocument | None:
    if block is None:
        return None
    output = None if block.output is None else f"{block.output}/{name}"
    return block.model_copy(update={"folder": f"{block.folder}/{name}", "output": output})


def with_whole_trainers(value: dict[str, Any]) -> dict[str, Any]:
    """The file's plain values with its `trainer` block under that of each SAE, which wins.

    Where an SAE has another objective, the settings of the file's own are not for it.
    """
    shared, saes = value.get("trainer", {}), value["saes"]
    if not isinstance(shared, dict) or not isinstance(saes, list):
        return value
    merged = [_with_trainer(sae, shared) for sae in saes]
    return {**{k: v for k, v in value.items() if k != "trainer"}, "saes": merged}


def _with_trainer(sae: Any, shared: dict[str, Any]) -> Any:
    own = sae.get("trainer", {}) if isinstance(sae, dict) else None
    if not isinstance(own, dict):
        return sae
    objective = shared.get("objective", "topk")
    if own.get("objective", objective) != objective:
        shared = {k: v for k, v in shared.items() if k in COMMON_SETTINGS - {"architecture"}}
    return {**sae, "trainer": {**shared, **own}}
