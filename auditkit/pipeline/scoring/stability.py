"""Seed stability in a score: the reference and the second seed of a train.yaml's comparisons."""

from __future__ import annotations

from auditkit.core.measured import Measure, NotMeasured
from auditkit.pipeline.scoring.bench import ScoreBench
from auditkit.pipeline.scoring.rows import rounded
from auditkit.quality import (
    LatentDirections,
    RandomDictionary,
    SeedStability,
    densities_of,
    measure_stability,
)
from auditkit.report.score_document import Beside, ScorePart, ScoreRow
from auditkit.saes import SparseAutoencoder

STABILITY = "seed stability"


def score_stability(score: ScoreBench) -> ScorePart:
    """Live latents of two SAEs that differ in the seed, matched one to one."""
    one, other = score.compared.reference.found, score.compared.second_seed.found
    for found in (other, one):
        if not isinstance(found, SparseAutoencoder):
            reason = found if isinstance(found, NotMeasured) else NotMeasured("no SAE")
            row = ScoreRow(name=STABILITY, unit="share", value=reason)
            return ScorePart(group="stability", rows=(row,))
    assert isinstance(one, SparseAutoencoder)
    assert isinstance(other, SparseAutoencoder)
    score.progress.begin("match the latents of two seeds", 3)
    directions: list[LatentDirections] = []
    for sae in (one, other):
        directions.append(LatentDirections.of(sae, densities_of(sae, score.captured.batches()) > 0))
        score.progress.advance()
    found_stability = measure_stability(*directions)
    score.progress.advance()
    return ScorePart(group="stability", rows=_rows(found_stability, one, other))


def _rows(
    found: SeedStability, one: SparseAutoencoder, other: SparseAutoencoder
) -> tuple[ScoreRow, ...]:
    note = (
        f"live latents matched one to one (Hungarian) with both cosines above "
        f"{found.threshold:g}; {_budget(one, other)}. Beside: the same matching with random "
        "directions"
    )
    greedy = "each latent's best counterpart, which others may share: flatters"
    rows: tuple[tuple[str, str, Measure, Measure | None, str], ...] = (
        (STABILITY, "share", found.matched.shared, found.floor.shared, note),
        (
            f"{STABILITY}, mean decoder cosine",
            "",
            found.matched.decoder_cosine,
            found.floor.decoder_cosine,
            "",
        ),
        (
            f"{STABILITY}, mean encoder cosine",
            "",
            found.matched.encoder_cosine,
            found.floor.encoder_cosine,
            "",
        ),
        (f"{STABILITY}, greedy", "share", found.greedy.shared, None, greedy),
    )
    return tuple(
        ScoreRow(
            name=name,
            unit=unit,
            value=rounded(value),
            beside=()
            if floor is None
            else (Beside(column=RandomDictionary.name, value=rounded(floor)),),
            note=said,
        )
        for name, unit, value, floor, said in rows
    )


def _budget(one: SparseAutoencoder, other: SparseAutoencoder) -> str:
    plans = [
        sae.config.metadata.get("auditkit", {}).get("training", {}).get("plan", {})
        for sae in (one, other)
    ]
    steps, batch = plans[1].get("steps", 0), plans[1].get("batch_size", 0)
    return (
        f"seed {plans[1].get('seed')} sees the same text in another order than seed "
        f"{plans[0].get('seed')}, both {steps:,} steps of {batch:,} tokens"
    )
