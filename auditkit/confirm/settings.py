"""What a causal test is given: sizes, prompts, lexica and the latents' statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.core.prompts import Prompt
from auditkit.suites import Lexicon

GATE = 1e-5
"""The most that a push of dose 0 may move a logit."""

Progress = Callable[[str], None]
"""Told in a few words of each step as it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmSettings:
    """Sizes of a causal test; all but the numbers of controls change its trials.

    Controls run on the first `control_prompts` of the neutral prompts. `ladder` is the ratio
    between neighbouring norms that doses are snapped to, so that targets can share controls. A
    test stops drawing random directions once `futility_hits` controls of one kind beat the target:
    its p can no longer become small; matched latents are never left out. `batch_tokens` bounds
    the tokens of one forward pass.
    """

    prompts: int = 64
    control_prompts: int = 16
    ablation_prompts: int = 12
    ablation_tokens: int = 16
    latent_controls: int = 99
    isotropic_controls: int = 101
    covariance_controls: int = 40
    band_controls: int = 5
    damage_texts: int = 8
    damage_tokens: int = 32
    damage_controls: int = 19
    generation: bool = True
    reply_prompts: int = 16
    reply_tokens: int = 24
    reply_controls: int = 4
    doses: tuple[float, ...] = (0.5, 1.0, 2.0)
    ladder: float = 2.0
    futility_hits: int = 10
    batch_tokens: int = 2048
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentTable:
    """Statistics of every latent on the reference suite, each [d_sae]; 0 for a silent latent.

    `density` is the share of tokens it fires on; `mean` and `q99` are of its active values, in the
    SAE's units.
    """

    density: NDArray[np.float64]
    mean: NDArray[np.float64]
    q99: NDArray[np.float64]

    @classmethod
    def from_rows(
        cls, d_sae: int, rows: Mapping[str, Sequence[int] | Sequence[float] | NDArray[np.generic]]
    ) -> LatentTable:
        """From columns latent, density, mean, q99 of the store's latent_stats."""
        index = np.asarray(rows["latent"], dtype=np.int64)
        columns: dict[str, NDArray[np.float64]] = {}
        for name in ("density", "mean", "q99"):
            columns[name] = np.zeros(d_sae)
            columns[name][index] = np.asarray(rows[name], dtype=np.float64)
        return cls(**columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmInputs:
    """What one rule is tested on.

    `neutral`: short openings without the concept, cycled over their templates; `positive` and
    `negative`: examples that had no part in selecting the latents; `benign`: plain text for damage.
    """

    neutral: tuple[Prompt, ...]
    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...]
    benign: tuple[Prompt, ...]
    lexicon: Lexicon
    other_lexicons: tuple[Lexicon, ...]
    latents: LatentTable
