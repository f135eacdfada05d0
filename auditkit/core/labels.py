"""Labels of latents: what someone, or a model, said that a latent stands for. Never evidence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentLabel:
    """One label of one latent; `score` is what its maker gave it (None: none), on the maker's own
    scale."""

    latent: int
    label: str
    score: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedLabels:
    """The labels by which a signal's latents were chosen, from the table with digest `snapshot`."""

    table: str
    snapshot: str
    labels: tuple[LatentLabel, ...]
