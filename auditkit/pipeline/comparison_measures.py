"""Rows of an SAE's card that need other SAEs: seed stability and the trained floors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from auditkit.config import Located, TrainDocument
from auditkit.core.audits import NamedMeasure
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Progress
from auditkit.core.tokens import TokenizedPrompt
from auditkit.pipeline.comparisons import (
    Comparison,
    Kind,
    is_trained_by,
    list_comparisons,
    load_comparison,
    training_of,
)
from auditkit.pipeline.fidelity import BATCH_TOKENS, activations_of
from auditkit.pipeline.train import plan_training
from auditkit.pipeline.workbench import Workbench
from auditkit.quality import (
    LatentDirections,
    SeedStability,
    SparsityTotals,
    measure_fidelity,
    measure_pca_floor,
    measure_stability,
)
from auditkit.saes import SparseAutoencoder
from auditkit.training import TrainPlan, with_random_weights

_STABILITY = "seed stability"
_FROZEN = "floor: SAE with a frozen decoder, explained variance"
_RANDOM = "floor: SAE of a random model, explained variance"
_FROZEN_NOTE = (
    "decoder rows stay the random unit vectors they start as; encoder and biases trained in the "
    "reference's budget"
)
_NOT_DECLARED = NotMeasured("the train.yaml declares no such comparison (key `comparisons`)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The text that a card is measured on, and the activations [token, d_in] on it."""

    prompts: Sequence[TokenizedPrompt]
    x: Tensor


def comparison_measures(
    located: Located[TrainDocument], bench: Workbench, held_out: HeldOut, progress: Progress
) -> tuple[NamedMeasure, ...]:
    """Seed stability and both trained floors; what is not there is NotMeasured with its reason.

    The trained floors stand beside the reference's explained variance: the same plan and budget
    on the model's own activations.
    """
    runs = {c.kind: c for c in list_comparisons(located, d_in=bench.sae.config.d_in)}
    own = _own(located, bench.sae)
    if isinstance(own, NotMeasured):
        names = (_STABILITY, _FROZEN, _RANDOM)
        return tuple(NamedMeasure(name=name, value=own, unit="share") for name in names)
    found = {kind: load_comparison(run) for kind, run in runs.items()}
    reference = _same_data(found.get(Kind.REFERENCE, own), own)
    progress.begin("compare with other SAEs", 3)
    rows: list[NamedMeasure] = []
    if Kind.REFERENCE in runs:
        rows.append(_reference_row(runs[Kind.REFERENCE], reference, held_out))
    second = _same_data(found.get(Kind.SECOND_SEED, _NOT_DECLARED), reference)
    rows += _stability_rows(reference, second, runs.get(Kind.SECOND_SEED), held_out)
    progress.advance()
    frozen = _same_data(found.get(Kind.FROZEN_DECODER, _NOT_DECLARED), reference)
    rows.append(_variance_row(_FROZEN, frozen, held_out.x, note=_FROZEN_NOTE))
    progress.advance()
    rows += _random_rows(located, bench, held_out, found.get(Kind.RANDOM_MODEL, _NOT_DECLARED))
    progress.advance()
    return tuple(rows)


def _own(
    located: Located[TrainDocument], sae: SparseAutoencoder
) -> SparseAutoencoder | NotMeasured:
    """The scored SAE as its own reference, where it is what the train.yaml makes."""
    if is_trained_by(sae, plan_training(located.document, d_in=sae.config.d_in)):
        return sae
    return NotMeasured("the scored SAE was not trained by this train.yaml's plan")


def _same_data(
    sae: SparseAutoencoder | NotMeasured, reference: SparseAutoencoder | NotMeasured
) -> SparseAutoencoder | NotMeasured:
    """`sae`, unless there is no reference or it saw other activations than the reference."""
    if isinstance(sae, NotMeasured) or isinstance(reference, NotMeasured):
        return sae if isinstance(sae, NotMeasured) else reference
    if training_of(sae).get("activations") != training_of(reference).get("activations"):
        return NotMeasured("it was trained on other activations than its reference")
    return sae


def _reference_row(
    run: Comparison, sae: SparseAutoencoder | NotMeasured, held_out: HeldOut
) -> NamedMeasure:
    budget = f"{run.plan.steps:,} steps of {run.plan.batch_size:,} tokens"
    return _variance_row(
        "reference of the comparisons, explained variance",
        sae,
        held_out.x,
        note=f"this SAE's plan and seed with the comparisons' budget, {budget}",
    )


def _stability_rows(
    reference: SparseAutoencoder | NotMeasured,
    second: SparseAutoencoder | NotMeasured,
    run: Comparison | None,
    held_out: HeldOut,
) -> tuple[NamedMeasure, ...]:
    if isinstance(second, NotMeasured):
        return (NamedMeasure(name=_STABILITY, value=second, unit="share"),)
    if isinstance(reference, NotMeasured) or run is None:
        reason = reference if isinstance(reference, NotMeasured) else _NOT_DECLARED
        return (NamedMeasure(name=_STABILITY, value=reason, unit="share"),)
    return _name_stability(
        measure_stability(
            _live_directions(reference, held_out.x), _live_directions(second, held_out.x)
        ),
        run.plan,
    )


def _name_stability(found: SeedStability, plan: TrainPlan) -> tuple[NamedMeasure, ...]:
    floor = f"floor: {_STABILITY} with random directions"
    matched_note = (
        f"live latents matched one to one (Hungarian) with both cosines above "
        f"{found.threshold:g}; seed {plan.seed} sees the same text in another order, both "
        f"{plan.steps:,} steps of {plan.batch_size:,} tokens"
    )
    greedy_note = "each latent's best counterpart, which others may share: flatters"
    rows: tuple[tuple[str, Measure, str, str], ...] = (
        (_STABILITY, found.matched.shared, "share", matched_note),
        (f"{_STABILITY}, mean decoder cosine", found.matched.decoder_cosine, "", ""),
        (f"{_STABILITY}, mean encoder cosine", found.matched.encoder_cosine, "", ""),
        (f"{_STABILITY}, greedy", found.greedy.shared, "share", greedy_note),
        (floor, found.floor.shared, "share", ""),
        (f"{floor}, mean decoder cosine", found.floor.decoder_cosine, "", ""),
    )
    return tuple(NamedMeasure(name=n, value=v, unit=u, note=note) for n, v, u, note in rows)


def _live_directions(sae: SparseAutoencoder, x: Tensor) -> LatentDirections:
    totals = SparsityTotals(sae.config.d_sae)
    for rows in x.split(BATCH_TOKENS):
        totals.add(sae.encode(rows))
    return LatentDirections.of(sae, totals.fires > 0)


def _random_rows(
    located: Located[TrainDocument],
    bench: Workbench,
    held_out: HeldOut,
    sae: SparseAutoencoder | NotMeasured,
) -> tuple[NamedMeasure, ...]:
    asked = located.document.comparisons
    if isinstance(sae, NotMeasured) or asked is None or asked.random_model is None:
        reason = sae if isinstance(sae, NotMeasured) else _NOT_DECLARED
        return (NamedMeasure(name=_RANDOM, value=reason, unit="share"),)
    model = with_random_weights(bench.model, seed=asked.random_model.weights_seed)
    training = training_of(sae)
    if training.get("model", {}).get("name") != model.identity.name:
        other = NotMeasured("it was trained on another model than this one with random weights")
        return (NamedMeasure(name=_RANDOM, value=other, unit="share"),)
    x = torch.cat(
        list(activations_of(dataclasses.replace(bench, model=model, sae=sae), held_out.prompts))
    )
    note = _random_note(training, seed=asked.random_model.weights_seed)
    k = sae.config.k or 1
    pca = NamedMeasure(
        name=f"floor: PCA of a random model, {k} components, explained variance",
        value=measure_pca_floor(x, k=k),
        unit="share",
        note="the same activations: how easily they are described",
    )
    return (_variance_row(_RANDOM, sae, x, note=note), pca)


def _random_note(training: Mapping[str, Any], *, seed: int) -> str:
    distinct, seen = training.get("distinct_tokens", 0), training.get("tokens_seen", 0)
    dtype = training.get("model", {}).get("dtype", "its dtype")
    return (
        f"all weights drawn anew (seed {seed}); same text, hook point and budget, "
        f"{distinct:,} distinct tokens harvested in {dtype}, each seen "
        f"{seen / max(1, distinct):.1f} times; measured on its own held-out activations. What it "
        "reaches, explained variance owes to tokens and architecture, with nothing learnt; where "
        "tokens were seen many times, it would reach more with more text"
    )


def _variance_row(
    name: str, sae: SparseAutoencoder | NotMeasured, x: Tensor, *, note: str
) -> NamedMeasure:
    if isinstance(sae, NotMeasured):
        return NamedMeasure(name=name, value=sae, unit="share")
    found = measure_fidelity(sae, x.split(BATCH_TOKENS)).every_token
    return NamedMeasure(name=name, value=found.explained_variance, unit="share", note=note)
