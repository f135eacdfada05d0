"""Held-out text that every cell of a sweep is measured on, captured once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.config import Located, TrainDocument
from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measure
from auditkit.core.progress import Progress
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel, length_sorted_batches, load_model
from auditkit.pipeline.fidelity import BATCH_TOKENS
from auditkit.pipeline.sweeping.baselines import RandomDictionary, principal_components
from auditkit.pipeline.sweeping.cells import BaselinePoint
from auditkit.pipeline.sweeping.loss import SplicedText
from auditkit.pipeline.train import draw_documents
from auditkit.quality import ReconstructionTotals, SparsityTotals
from auditkit.quality.fidelity import HIGH_NORM_FACTOR
from auditkit.saes import SparseAutoencoder
from auditkit.store import MASKED_IN_STATS

_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was measured of one dictionary."""

    l0: Measure
    explained_variance: Measure
    dead: Measure
    delta_ce: Measure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutText:
    """Activations `x` at the hook point without tokens of high norm (`left_out` of them), and the
    text that ΔCE is measured on."""

    hook_point: HookPoint
    x: Float[Tensor, "token d_in"]
    left_out: int
    text: SplicedText

    def judge(self, sae: SparseAutoencoder) -> Judged:
        """Explained variance (centred) and L0 on x, ΔCE on the text, all in float32."""
        reconstruction = ReconstructionTotals()
        sparsity = SparsityTotals(sae.config.d_sae)
        for rows in self.x.split(_ROWS):
            latents = sae.encode(rows)
            reconstruction.add(rows, sae.decode(latents, rows))
            sparsity.add(latents)
        return Judged(
            l0=sparsity.l0(),
            explained_variance=reconstruction.explained_variance(),
            dead=sparsity.dead_rate(),
            delta_ce=self.text.delta_ce(sae),
        )

    def baselines(self, ks: Sequence[int], d_sae: int, *, seed: int) -> tuple[BaselinePoint, ...]:
        """PCA and a random dictionary of `d_sae` rows with k terms per token, for each k."""
        points: list[BaselinePoint] = []
        for k in ks:
            made = {
                "PCA": principal_components(self.x, k, self.hook_point),
                f"random rows, {d_sae:,}": RandomDictionary.draw(
                    self.x, k, d_sae=d_sae, hook_point=self.hook_point, seed=seed
                ),
            }
            for kind, sae in made.items():
                found = self.judge(sae)
                points.append(
                    BaselinePoint(
                        kind=kind,
                        k=k,
                        explained_variance=found.explained_variance,
                        delta_ce=found.delta_ce,
                    )
                )
        return tuple(points)


def capture_held_out(
    located: Located[TrainDocument],
    progress: Progress,
    *,
    reference_norm: float | None,
    tokens: int,
    loss_tokens: int,
) -> HeldOutText:
    """Load the model in float32 and capture up to `tokens` tokens of the documents that training
    never saw; the first of them, up to `loss_tokens`, are the text for ΔCE.

    Raises InvalidInput where no document is held out.
    """
    document = located.document
    hook_point = HookPoint.parse(document.harvest.hook_point)
    model = load_model(located.resolve_source(document.model.source), device=document.model.device)
    rendered = (
        model.render(piece, max_tokens=document.harvest.context)
        for piece in draw_documents(located, held_out=True)
    )
    prompts: list[TokenizedPrompt] = []
    for prompt in rendered:
        if sum(map(len, prompts)) + len(prompt) > tokens:
            break
        prompts.append(prompt)
    if not prompts:
        raise InvalidInput(
            "no document of the training text is held out, so there is nothing to measure on",
            help="one document in 25 is; add sources, or ask for more tokens under sweep.tokens",
        )
    progress.begin("capture held-out activations", len(prompts))
    parts: list[Tensor] = []
    for rows in length_sorted_batches(prompts, max_tokens=BATCH_TOKENS):
        batch = model.pad([prompts[i] for i in rows])
        x = model.capture(batch, [hook_point])[hook_point]
        parts.append(x[batch.attention & ((batch.masks & int(MASKED_IN_STATS)) == 0)])
        progress.advance(len(rows))
    x = torch.cat(parts)
    kept = x
    if reference_norm is not None:
        kept = x[x.norm(dim=1) <= HIGH_NORM_FACTOR * reference_norm]
    return HeldOutText(
        hook_point=hook_point,
        x=kept,
        left_out=len(x) - len(kept),
        text=_text(model, hook_point, prompts, loss_tokens),
    )


def _text(
    model: LanguageModel, hook_point: HookPoint, prompts: Sequence[TokenizedPrompt], tokens: int
) -> SplicedText:
    few: list[TokenizedPrompt] = []
    for prompt in prompts:
        if few and sum(map(len, few)) + len(prompt) > tokens:
            break
        few.append(prompt)
    groups = length_sorted_batches(few, max_tokens=BATCH_TOKENS // 2)
    return SplicedText(model, hook_point, [model.pad([few[i] for i in rows]) for rows in groups])
