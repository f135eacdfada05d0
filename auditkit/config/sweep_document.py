"""The `sweep` block of train.yaml: which SAEs are trained on its one harvest and compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from auditkit.core.documents import Document

KNOBS = ("k", "l1", "target_l0")
"""What sparsity is set by, as the trainer names it."""


class GridDocument(Document):
    """SAEs of one objective (by default the trainer's) at several settings of what sets its
    sparsity: exactly one of `k`, `l1` and `target_l0` is given, as a list."""

    objective: str | None = None
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    l1: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    target_l0: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = (
        None
    )

    @model_validator(mode="after")
    def _has_one_knob(self) -> GridDocument:
        given = [name for name in KNOBS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(KNOBS)} is wanted, not {', '.join(given) or 'none'}"
            )
        return self

    @property
    def knob(self) -> str:
        """Which of them is given."""
        return next(name for name in KNOBS if getattr(self, name) is not None)

    @property
    def settings(self) -> tuple[float, ...]:
        """Its values."""
        found: tuple[float, ...] = getattr(self, self.knob)
        return found


class SweepDocument(Document):
    """A grid of widths and sparsities: every grid at every `d_sae`, each SAE with the trainer's
    other settings and `steps` steps (by default the trainer's).

    SAEs and what was measured of them are kept in `folder`, the table and the picture in `output`
    (by default the same). Explained variance and L0 are measured on `tokens` held-out tokens, ΔCE
    on the first `loss_tokens` of them.
    """

    folder: str
    output: str | None = None
    d_sae: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)]
    grids: Annotated[tuple[GridDocument, ...], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=200)] = 30_000
    loss_tokens: Annotated[int, Field(ge=100)] = 8_000
