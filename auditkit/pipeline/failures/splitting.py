"""`auditkit sae splitting`: are a narrow SAE's latents cut up in a wider one, beyond chance?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from auditkit.config import Located, TrainDocument, load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Progress
from auditkit.pipeline.comparisons import Kind, is_trained_by, list_comparisons, load_comparison
from auditkit.pipeline.fidelity import BATCH_TOKENS, activations_of
from auditkit.pipeline.held_out import held_out_prompts
from auditkit.pipeline.plain_table import plain_table
from auditkit.pipeline.train import harvest, plan_training, train
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.pipeline.workbench import Workbench
from auditkit.quality.failures.splitting import FiringDictionary, Splitting, measure_splitting
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.tensors import SparseLatents
from auditkit.training import ActivationStore, TrainPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class SplittingRow:
    """One pair of SAEs; `floor` where the other has the same width and another seed."""

    narrow: int
    wide: int
    floor: bool
    found: Splitting


@dataclass(frozen=True, slots=True, kw_only=True)
class SplittingSummary:
    """Every pair of widths, floors among them, on so many held-out tokens."""

    name: str
    steps: int
    tokens: int
    rows: tuple[SplittingRow, ...]

    def text(self) -> str:
        """A table for the terminal."""
        head = (
            f"{self.name}: SAEs of {self.steps:,} steps on {self.tokens:,} held-out tokens; shares "
            "of the narrow one's latents"
        )
        cells: list[tuple[str, ...]] = [
            ("latents", "in", "near", "kept", "pieces", "split", "covered")
        ]
        for row in self.rows:
            f = row.found
            values = (f.near, f.kept, f.pieces, f.split, f.covered)
            wide = f"{row.wide:,}" + (", other seed" if row.floor else "")
            cells.append((f"{row.narrow:,}", wide, *map(_short, values)))
        return "\n".join([head, *plain_table(cells)])

    def json(self) -> str:
        return json.dumps(to_plain(self), indent=1, ensure_ascii=False)


def splitting_from(
    file: Path,
    *,
    widths: Sequence[int],
    steps: int | None = None,
    second_seed: int = 1,
    tokens: int = 60_000,
    folder: Path | None = None,
    progress: Progress,
) -> SplittingSummary:
    """Train what `file` trains at each of `widths` with two seeds, and compare every two widths.

    All have `steps` steps, by default those of the file's comparisons or of its trainer. What lies
    in `folder` (beside the activations by default) or among the file's comparisons is not trained
    again. Raises InvalidInput for fewer than two widths or one seed for both.
    """
    located = load_train(file)
    require_autoencoder(located.document, "splitting")
    document = located.document
    if len(set(widths)) < 2 or second_seed == document.seed:
        raise InvalidInput(
            f"widths {', '.join(map(str, widths))} with the seeds {document.seed} and "
            f"{second_seed}: at least two widths and two seeds are needed",
            help="give widths such as 1536 and 6144, and another seed than the file's",
        )
    bench = Workbench.load(
        located.resolve_source(document.model.source),
        str(located.resolve(document.output)),
        dtype="float32",
        progress=progress,
    )
    asked = document.comparisons
    default = (asked.steps if asked else None) or document.trainer.steps
    shelf = _Shelf(
        located=located,
        d_in=bench.sae.config.d_in,
        folder=folder or located.resolve(document.harvest.folder).parent / "splitting",
        progress=progress,
    )
    prompts = held_out_prompts(located, bench.model, tokens=tokens)
    progress.begin("capture held-out activations", 1)
    x = torch.cat(list(activations_of(bench, prompts)))
    progress.advance()
    steps = steps or default
    first = {w: _firing(shelf.take(w, steps, document.seed), x) for w in sorted(set(widths))}
    rows = [
        SplittingRow(narrow=n, wide=w, floor=False, found=measure_splitting(first[n], first[w]))
        for n in first
        for w in first
        if n < w
    ]
    for w in first:
        again = _firing(shelf.take(w, steps, second_seed), x)
        found = measure_splitting(first[w], again)
        rows.append(SplittingRow(narrow=w, wide=w, floor=True, found=found))
    return SplittingSummary(name=document.name, steps=steps, tokens=len(x), rows=tuple(rows))


def _firing(sae: SparseAutoencoder, x: Tensor) -> FiringDictionary:
    parts = [sae.encode(rows) for rows in x.split(BATCH_TOKENS)]
    return FiringDictionary.of(sae, SparseLatents.concatenate(parts))


@dataclass(slots=True, kw_only=True)
class _Shelf:
    """SAEs of one train.yaml at any width and seed, trained where they are not there yet."""

    located: Located[TrainDocument]
    d_in: int
    folder: Path
    progress: Progress
    activations: ActivationStore | None = None

    def take(self, width: int, steps: int, seed: int) -> SparseAutoencoder:
        """The SAE of this plan, from a folder or from training."""
        document = self.located.document
        plan = dataclasses.replace(
            plan_training(document, d_in=self.d_in), d_sae=width, steps=steps, seed=seed
        )
        name = f"width-{width}-seed-{seed}"
        found = self._lying_there(plan, self.folder / name)
        if found is not None:
            return found
        if self.activations is None:
            self.activations = harvest(self.located, self.progress)
        return train(
            plan,
            self.activations,
            self.progress,
            name=f"{document.name}-{name}",
            checkpoint=self.folder / f"{name}.checkpoint",
            output=self.folder / name,
        )

    def _lying_there(self, plan: TrainPlan, folder: Path) -> SparseAutoencoder | None:
        for comparison in list_comparisons(self.located, d_in=self.d_in):
            if comparison.plan == plan and comparison.kind is not Kind.RANDOM_MODEL:
                sae = load_comparison(comparison)
                if not isinstance(sae, NotMeasured):
                    return sae
        for place in (folder, self.located.resolve(self.located.document.output)):
            if (place / "cfg.json").exists():
                sae = load_sae(str(place))
                if is_trained_by(sae, plan):
                    return sae
        return None


def _short(measure: Measure) -> str:
    if isinstance(measure, NotMeasured):
        return "-"
    if measure.interval is None:
        return f"{measure.value:.4f}"
    return f"{measure.value:.4f} [{measure.interval.low:.4f}, {measure.interval.high:.4f}]"
