"""Feature suppression in a score: γ about the bias, and of single latents."""

from __future__ import annotations

from collections.abc import Callable

from auditkit.core.measured import Measure, NotMeasured
from auditkit.pipeline.scoring.bench import Captured, ScoreBench
from auditkit.pipeline.scoring.contenders import Contender
from auditkit.pipeline.scoring.rows import OWN, beside_of, rounded
from auditkit.quality.failures.suppression import (
    ENOUGH_FIRES,
    SUPPRESSED_BELOW,
    Suppression,
    SuppressionTotals,
)
from auditkit.report.score_document import ScoreRow
from auditkit.saes import SparseAutoencoder

_USUAL = f"latents that fire on {ENOUGH_FIRES} tokens or more"
_ROWS: tuple[tuple[str, str, Callable[[Suppression], Measure], str], ...] = (
    (
        "γ about the bias",
        "ratio",
        lambda s: s.gamma_about_bias,
        "of x and x̂ less what is decoded from no latents: a large mean hides nothing",
    ),
    (
        "γ of single latents, median",
        "ratio",
        lambda s: s.median,
        f"a latent's own γ with all others held (Wright & Sharkey 2024); {_USUAL}",
    ),
    ("γ of single latents, lowest tenth", "ratio", lambda s: s.low, _USUAL),
    (
        f"latents with γ below {SUPPRESSED_BELOW:g}",
        "share",
        lambda s: s.suppressed,
        f"a longer decoder row would explain more; {_USUAL}",
    ),
)


def suppression_rows(score: ScoreBench) -> list[ScoreRow]:
    """Of the SAE and of every SAE beside it; floors without an encoder of their own have none."""
    own = Contender(column=OWN, note="", found=score.sae)
    found: dict[str, Suppression | NotMeasured] = {}
    for contender in (own, *score.contenders):
        if isinstance(contender.found, SparseAutoencoder):
            found[contender.column] = _measure(contender.found, score.on(contender))
        elif isinstance(contender.found, NotMeasured):
            found[contender.column] = contender.found
    mine = found[OWN]
    assert isinstance(mine, Suppression)
    return [
        ScoreRow(
            name=name, unit=unit, value=rounded(of(mine)), beside=beside_of(found, of), note=note
        )
        for name, unit, of, note in _ROWS
    ]


def _measure(sae: SparseAutoencoder, on: Captured) -> Suppression:
    totals = SuppressionTotals(sae)
    for rows in on.batches():
        totals.add(rows)
    return totals.measure()
