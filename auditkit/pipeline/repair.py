"""`auditkit sae repair`: undo an SAE's feature suppression, and show what that changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditkit.config import load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured
from auditkit.core.progress import Progress
from auditkit.pipeline.train import harvest
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.quality.failures.suppression import Suppression, SuppressionTotals
from auditkit.quality.fidelity import HIGH_NORM_FACTOR
from auditkit.saes import SparseAutoencoder, load_sae, write_sae
from auditkit.training import ActivationStore, Repaired, RepairForm, RepairPlan, repair_sae
from auditkit.training.activations.batches import split_rows

_BATCH_ROWS = 2048
_MEASURES = {
    "explained_variance": "explained variance (centred)",
    "gamma": "relative reconstruction bias γ",
    "gamma_about_bias": "γ about b_dec",
    "median": "γ of a latent, median",
    "low": "γ of a latent, 10th percentile",
    "high": "γ of a latent, 90th percentile",
    "suppressed": "latents with γ below 0.9",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSummary:
    """A repaired SAE: suppression before and after on `held_out` rows that nothing was fitted on.

    `changed` counts the active (token, latent) pairs on them that are active in one of the two SAEs
    alone. `scales` are the 10th, 50th and 90th percentile over the `fitted` latents that fired.
    """

    name: str
    architecture: str
    form: RepairForm
    folder: Path
    rows: int
    held_out: int
    before: Suppression
    after: Suppression
    changed: int
    fitted: int
    d_sae: int
    scales: tuple[float, float, float]
    bias_refitted: bool
    residual: float

    def text(self) -> str:
        width = max(map(len, _MEASURES.values()))
        lines = [f"{self.name} ({self.architecture}), {self.held_out:,} held-out tokens"]
        lines.append(f"{'':<{width}}  {'before':>8}  {'after':>8}")
        for field, title in _MEASURES.items():
            before, after = (_short(getattr(s, field)) for s in (self.before, self.after))
            lines.append(f"{title:<{width}}  {before:>8}  {after:>8}")
        low, median, high = self.scales
        b_dec = "b_dec fitted too" if self.bias_refitted else "b_dec kept: the encoder reads it"
        return "\n".join(
            [
                *lines,
                f"scales of {self.fitted:,} of {self.d_sae:,} latents, fitted on {self.rows:,} "
                f"tokens: median {median:.3f}, 10% to 90% {low:.3f} to {high:.3f}; {b_dec}",
                f"active latents that changed: {self.changed:,}",
                f"written to {self.folder} (form: {self.form.value})",
            ]
        )

    def json(self) -> str:
        return json.dumps(self.as_plain(), indent=1, ensure_ascii=False)

    def as_plain(self) -> dict[str, Any]:
        """JSON values; a measure that is missing says why."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "form": self.form.value,
            "folder": str(self.folder),
            "fitted_on": self.rows,
            "held_out": self.held_out,
            "before": _plain(self.before),
            "after": _plain(self.after),
            "active_latents_changed": self.changed,
            "latents_fitted": self.fitted,
            "d_sae": self.d_sae,
            "scales": dict(zip(("p10", "p50", "p90"), self.scales, strict=True)),
            "bias_refitted": self.bias_refitted,
            "solver_residual": self.residual,
        }


def repair_from(
    file: Path, out: Path, *, sae: Path | None, plan: RepairPlan, progress: Progress
) -> RepairSummary:
    """Repair the SAE of a train.yaml (or another of its hook point) on its activations, and write
    the result to `out`.

    Measured on the activations that training holds out; the fit never sees them. Raises
    InvalidInput where something stands at `out`, or the form is not to be had; MismatchError where
    the SAE reads another hook point.
    """
    if out.exists():
        raise InvalidInput(f"{out}: exists already", help="name another folder")
    located = load_train(file)
    require_autoencoder(located.document, "repair")
    found = load_sae(str(sae or located.resolve(located.document.output)))
    activations = harvest(located, progress)
    progress.begin("split rows", 1)
    split = split_rows(
        activations,
        held_out=located.document.trainer.held_out,
        high_norm_factor=HIGH_NORM_FACTOR,
    )
    progress.begin(f"refit scales and decoder of {found.config.name}", 1)
    repaired = repair_sae(found, activations, split.train, plan)
    progress.begin("measure before and after", 2)
    before = _measure(found, activations, split.held_out)
    progress.advance()
    stored, dtype = _as_stored(repaired.sae)
    after = _measure(stored, activations, split.held_out)
    progress.advance()
    summary = _summarise(
        found,
        repaired,
        before=before,
        after=after,
        changed=_changed(found, stored, activations, split.held_out),
        held_out=len(split.held_out),
        folder=out,
    )
    write_sae(stored.with_metadata(_metadata(stored, summary, plan)), out, dtype=dtype)
    return summary


def _summarise(
    sae: SparseAutoencoder,
    repaired: Repaired,
    *,
    before: Suppression,
    after: Suppression,
    changed: int,
    held_out: int,
    folder: Path,
) -> RepairSummary:
    fitted = repaired.scales[repaired.fires > 0].double()
    low, median, high = (
        (float(fitted.quantile(share)) if len(fitted) else 1.0) for share in (0.1, 0.5, 0.9)
    )
    return RepairSummary(
        name=sae.config.name,
        architecture=sae.config.architecture.value,
        form=repaired.form,
        folder=folder,
        rows=repaired.rows,
        held_out=held_out,
        before=before,
        after=after,
        changed=changed,
        fitted=len(fitted),
        d_sae=sae.config.d_sae,
        scales=(low, median, high),
        bias_refitted=repaired.bias_refitted,
        residual=repaired.residual,
    )


def _batches(store: ActivationStore, rows: np.ndarray) -> Iterator[Tensor]:
    for start in range(0, len(rows), _BATCH_ROWS):
        yield store.rows(torch.from_numpy(rows[start : start + _BATCH_ROWS]))


def _measure(sae: SparseAutoencoder, store: ActivationStore, rows: np.ndarray) -> Suppression:
    totals = SuppressionTotals(sae)
    for x in _batches(store, rows):
        totals.add(x)
    return totals.measure()


def _changed(
    before: SparseAutoencoder, after: SparseAutoencoder, store: ActivationStore, rows: np.ndarray
) -> int:
    """Active (token, latent) pairs that one of the two has and the other has not."""
    changed = 0
    for x in _batches(store, rows):
        places = [
            latents.token_ids() * latents.d_sae + latents.indices
            for latents in (before.encode(x), after.encode(x))
        ]
        changed += len(np.setxor1d(*(p.numpy() for p in places), assume_unique=True))
    return changed


def _as_stored(sae: SparseAutoencoder) -> tuple[SparseAutoencoder, str]:
    """The SAE as its file will hold it, and in which dtype: float16 where that changes no bit of
    the encoder, else float32."""
    read = {name: t for name, t in sae.tensors.items() if name != "W_dec"}
    if not sae.config.apply_b_dec_to_input:
        del read["b_dec"]
    rounded = {name: t.half().float() for name, t in sae.tensors.items()}
    if not all(torch.equal(t, rounded[name]) for name, t in read.items()):
        return sae, "float32"
    return SparseAutoencoder(sae.config, rounded, notes=sae.notes), "float16"


def _metadata(sae: SparseAutoencoder, summary: RepairSummary, plan: RepairPlan) -> dict[str, Any]:
    own = dict(sae.config.metadata)
    card = {key: value for key, value in summary.as_plain().items() if key != "folder"}
    # Measures on the old card are of the SAE as it was.
    kept = {key: value for key, value in own.get("auditkit", {}).items() if key != "card"}
    return {**own, "auditkit": {**kept, "repair": {**card, "prior_fires": plan.prior_fires}}}


def _short(measure: Measure) -> str:
    return f"{measure.value:.4f}" if isinstance(measure, Measured) else "-"


def _plain(found: Suppression) -> dict[str, Any]:
    plain: dict[str, Any] = {"latents": found.latents}
    for name in _MEASURES:
        measure = getattr(found, name)
        if isinstance(measure, Measured):
            plain[name] = {"value": measure.value, "n": measure.n}
        else:
            plain[name] = {"not_measured": measure.reason}
    return plain
