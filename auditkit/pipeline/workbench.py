"""A model, an SAE that fits it, and how they record: what most runs begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.directions import LockedDirection
from auditkit.core.progress import Progress
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Provenance, Recording, RecordingPlan
from auditkit.models import LanguageModel, load_model
from auditkit.pipeline.provenance import collect_provenance
from auditkit.recording import complete_directions, record_suite
from auditkit.saes import SparseAutoencoder, check_fits, load_sae
from auditkit.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A loaded model with an SAE that fits it."""

    model: LanguageModel
    sae: SparseAutoencoder
    provenance: Provenance

    @classmethod
    def load(
        cls, model: str, sae: str, *, dtype: str, device: str = "cpu", progress: Progress
    ) -> Workbench:
        """Load both; raises WeightsError or MismatchError where they are broken or do not fit."""
        loaded_sae = load_sae(sae)
        progress.note(f"loading {model}")
        loaded = load_model(model, dtype=dtype, device=device, progress=progress.note)
        for warning in check_fits(loaded_sae, loaded.identity):
            progress.note(warning)
        return cls(model=loaded, sae=loaded_sae, provenance=collect_provenance())

    @property
    def reference_norm(self) -> float | None:
        """Median ‖x‖ of the SAE's training text, where its card states it."""
        card = self.sae.config.metadata.get("auditkit", {}).get("training", {})
        found = card.get("reference_norm")
        return float(found) if found else None

    def plan(
        self, *, max_tokens: int, generate: int = 0, temperature: float = 0.0, seed: int = 0
    ) -> RecordingPlan:
        """How a suite is recorded on this bench."""
        return RecordingPlan(
            max_tokens=max_tokens,
            max_new_tokens=generate,
            temperature=temperature,
            seed=seed,
            reference_norm=self.reference_norm,
        )

    def high_norm(self, plan: RecordingPlan) -> float | None:
        """The norm above which a token is masked."""
        if plan.reference_norm is None:
            return None
        return plan.reference_norm * plan.high_norm_factor

    def record(
        self, suite: Suite, store: Store, plan: RecordingPlan, progress: Progress
    ) -> Recording:
        """Record a suite with a progress bar; one that is complete is left as it is."""
        progress.begin(f"record {suite.name}", len(suite.prompts))
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal before
            del total
            progress.advance(done - before)
            before = done

        return record_suite(
            self.model,
            self.sae,
            suite,
            store,
            plan,
            provenance=self.provenance,
            progress=report,
        )

    def complete(
        self,
        recording: Recording,
        directions: Sequence[LockedDirection],
        store: Store,
        progress: Progress,
    ) -> None:
        """Add the values of directions to a recording that was made before they were bound."""
        if not store.lacks_directions(recording.id, [d.digest for d in directions]):
            return
        begun = before = 0

        def report(done: int, total: int) -> None:
            nonlocal begun, before
            if not begun:
                progress.begin(f"complete {recording.suite}", total)
                begun = 1
            progress.advance(done - before)
            before = done

        complete_directions(self.model, recording, directions, store, progress=report)
