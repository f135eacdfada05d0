"""`auditkit sae lookup`: an SAE's latents beside neurons, PCA, ICA and random directions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from auditkit.config import load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Progress
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import length_sorted_batches
from auditkit.pipeline.fidelity import BATCH_TOKENS, activations_of
from auditkit.pipeline.held_out import document_of, held_out_prompts
from auditkit.pipeline.plain_table import plain_table
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.pipeline.workbench import Workbench
from auditkit.quality.lookups.comparison import (
    ALWAYS,
    BEST,
    FREQUENCY,
    SHUFFLED,
    FamilyScores,
    Units,
    compare_by_lookup,
    density_bands,
)
from auditkit.quality.lookups.ngram_text import NO_TOKEN, NgramText, halve_documents
from auditkit.quality.lookups.rival_directions import (
    Directions,
    Whitening,
    draw_by_density,
    fire_at_density,
    independent_components,
    latent_columns,
    neuron_basis,
    principal_components,
    random_directions,
    random_whitened,
)
from auditkit.saes import SparseAutoencoder
from auditkit.store import MASKED_IN_STATS
from auditkit.tensors import SparseLatents

LEAST_FIRES = 10
MOST_DENSE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupSummary:
    """What was compared on how much text, and every family's scores."""

    sae: str
    tokens: tuple[int, int]
    documents: tuple[int, int]
    usable: int
    latents: int
    densities: tuple[float, float, float]
    families: tuple[FamilyScores, ...]

    def text(self) -> str:
        """A table for the terminal."""
        head = (
            f"{self.sae}: {self.latents} of {self.usable} usable latents; lookups fitted on "
            f"{self.tokens[0]:,} tokens of {self.documents[0]} documents, tested on "
            f"{self.tokens[1]:,} of {self.documents[1]}; medians over units"
        )
        rows: list[tuple[str, ...]] = [("", "F1", "correlation", "latents' F1 minus its own")]
        for family in self.families:
            for name in (BEST, SHUFFLED, FREQUENCY, ALWAYS):
                row = family.row(name)
                label = family.name if name == BEST else f"  {name}"
                rows.append(
                    (label, *map(describe_median, (row.f1, row.correlation, row.better_f1)))
                )
        return "\n".join([head, *plain_table(rows)])

    def json(self) -> str:
        return json.dumps(to_plain(self), indent=1, ensure_ascii=False)


def describe_median(measure: Measure) -> str:
    """A median with its interval, or a dash."""
    if isinstance(measure, NotMeasured):
        return "-"
    if measure.interval is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} [{measure.interval.low:.3f}, {measure.interval.high:.3f}]"


def lookup_from(
    file: Path,
    *,
    sae: Path | None = None,
    tokens: int = 60_000,
    units: int = 300,
    seed: int = 0,
    progress: Progress,
) -> LookupSummary:
    """Compare `units` latents of an SAE with as many other directions on held-out text.

    `sae` is a folder, by default the one that `file` trains. Raises InvalidInput where no latent
    fires often enough.
    """
    located = load_train(file)
    require_autoencoder(located.document, "lookup")
    folder = sae or located.resolve(located.document.output)
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        str(folder),
        dtype="float32",
        progress=progress,
    )
    prompts = held_out_prompts(located, bench.model, tokens=tokens)
    progress.begin("capture held-out activations", 1)
    x = torch.cat(list(activations_of(bench, prompts)))
    text = ngram_text(prompts, seed=seed)
    progress.advance()
    return compare_on(bench.sae, x, text, units=units, seed=seed, progress=progress)


def ngram_text(prompts: Sequence[TokenizedPrompt], *, seed: int = 0) -> NgramText:
    """The unmasked tokens of the prompts, in the order in which `activations_of` yields them."""
    documents = [document_of(prompt) for prompt in prompts]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(documents))}
    fitted = halve_documents(documents, seed=seed)
    rows: list[tuple[int, int, int, bool]] = []
    for group in length_sorted_batches(prompts, max_tokens=BATCH_TOKENS):
        for i in group:
            prompt, before = prompts[i], NO_TOKEN
            for id_, mask in zip(prompt.ids, prompt.masks, strict=True):
                if not mask & MASKED_IN_STATS:
                    rows.append((id_, before, numbers[documents[i]], fitted[i]))
                before = id_
    columns = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).unbind(1)
    return NgramText(
        current=columns[0], previous=columns[1], document=columns[2], fitted=columns[3].bool()
    )


def compare_on(
    sae: SparseAutoencoder,
    x: Tensor,
    text: NgramText,
    *,
    units: int,
    seed: int,
    progress: Progress,
) -> LookupSummary:
    """Compare on activations x [token, d_in] of the text's tokens."""
    latents = SparseLatents.concatenate([sae.encode(rows) for rows in x.split(BATCH_TOKENS)])
    counts = [_counts(latents, half) for half in (text.fitted, ~text.fitted)]
    usable = usable_latents(counts[0], counts[1], text)
    chosen = draw_by_density(counts[0] + counts[1], usable, min(units, sae.config.d_in), seed=seed)
    if not len(chosen):
        raise InvalidInput(
            f"no latent fires on {LEAST_FIRES} tokens of either half and on less than "
            f"{MOST_DENSE:.0%} of all",
            help="measure on more tokens",
        )
    densities = counts[0][chosen].double() / int(text.fitted.sum())
    progress.begin("score by lookups", 7)
    reference = Units(name="SAE latents", activations=latent_columns(latents, chosen))
    families = compare_by_lookup(
        reference,
        _rivals(sae, x, text, chosen, densities, seed, progress),
        text,
        bands=density_bands(densities),
        seed=seed,
    )
    progress.advance()
    quantiles = torch.quantile(densities, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    low, middle, high = (float(q) for q in quantiles)
    return LookupSummary(
        sae=sae.config.name,
        tokens=(int(text.fitted.sum()), int((~text.fitted).sum())),
        documents=text.documents,
        usable=int(usable.sum()),
        latents=len(chosen),
        densities=(low, middle, high),
        families=families,
    )


def usable_latents(fitted: Tensor, tested: Tensor, text: NgramText) -> Tensor:
    """Which latents [d_sae] fire often enough in both halves, and not on too many tokens.

    Directions are matched to a latent's density in the fitted half, which must be below ½ there
    even where the halves are of unequal size.
    """
    often = torch.minimum(fitted, tested) >= LEAST_FIRES
    seldom = fitted + tested <= MOST_DENSE * len(text)
    return often & seldom & (2 * fitted < int(text.fitted.sum()))


def _rivals(
    sae: SparseAutoencoder,
    x: Tensor,
    text: NgramText,
    chosen: Tensor,
    densities: Tensor,
    seed: int,
    progress: Progress,
) -> Iterator[Units]:
    """Each family of directions in turn, firing at `densities`."""
    n, d_in = len(chosen), sae.config.d_in
    fitted = x[text.fitted]
    whitening = Whitening.of(fitted)
    encoder = Directions(
        name="SAE encoder directions",
        rows=sae.W_enc.T[chosen].contiguous(),
        note="the same latents, each by itself: no other competes with it",
    )
    makers: tuple[Callable[[], Directions], ...] = (
        lambda: encoder,
        lambda: neuron_basis(d_in, n, seed=seed),
        lambda: principal_components(whitening, n),
        lambda: independent_components(fitted, whitening, n, seed=seed),
        lambda: random_directions(d_in, n, seed=seed),
        lambda: random_whitened(whitening, n, seed=seed),
    )
    mean = fitted.mean(0)
    for make in makers:
        found = make()
        projections = (x - mean) @ found.rows.T
        yield Units(
            name=found.name,
            activations=fire_at_density(projections, text.fitted, densities),
            note=found.note,
        )
        progress.advance()


def _counts(latents: SparseLatents, half: Tensor) -> Tensor:
    fires = latents.indices[half[latents.token_ids()]]
    return torch.bincount(fires, minlength=latents.d_sae)
