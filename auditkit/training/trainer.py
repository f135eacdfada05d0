"""Train an SAE on stored activations, resumably and reproducibly."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from auditkit.core.fingerprint import fingerprint
from auditkit.core.hook_point import HookPoint
from auditkit.saes import SparseAutoencoder, Transcoder
from auditkit.training.activations.batches import (
    PairedBatches,
    RowSplit,
    ShuffledBatches,
    split_rows,
)
from auditkit.training.activations.buffer import BufferPlan
from auditkit.training.activations.store import ActivationStore
from auditkit.training.activations.training_rows import Rows
from auditkit.training.checkpoint import read_checkpoint, write_checkpoint
from auditkit.training.distributed.mesh import ALONE, Mesh, processes_here
from auditkit.training.distributed.state import gather_parameters, gather_state, shard_state
from auditkit.training.distributed.step import DistributedStep
from auditkit.training.finishing import (
    Places,
    explained_variance,
    fold,
    fold_transcoder,
    training_card,
)
from auditkit.training.initialise import initial_state
from auditkit.training.interruption import deferred_interrupt
from auditkit.training.objective_step import diverged
from auditkit.training.parameters import StepReport, TrainState
from auditkit.training.plan import Kernel, Step, TrainPlan, plain_plan
from auditkit.training.progress import TrainEvent, TrainLog, TrainProgress, TrainStart


def train_sae(
    plan: TrainPlan,
    activations: ActivationStore,
    *,
    name: str,
    metadata: Mapping[str, Any] | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 250,
    evaluate_every: int = 250,
    log_every: int = 10,
    progress: TrainProgress | None = None,
    buffer: BufferPlan | None = None,
    kernel: Kernel = "auto",
    mesh: Mesh = ALONE,
) -> SparseAutoencoder:
    """Train an SAE by the plan's objective on `activations`, and return it in the model's own
    units.

    With `checkpoint_dir`, the state is written there every `checkpoint_every` steps and on Ctrl-C,
    `log.jsonl` grows beside it, and a run that was killed goes on from there to end bit-equal to
    an undisturbed one (same kernel, threads and machine). `buffer` says where the rows are kept;
    it changes no number. `metadata` goes into the SAE's config beside what training adds under
    `auditkit`. On a `mesh` every rank calls this alike and returns the same SAE; rank 0 writes.
    Raises MismatchError for activations of another width or a checkpoint of another run,
    NonFiniteActivations for NaN in the activations, RunFailed where training diverges or another
    rank is gone, NotSupportedYet for other objectives than topk on a mesh, KeyboardInterrupt after
    Ctrl-C.
    """
    step = plan.objective.make_step(plan, kernel) if mesh.size == 1 else DistributedStep(plan, mesh)
    run = _prepare(plan, Rows(activations), checkpoint_dir, step, buffer, mesh)
    run.finish(
        checkpoint_dir,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        log_every=log_every,
        progress=progress,
    )
    return fold(
        gather_parameters(run.state, mesh),
        plan,
        name=name,
        hook_point=HookPoint.parse(activations.meta.hook_point),
        model_name=str(activations.meta.model.get("name", "")) or None,
        metadata=run.card(metadata),
    )


def train_transcoder(
    plan: TrainPlan,
    inputs: ActivationStore,
    targets: ActivationStore,
    *,
    name: str,
    metadata: Mapping[str, Any] | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 250,
    evaluate_every: int = 250,
    log_every: int = 10,
    progress: TrainProgress | None = None,
    buffer: BufferPlan | None = None,
) -> Transcoder:
    """Train a transcoder that reads `inputs` and writes `targets`, harvested together.

    Everything else is as in `train_sae`, in one process. Raises MismatchError where the two are not
    of the same tokens or of other widths than the plan's d_in and d_out.
    """
    run = _prepare(
        plan,
        Rows(inputs, targets),
        checkpoint_dir,
        plan.objective.make_step(plan, "auto"),
        buffer,
        ALONE,
    )
    run.finish(
        checkpoint_dir,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        log_every=log_every,
        progress=progress,
    )
    places = Places(
        read=HookPoint.parse(inputs.meta.hook_point),
        written=HookPoint.parse(targets.meta.hook_point),
        model_name=str(inputs.meta.model.get("name", "")) or None,
    )
    return fold_transcoder(run.state, plan, name=name, places=places, metadata=run.card(metadata))


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run under way; `key` names plan and activations, `started` is when and at which step."""

    plan: TrainPlan
    key: str
    rows: Rows
    split: RowSplit
    batches: ShuffledBatches | PairedBatches
    held_out: tuple[Tensor, ...]
    state: TrainState
    step: Step
    started: tuple[float, int]
    mesh: Mesh

    def explained_variance(self) -> float:
        """On the held-out rows."""
        if isinstance(self.step, DistributedStep):
            return self.step.explained_variance(self.state, *self.held_out)
        return explained_variance(self.plan, self.state, *self.held_out)

    def card(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """`metadata` with what is to be said of the training."""
        own = dict(metadata or {})
        card = training_card(self.plan, self.rows.inputs, self.split, self.explained_variance())
        return {**own, "auditkit": {**own.get("auditkit", {}), "training": card}}

    def finish(
        self,
        folder: Path | None,
        *,
        checkpoint_every: int,
        evaluate_every: int,
        log_every: int,
        progress: TrainProgress | None,
    ) -> None:
        """Take the steps that are left."""
        mesh, log = self.mesh, None
        if folder is not None and mesh.rank == 0:
            log = TrainLog(folder / "log.jsonl", first_step=self.state.step)
            log.start(self.start())
        with deferred_interrupt() as interrupted:
            while self.state.step < self.plan.steps:
                event = self.advance(evaluate_every)
                evaluated = event.held_out_explained_variance is not None
                if log is not None and (event.step % log_every == 0 or evaluated):
                    log.write(event)
                if progress is not None:
                    progress(event)
                stop = mesh.any(interrupted())
                due = stop or event.step % checkpoint_every == 0 or event.step == self.plan.steps
                if folder is not None and due:
                    whole = gather_state(self.state, mesh)
                    if whole is not None:
                        write_checkpoint(folder, whole, key=self.key)
                if stop:
                    raise KeyboardInterrupt

    def start(self) -> TrainStart:
        """From where this run goes, for the log."""
        buffer = self.batches.buffer
        return TrainStart(
            step=self.state.step,
            steps=self.plan.steps,
            rows=len(self.split.train),
            held_out=len(self.split.held_out),
            buffer=buffer.place,
            needed_bytes=buffer.needed_bytes,
            memory_bytes=buffer.memory_bytes,
        )

    def advance(self, evaluate_every: int) -> TrainEvent:
        """One step, evaluated on the held-out rows every so many steps and after the last."""
        plan, state = self.plan, self.state
        report = self.step(state, *self._batch(state))
        _check_finite(report, state.step)
        evaluated = None
        if state.step % evaluate_every == 0 or state.step == plan.steps:
            evaluated = self.explained_variance()
        since, first = self.started
        seconds = time.perf_counter() - since
        return TrainEvent(
            step=state.step,
            steps=plan.steps,
            loss=1.0 - report.explained_variance + plan.objective.penalty(report),
            explained_variance=report.explained_variance,
            l0=report.active / plan.batch_size,
            dead=report.dead,
            learning_rate=plan.learning_rate(state.step - 1),
            tokens_per_second=(state.step - first) * plan.batch_size / seconds,
            held_out_explained_variance=evaluated,
            seconds_left=(plan.steps - state.step) * seconds / (state.step - first),
        )

    def _batch(self, state: TrainState) -> tuple[Tensor, ...]:
        """What the step is given: this rank's rows, and their targets if there are any."""
        if isinstance(self.batches, PairedBatches):
            return _scaled(state, *self.batches.batch(state.step))
        here = self.mesh.share_of_batch(self.plan.batch_size)
        return _scaled(state, self.batches.batch(state.step)[here])


def _scaled(state: TrainState, *rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(x * scale for x, scale in zip(rows, (state.scale, state.unit), strict=False))


def _prepare(
    plan: TrainPlan,
    rows: Rows,
    folder: Path | None,
    step: Step,
    buffer: BufferPlan | None,
    mesh: Mesh,
) -> _Run:
    """Split the rows, and start afresh or from the folder's checkpoint."""
    rows.check_widths(plan)
    split = split_rows(
        rows.inputs,
        held_out=plan.held_out,
        high_norm_factor=plan.high_norm_factor,
        targets=rows.targets,
    )
    size, seed = plan.batch_size, plan.seed
    batches = (
        ShuffledBatches(
            rows.inputs,
            split.train,
            batch_size=size,
            seed=seed,
            buffer=buffer,
            processes=processes_here(mesh),
        )
        if rows.targets is None
        else PairedBatches(
            rows.inputs, rows.targets, split.train, batch_size=size, seed=seed, buffer=buffer
        )
    )
    key = fingerprint({"plan": plain_plan(plan), **rows.key()})
    state = None if folder is None else read_checkpoint(folder, key=key)
    if state is None:
        state = initial_state(plan, *rows.sample(split, seed))
    mesh.require_same_start(state.step)
    return _Run(
        plan=plan,
        key=key,
        rows=rows,
        split=split,
        batches=batches,
        held_out=_scaled(state, *rows.take(split.held_out)),
        state=shard_state(state, mesh),
        step=step,
        started=(time.perf_counter(), state.step),
        mesh=mesh,
    )


def _check_finite(report: StepReport, step: int) -> None:
    if not (math.isfinite(report.squared_error) and math.isfinite(report.squared_deviation)):
        raise diverged(step, f"squared error {report.squared_error}")
