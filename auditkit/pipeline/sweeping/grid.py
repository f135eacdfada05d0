"""The cells that a sweep declares, and the train.yaml that each amounts to."""

from __future__ import annotations

from auditkit.config import TrainDocument, TrainerDocument
from auditkit.core.errors import InvalidInput
from auditkit.pipeline.sweeping.cells import Cell


def list_cells(document: TrainDocument) -> tuple[Cell, ...]:
    """Every grid at every width, in the document's order; none without a sweep.

    Raises InvalidInput where two cells are the same.
    """
    asked = document.sweep
    if asked is None:
        return ()
    cells = [
        Cell(
            objective=grid.objective or document.trainer.objective,
            d_sae=d_sae,
            knob=grid.knob,
            setting=setting,
        )
        for grid in asked.grids
        for d_sae in asked.d_sae
        for setting in grid.settings
    ]
    for cell in cells:
        if cells.count(cell) > 1:
            raise InvalidInput(
                f"sweep: {cell.name} stands twice in the grids", help="name every setting once"
            )
    return tuple(cells)


def cell_document(document: TrainDocument, cell: Cell) -> TrainDocument:
    """The document with the cell's objective, width and sparsity, and the sweep's steps.

    Another objective than the trainer's keeps none of the settings that were the trainer's own.
    """
    asked, trainer = document.sweep, document.trainer
    values = trainer.model_dump(exclude_unset=True)
    if cell.objective != trainer.objective:
        for name in ("architecture", *trainer.own_settings):
            values.pop(name, None)
    values |= {"objective": cell.objective, "d_sae": cell.d_sae, cell.knob: cell.setting}
    if asked is not None and asked.steps is not None:
        values["steps"] = asked.steps
    return document.model_copy(update={"trainer": TrainerDocument.model_validate(values)})
