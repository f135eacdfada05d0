"""`auditkit sae score`: an SAE's measures on held-out text, floors beside, into its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditkit.config import Located, TrainDocument, load_train
from auditkit.core.audits import NamedMeasure
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Progress
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import length_sorted_batches
from auditkit.pipeline.card import render_card
from auditkit.pipeline.comparison_measures import HeldOut, comparison_measures
from auditkit.pipeline.fidelity import BATCH_TOKENS, activations_of, name_fidelity
from auditkit.pipeline.train import draw_documents
from auditkit.pipeline.workbench import Workbench
from auditkit.quality import (
    Fidelity,
    Interference,
    LossReport,
    floor_measures,
    measure_fidelity,
    measure_interference,
    measure_loss,
)
from auditkit.saes import SparseAutoencoder, write_sae

LOSS_TOKENS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """The measures, and where the card was written."""

    measures: tuple[NamedMeasure, ...]
    card: Path

    def text(self) -> str:
        width = max(len(m.name) for m in self.measures)
        lines = [f"{m.name:<{width}}  {describe(m)}" for m in self.measures]
        return "\n".join([*lines, f"card: {self.card}"])

    def json(self) -> str:
        return json.dumps([as_row(m) for m in self.measures], indent=1, ensure_ascii=False)


def score_from(file: Path, *, sae: Path | None, tokens: int, progress: Progress) -> ScoreSummary:
    """Measure on the documents that `file` keeps from training, in float32, and write the card."""
    located = load_train(file)
    folder = sae or located.resolve(located.document.output)
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        str(folder),
        dtype="float32",
        progress=progress,
    )
    prompts = _held_out(located, bench, tokens)
    progress.begin("capture held-out activations", 1)
    x = torch.cat(list(activations_of(bench, prompts)))
    progress.advance()
    fidelity = measure_fidelity(
        bench.sae, x.split(BATCH_TOKENS), reference_norm=bench.reference_norm
    )
    loss = _loss(bench, prompts, progress)
    densities = _densities(bench.sae, x)
    geometry = measure_interference(bench.sae.W_dec, densities=densities, k=bench.sae.config.k)
    high = fidelity.without_high_norm
    measures = (
        *name_fidelity(fidelity.every_token, note="held-out text, float32"),
        *_sparsity(fidelity.every_token),
        *(() if isinstance(high, NotMeasured) else _without_high_norm(high)),
        *_loss_rows(loss),
        *_geometry_rows(geometry),
        *floor_measures(x, k=bench.sae.config.k or 1, d_sae=bench.sae.config.d_sae),
        *comparison_measures(located, bench, HeldOut(prompts=prompts, x=x), progress),
    )
    _keep(bench.sae, folder, measures)
    card = folder / "README.md"
    card.write_text(render_card(bench.sae, measures), encoding="utf-8")
    return ScoreSummary(measures=measures, card=card)


def describe(measure: NamedMeasure) -> str:
    """A measure in a line: value, unit, n, note."""
    value = measure.value
    if isinstance(value, NotMeasured):
        return f"not measured: {value.reason}"
    note = f"; {measure.note}" if measure.note else ""
    return f"{value.value:.4g} {measure.unit} (n = {value.n:,}{note})"


def as_row(measure: NamedMeasure) -> dict[str, Any]:
    """A measure as a JSON object."""
    row: dict[str, Any] = {"name": measure.name, "unit": measure.unit, "note": measure.note}
    if isinstance(measure.value, Measured):
        return row | {"value": measure.value.value, "n": measure.value.n}
    return row | {"reason": measure.value.reason}


def _held_out(
    located: Located[TrainDocument], bench: Workbench, tokens: int
) -> list[TokenizedPrompt]:
    """Pieces of documents that training never saw, up to `tokens` tokens."""
    chosen: list[TokenizedPrompt] = []
    total = 0
    for piece in draw_documents(located, held_out=True):
        rendered = bench.model.render(piece, max_tokens=located.document.harvest.context)
        if total + len(rendered) > tokens:
            break
        chosen.append(rendered)
        total += len(rendered)
    return chosen


def _loss(bench: Workbench, prompts: Sequence[TokenizedPrompt], progress: Progress) -> LossReport:
    few: list[TokenizedPrompt] = []
    for prompt in prompts:
        if sum(map(len, few)) + len(prompt) > LOSS_TOKENS:
            break
        few.append(prompt)
    groups = length_sorted_batches(few, max_tokens=BATCH_TOKENS // 2)
    batches = [bench.model.pad([few[i] for i in rows]) for rows in groups]
    progress.begin("loss on spliced activations", len(batches))
    return measure_loss(
        bench.model,
        bench.sae,
        batches,
        reference_norm=bench.reference_norm,
        progress=lambda done, total: progress.advance(),
    )


def _densities(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    fires = torch.zeros(sae.config.d_sae)
    for rows in x.split(BATCH_TOKENS):
        fires += torch.bincount(sae.encode(rows).indices, minlength=sae.config.d_sae)
    return fires / len(x)


def _sparsity(found: Fidelity) -> tuple[NamedMeasure, ...]:
    histogram = found.densities
    note = (
        ""
        if isinstance(histogram, NotMeasured)
        else f"latents per bin of log10 density {histogram.edges[0]:g} to "
        f"{histogram.edges[-1]:g}: {' '.join(map(str, histogram.counts))}; "
        f"silent {histogram.silent}"
    )
    return (
        NamedMeasure(name="dead latents", value=found.dead_rate, unit="share", note="over these n"),
        NamedMeasure(
            name="latents denser than 1%",
            value=found.share_above_1_percent,
            unit="share",
            note=note,
        ),
        NamedMeasure(
            name="latents denser than 10%", value=found.share_above_10_percent, unit="share"
        ),
    )


def _without_high_norm(found: Fidelity) -> tuple[NamedMeasure, ...]:
    return (
        NamedMeasure(
            name="explained variance (centred), no high-norm tokens",
            value=found.explained_variance,
            unit="share",
        ),
    )


def _loss_rows(loss: LossReport) -> tuple[NamedMeasure, ...]:
    nats = "nats per token"
    return (
        NamedMeasure(name="cross-entropy, untouched", value=loss.ce, unit=nats),
        NamedMeasure(name="ΔCE", value=loss.reconstruction.delta_ce, unit=nats),
        NamedMeasure(name="ΔCE of zero ablation", value=loss.zero_ablation.delta_ce, unit=nats),
        NamedMeasure(name="ΔCE of mean ablation", value=loss.mean_ablation.delta_ce, unit=nats),
        NamedMeasure(
            name="ΔCE of a random error of the same norm",
            value=loss.random_error.delta_ce,
            unit=nats,
        ),
        NamedMeasure(
            name="CE recovered of zero ablation", value=loss.recovered_of_zero, unit="share"
        ),
        NamedMeasure(
            name="CE recovered of mean ablation", value=loss.recovered_of_mean, unit="share"
        ),
        NamedMeasure(name="KL(p ‖ p_x̂)", value=loss.reconstruction.kl, unit=nats),
        NamedMeasure(
            name="KL of a random error of the same norm", value=loss.random_error.kl, unit=nats
        ),
    )


def _geometry_rows(geometry: Interference) -> tuple[NamedMeasure, ...]:
    return (
        NamedMeasure(name="mean |cos| of decoder rows", value=geometry.mean_abs_cosine, unit=""),
        NamedMeasure(name="mutual coherence", value=geometry.mutual_coherence, unit=""),
        NamedMeasure(name="Welch bound", value=geometry.welch_bound, unit="", note="a floor"),
        NamedMeasure(name="interference", value=geometry.interference, unit=""),
        NamedMeasure(
            name="interference of a uniform frame, p(m−1)/d",
            value=geometry.uniform_interference,
            unit="",
        ),
        NamedMeasure(
            name="Gershgorin bound on δ_2k",
            value=geometry.gershgorin_2k,
            unit="",
            note=f"recovery is guaranteed below {geometry.recovery_limit:.3f}",
        ),
    )


def _keep(sae: SparseAutoencoder, folder: Path, measures: Sequence[NamedMeasure]) -> None:
    """Write the measures into the SAE's own metadata, weights untouched."""
    own = dict(sae.config.metadata.get("auditkit", {}))
    own["card"] = {"measures": [as_row(m) for m in measures]}
    stored = own.get("stored_dtype", "float16")
    write_sae(sae.with_metadata({**sae.config.metadata, "auditkit": own}), folder, dtype=stored)
