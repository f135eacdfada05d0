"""What every group of a score needs: the text, its activations, and the dictionaries to measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from auditkit.config import Located, TrainDocument
from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import NotMeasured
from auditkit.core.progress import Progress
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel, length_sorted_batches
from auditkit.pipeline.fidelity import BATCH_TOKENS, activations_of
from auditkit.pipeline.held_out import document_of
from auditkit.pipeline.scoring.contenders import Compared, Contender, random_model_of
from auditkit.pipeline.workbench import Workbench
from auditkit.quality import (
    NeuronBasis,
    PrincipalComponents,
    RandomDictionary,
    densities_of,
    fit_floors,
)
from auditkit.quality.fidelity import HIGH_NORM_FACTOR
from auditkit.report.score_document import Column
from auditkit.saes import SparseAutoencoder
from auditkit.store import MASKED_IN_STATS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """Activations [token, d_in] of unmasked tokens, and the number of each one's document."""

    x: Tensor
    documents: Tensor

    def batches(self) -> Sequence[Tensor]:
        return self.x.split(BATCH_TOKENS)

    def numbers(self) -> Sequence[Tensor]:
        return self.documents.split(BATCH_TOKENS)


@dataclass(kw_only=True, eq=False)
class ScoreBench:
    """A model, the SAE to score on it, the text, and what the SAE is held against."""

    located: Located[TrainDocument]
    bench: Workbench
    prompts: Sequence[TokenizedPrompt]
    compared: Compared
    others: Sequence[Contender]
    progress: Progress
    seed: int = 0
    _random: LanguageModel | None = field(default=None, repr=False)

    @property
    def sae(self) -> SparseAutoencoder:
        return self.bench.sae

    @property
    def norm_limit(self) -> float | None:
        """The norm above which a token is left out of the second reading."""
        norm = self.bench.reference_norm
        return None if norm is None else HIGH_NORM_FACTOR * norm

    @cached_property
    def text_digest(self) -> str:
        return fingerprint([[p.ids, [int(m) for m in p.masks]] for p in self.prompts])

    @cached_property
    def captured(self) -> Captured:
        """The text at the SAE's hook point."""
        self.progress.begin("capture held-out activations", 1)
        found = self.capture(self.bench, self.prompts)
        self.progress.advance()
        return found

    @cached_property
    def captured_random(self) -> Captured:
        """The same text in the model with random weights."""
        self.progress.begin("capture activations of the random model", 1)
        found = self.capture(self.random_bench(), self.prompts)
        self.progress.advance()
        return found

    def capture(self, bench: Workbench, prompts: Sequence[TokenizedPrompt]) -> Captured:
        """Activations of the prompts' unmasked tokens, in the order of `activations_of`."""
        documents = [document_of(p) for p in prompts]
        numbers = {name: n for n, name in enumerate(dict.fromkeys(documents))}
        of_token = [
            numbers[documents[i]]
            for group in length_sorted_batches(prompts, max_tokens=BATCH_TOKENS)
            for i in group
            for mask in prompts[i].masks
            if not mask & MASKED_IN_STATS
        ]
        x = torch.cat([torch.zeros(0, bench.sae.config.d_in), *activations_of(bench, prompts)])
        return Captured(x=x, documents=torch.tensor(of_token, dtype=torch.int64))

    def random_bench(self) -> Workbench:
        """The bench with the model's weights drawn anew."""
        if self._random is None:
            self._random = random_model_of(self.located, self.bench.model)
        return dataclasses.replace(self.bench, model=self._random)

    @cached_property
    def k(self) -> int:
        """How many terms per token the floors use: the SAE's k, or its L0 rounded."""
        if self.sae.config.k is not None:
            return self.sae.config.k
        l0 = float(densities_of(self.sae, self.captured.batches()).sum())
        return max(1, round(l0))

    @cached_property
    def contenders(self) -> tuple[Contender, ...]:
        """Floors, comparisons and others, in the order of their columns."""
        fitted = fit_floors(self.captured.x, k=self.k, d_sae=self.sae.config.d_sae, seed=self.seed)
        floors = [Contender(column=f.name, note=f.note, found=f) for f in fitted]
        return (*floors, *self.compared.shown, *self.others)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of `contenders`, known before anything is captured."""
        floors = (RandomDictionary, PrincipalComponents, NeuronBasis)
        return (
            *(Column(name=f.name, note=f.note) for f in floors),
            *(Column(name=c.column, note=c.note) for c in (*self.compared.shown, *self.others)),
        )

    def on(self, contender: Contender) -> Captured:
        """The activations that a contender is measured on: the random model's SAE on its own."""
        own = contender is self.compared.random_model
        return self.captured_random if own else self.captured

    def of_this_model(self) -> list[Contender]:
        """Contenders that are there and stand on the model's own activations."""
        return [
            c
            for c in self.contenders
            if not isinstance(c.found, NotMeasured) and c is not self.compared.random_model
        ]
