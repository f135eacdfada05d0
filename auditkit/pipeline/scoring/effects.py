"""The groups of a score that run the model: its loss on reconstructions, and ablated latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import length_sorted_batches
from auditkit.pipeline.fidelity import BATCH_TOKENS
from auditkit.pipeline.held_out import document_of
from auditkit.pipeline.scoring.bench import ScoreBench
from auditkit.pipeline.scoring.rows import OWN, beside_of, digits, rounded
from auditkit.quality import (
    AblationSparsity,
    LogitEffect,
    LossReport,
    SplicedLoss,
    measure_ablation_sparsity,
    measure_loss,
)
from auditkit.quality.floors import NeuronBasis
from auditkit.report.score_document import EffectCurve, ScorePart, ScoreRow
from auditkit.saes import SparseAutoencoder

MODEL_TOKENS = 20_000
ABLATED_LATENTS, FIRES_OF_EACH = 96, 4
NATS = "nats per token"


def score_loss(score: ScoreBench) -> ScorePart:
    """Cross-entropy and KL on reconstructions of the SAE and of every contender of this model."""
    few = _few(score.prompts)
    groups = length_sorted_batches(few, max_tokens=BATCH_TOKENS // 2)
    batches = [score.bench.model.pad([few[i] for i in rows]) for rows in groups]
    contenders = {c.column: c.found for c in score.of_this_model()}
    score.progress.begin("loss on spliced activations", len(batches))
    loss = measure_loss(
        score.bench.model,
        score.sae,
        batches,
        beside={n: d for n, d in contenders.items() if not isinstance(d, NotMeasured)},
        documents=[document_of(few[i]) for rows in groups for i in rows],
        reference_norm=score.bench.reference_norm,
        progress=lambda done, total: score.progress.advance(),
    )
    found: dict[str, SplicedLoss | NotMeasured] = {
        c.column: c.found if isinstance(c.found, NotMeasured) else loss.beside[c.column]
        for c in score.contenders
        if c.column in loss.beside
        or (isinstance(c.found, NotMeasured) and c is not score.compared.random_model)
    }
    return ScorePart(group="loss", rows=_loss_rows(loss, found))


def _few(prompts: Sequence[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """The first prompts up to the number of tokens that the model is run on."""
    few: list[TokenizedPrompt] = []
    total = 0
    for prompt in prompts:
        if total + len(prompt) > MODEL_TOKENS:
            break
        few.append(prompt)
        total += len(prompt)
    return few


def _loss_rows(
    loss: LossReport, found: dict[str, SplicedLoss | NotMeasured]
) -> tuple[ScoreRow, ...]:
    def alone(name: str, value: Measure, note: str = "") -> ScoreRow:
        return ScoreRow(name=name, unit=NATS, value=rounded(value), note=note)

    def compared(
        name: str, unit: str, of: Callable[[SplicedLoss], Measure], note: str = ""
    ) -> ScoreRow:
        without = loss.without_high_norm
        return ScoreRow(
            name=name,
            unit=unit,
            value=rounded(of(loss.reconstruction)),
            without_high_norm=None if isinstance(without, NotMeasured) else rounded(of(without)),
            beside=beside_of(found, of),
            note=note,
        )

    return (
        alone("cross-entropy, untouched", loss.ce),
        compared("ΔCE", NATS, lambda s: s.delta_ce),
        alone("ΔCE of zero ablation", loss.zero_ablation.delta_ce),
        alone("ΔCE of mean ablation", loss.mean_ablation.delta_ce),
        alone(
            "ΔCE of a random error of the same norm",
            loss.random_error.delta_ce,
            "random in direction, at every token as long as the SAE's own error",
        ),
        compared(
            "CE recovered of zero ablation",
            "share",
            lambda s: s.recovered_of_zero,
            "says little without ΔCE beside it",
        ),
        compared("CE recovered of mean ablation", "share", lambda s: s.recovered_of_mean),
        compared("KL(p ‖ p_x̂)", NATS, lambda s: s.kl),
        alone("KL of a random error of the same norm", loss.random_error.kl),
    )


def score_ablation(score: ScoreBench) -> ScorePart:
    """On how many logits latents act, beside equal-norm directions and other SAEs' latents."""
    floors = {
        c.column: c.found.rows
        for c in score.of_this_model()
        if not isinstance(c.found, (SparseAutoencoder, NotMeasured))
    }
    rivals = {c.column: c.found for c in score.contenders if isinstance(c.found, SparseAutoencoder)}
    rivals.pop(score.compared.random_model.column, None)
    found: dict[str, LogitEffect | NotMeasured] = {
        c.column: c.found
        for c in score.contenders
        if isinstance(c.found, NotMeasured) and c is not score.compared.random_model
    }
    own = _ablate(score, score.sae, floors, OWN)
    found |= own.controls
    for column, sae in rivals.items():
        found[column] = _ablate(score, sae, {}, column).latents
    shown = {c.column: found[c.column] for c in score.contenders if c.column in found}
    return ScorePart(
        group="ablation",
        rows=_effect_rows(own, shown),
        effects=(
            _curve(OWN, own.latents),
            *(_curve(n, e) for n, e in shown.items() if isinstance(e, LogitEffect)),
        ),
        vocabulary=score.bench.model.identity.vocabulary,
    )


def _ablate(
    score: ScoreBench, sae: SparseAutoencoder, controls: Mapping[str, Tensor], column: str
) -> AblationSparsity:
    begun = False

    def report(done: int, total: int) -> None:
        nonlocal begun
        del done
        if not begun:
            score.progress.begin(f"ablate latents: {column}", total)
            begun = True
        score.progress.advance()

    return measure_ablation_sparsity(
        score.bench.model,
        sae,
        _few(score.prompts),
        controls=controls,
        latents=ABLATED_LATENTS,
        fires=FIRES_OF_EACH,
        norm_limit=score.norm_limit,
        seed=score.seed,
        progress=report,
    )


def _effect_rows(
    own: AblationSparsity, shown: dict[str, LogitEffect | NotMeasured]
) -> tuple[ScoreRow, ...]:
    logits = "logits"
    base = NeuronBasis.name
    drawn = (
        f"(‖Δ‖₁/‖Δ‖₂)² of the next token's logits, mean over latents; n of {own.live:,} live "
        f"latents, {own.fires} fires. Beside: directions added at the same tokens with the same "
        "norm (neuron basis: one residual channel), and ablated latents of the other SAEs"
    )
    specs: tuple[tuple[str, str, Callable[[LogitEffect], Measure], str], ...] = (
        ("effective logits moved", logits, lambda e: e.effective_logits, drawn),
        (
            "effective logits moved, less their median",
            logits,
            lambda e: e.without_shift,
            "a shift of all logits alike changes no probability",
        ),
        ("size of the change ‖Δ‖₂", logits, lambda e: e.size, ""),
    )
    rows = [
        ScoreRow(
            name=name,
            unit=unit,
            value=rounded(of(own.latents)),
            beside=beside_of(shown, of),
            note=note,
        )
        for name, unit, of, note in specs
    ]
    ratio = own.relative_to.get(base, NotMeasured("no residual channels were drawn"))
    rows.append(
        ScoreRow(
            name="effective logits moved, over a residual channel's",
            unit="ratio",
            value=rounded(ratio),
            note="geometric mean over latents; below 1: latents act on fewer logits",
        )
    )
    return tuple(rows)


def _curve(column: str, effect: LogitEffect) -> EffectCurve:
    return EffectCurve(column=column, effective_logits=tuple(digits(v) for v in effect.by_latent))
