"""How far an SAE's encoder is from sparse codes by search, on a model's own activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from auditkit.config import load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Progress
from auditkit.pipeline.failures.lookup import ngram_text
from auditkit.pipeline.fidelity import activations_of
from auditkit.pipeline.held_out import held_out_prompts
from auditkit.pipeline.workbench import Workbench
from auditkit.quality.fidelity import HIGH_NORM_FACTOR
from auditkit.quality.theory import (
    Code,
    CodeScore,
    RecoveryGuarantees,
    oracle_codes,
    recovery_guarantees,
    score_codes,
)
from auditkit.quality.theory.code_gap import ENCODER
from auditkit.saes import SparseAutoencoder

TEXT_TOKENS = 8_000
"""Held-out tokens that the measured ones are drawn from, so that they come from many documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesTable:
    """Codes on one dictionary, the first of them the one that the others are compared with.

    `pieces` are what intervals are bootstrapped over: documents, or runs of a world's tokens.
    `recovered` is the mean over planted features of their best cosine with a direction of the
    dictionary; not measured on a model, whose features nobody knows. `guarantees` are Tropp's and
    Candès' conditions on the dictionary at this k.
    """

    activations: str
    dictionary: str
    latents: int
    d_in: int
    k: int
    tokens: int
    pieces: int
    recovered: Measure
    guarantees: RecoveryGuarantees
    scores: tuple[CodeScore, ...]


def real_codes(
    file: Path,
    *,
    sae: Path | None = None,
    tokens: int = 400,
    seed: int = 0,
    progress: Progress,
) -> CodesTable:
    """Codes of held-out activations on the dictionary of an SAE, by its encoder and by search.

    `file` is a train.yaml, `sae` a folder, by default the one that `file` trains. The tokens are
    drawn from many documents, over which intervals are bootstrapped; those above ten times the
    median norm are left out, as in training.
    """
    located = load_train(file)
    folder = sae or located.resolve(located.document.output)
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        str(folder),
        dtype="float32",
        progress=progress,
    )
    prompts = held_out_prompts(located, bench.model, tokens=max(TEXT_TOKENS, tokens))
    progress.begin("capture held-out activations", 1)
    x = torch.cat(list(activations_of(bench, prompts)))
    documents = ngram_text(prompts, seed=seed).document
    progress.advance()
    chosen = draw_tokens(x, tokens=tokens, seed=seed)
    return sae_table(
        bench.sae,
        x[chosen],
        documents[chosen].unique(return_inverse=True)[1],
        activations=f"{bench.model.identity.name}, {bench.sae.hook_point.name}, held-out text",
        progress=progress,
    )


def draw_tokens(x: Tensor, *, tokens: int, seed: int) -> Tensor:
    """Indices of at most `tokens` tokens of x that are not of high norm, drawn at random."""
    norms = x.norm(dim=1)
    usual = (norms <= HIGH_NORM_FACTOR * norms.median()).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(seed)
    return usual[torch.randperm(len(usual), generator=generator)[:tokens]]


def sae_table(
    sae: SparseAutoencoder,
    x: Tensor,
    pieces: Tensor,
    *,
    activations: str,
    recovered: Measure | None = None,
    progress: Progress,
) -> CodesTable:
    """The SAE's own codes of x [token, d_in] beside those that search finds at its mean L0.

    Raises InvalidInput for an SAE that normalises each token.
    """
    if sae.config.normalize_activations.per_token:
        raise InvalidInput(
            f"SAE {sae.config.name}: its directions have another length at every token",
            help="choose an SAE without normalisation per token",
        )
    encoded = sae.encode(x)
    own = Code(name=ENCODER, latents=encoded, x_hat=sae.decode(encoded, x))
    k = max(1, round(encoded.nnz / max(1, len(x))))
    progress.begin(f"{activations}: codes by search", 6)

    def report(name: str) -> None:
        progress.note(f"code: {name}")
        progress.advance()

    searched = oracle_codes(x, sae.W_dec, k, shift=sae.b_dec, encoder=encoded, progress=report)
    return codes_table(
        [own, *searched],
        x,
        pieces,
        activations=activations,
        dictionary=f"SAE {sae.config.name}",
        rows=sae.W_dec,
        k=k,
        recovered=recovered or NotMeasured("the model's features are not known"),
    )


def codes_table(
    codes: Sequence[Code],
    x: Tensor,
    pieces: Tensor,
    *,
    activations: str,
    dictionary: str,
    rows: Tensor,
    k: int,
    recovered: Measure,
) -> CodesTable:
    """Codes of x on unit or other `rows`, scored."""
    return CodesTable(
        activations=activations,
        dictionary=dictionary,
        latents=len(rows),
        d_in=rows.shape[1],
        k=k,
        tokens=len(x),
        pieces=len(pieces.unique()),
        recovered=recovered,
        guarantees=recovery_guarantees(rows, k, sets=100),
        scores=score_codes(x, codes, pieces),
    )
