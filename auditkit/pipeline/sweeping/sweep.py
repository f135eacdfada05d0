"""`auditkit sae sweep`: a grid of SAEs on one harvest → the Pareto frontier, resumable by cell.

A finished cell is an SAE's folder and a file of what was measured of it; both are kept, and named
by the digest of the cell's plan, so that another plan never meets them. A cell that was killed goes
on from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.config import Located, SweepDocument, TrainDocument, load_train
from auditkit.core.errors import AuditkitError, InvalidInput, NothingEvaluated
from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.progress import Progress
from auditkit.pipeline.comparisons import is_trained_by
from auditkit.pipeline.sweeping.cells import BaselinePoint, Cell, CellResult, Sweep, stand
from auditkit.pipeline.sweeping.grid import cell_document, list_cells
from auditkit.pipeline.sweeping.json_form import (
    plain_baseline,
    plain_cell,
    plain_measure,
    read_baseline,
    read_cell,
    read_measure,
    render_sweep,
)
from auditkit.pipeline.sweeping.measures import HeldOutText, capture_held_out
from auditkit.pipeline.sweeping.page import render_page
from auditkit.pipeline.sweeping.plot import pareto_png, pareto_spec, pareto_svg
from auditkit.pipeline.train import check_training, harvest, plan_buffer, plan_training, train
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.pipeline.whole_file import write_whole
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.training import ActivationStore, BufferPlan, TrainPlan

BASELINES = "baselines.json"
MOST_BASELINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """What was found, and the files that say so."""

    sweep: Sweep
    files: tuple[Path, ...]

    def json(self) -> str:
        return render_sweep(self.sweep)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """A cell with its plan; `key` names all that its measures depend on."""

    cell: Cell
    plan: TrainPlan
    folder: Path
    key: str

    @property
    def kept(self) -> Path:
        return self._beside(".json")

    @property
    def checkpoint(self) -> Path:
        return self._beside(".checkpoint")

    def _beside(self, suffix: str) -> Path:
        # Not with_suffix, which takes what follows the point of l1 0.02, digest and all, for one.
        return self.folder.with_name(self.folder.name + suffix)


class _Text:
    """Held-out text, captured when the first cell asks for it."""

    def __init__(self, located: Located[TrainDocument], norm: float | None, progress: Progress):
        self._located, self._norm, self._progress = located, norm, progress
        self._captured: HeldOutText | None = None

    def captured(self) -> HeldOutText:
        asked = _asked(self._located)
        if self._captured is None:
            self._captured = capture_held_out(
                self._located,
                self._progress,
                reference_norm=self._norm,
                tokens=asked.tokens,
                loss_tokens=asked.loss_tokens,
            )
        return self._captured


def sweep_from(file: Path, *, only_finished: bool, progress: Progress) -> SweepOutcome:
    """Train and measure what `file`'s sweep declares and is not finished; write table and picture.

    With `only_finished` nothing is trained: the cells that are finished are compared. Raises
    InvalidInput for a file without a sweep, NothingEvaluated where no cell is finished,
    KeyboardInterrupt after Ctrl-C, with the cell's checkpoint written.
    """
    located = load_train(file)
    require_autoencoder(located.document, "sweep")
    asked = _asked(located)
    for cell in list_cells(located.document):
        check_training(cell_document(located.document, cell))  # before hours of harvest
    activations = harvest(located, progress)
    text = _Text(located, activations.meta.reference_norm, progress)
    planned = _plan_cells(located, activations)
    finished: dict[Cell, CellResult] = {}
    for number, one in enumerate(planned, 1):
        result = _read_kept(one)
        if result is None and not only_finished:
            progress.note(f"cell {number} of {len(planned)}: {one.cell.name}")
            result = _finish(one, activations, text, progress, plan_buffer(located.document))
        if result is not None:
            finished[one.cell] = result
    if not finished:
        raise NothingEvaluated(
            f"{file}: no cell of the sweep is finished", help="run it without --only-finished"
        )
    cells = tuple(finished.values())
    missing = tuple(one.cell.name for one in planned if one.cell not in finished)
    sweep = _sweep(located, cells, missing, text, activations.meta.key, progress)
    return SweepOutcome(
        sweep=sweep, files=_write(sweep, located.resolve(asked.output or asked.folder))
    )


def _asked(located: Located[TrainDocument]) -> SweepDocument:
    asked = located.document.sweep
    if asked is None:
        raise InvalidInput(
            f"{located.folder}: no sweep is declared in this file",
            help="add a `sweep:` block; docs/sweep.md shows one",
        )
    return asked


def _plan_cells(located: Located[TrainDocument], activations: ActivationStore) -> list[_Planned]:
    asked = _asked(located)
    planned: list[_Planned] = []
    for cell in list_cells(located.document):
        plan = plan_training(cell_document(located.document, cell), d_in=activations.d_in)
        digest = fingerprint([plan, activations.meta.key], length=8)
        planned.append(
            _Planned(
                cell=cell,
                plan=plan,
                folder=located.resolve(asked.folder) / f"{cell.name}-{digest}",
                key=fingerprint([plan, activations.meta.key, asked.tokens, asked.loss_tokens]),
            )
        )
    return planned


def _finish(
    one: _Planned,
    activations: ActivationStore,
    text: _Text,
    progress: Progress,
    buffer: BufferPlan,
) -> CellResult:
    """Train the cell unless its SAE is there, measure it, and keep what was measured."""
    sae = _trained(one)
    if sae is None:
        sae = train(
            one.plan,
            activations,
            progress,
            name=one.cell.name,
            checkpoint=one.checkpoint,
            output=one.folder,
            buffer=buffer,
        )
    progress.begin(f"measure {one.cell.name}", 1)
    found = text.captured().judge(sae)
    result = CellResult(
        cell=one.cell,
        folder=one.folder.name,
        sae=sae.identity.digest,
        steps=one.plan.steps,
        tokens_seen=one.plan.steps * one.plan.batch_size,
        l0=found.l0,
        explained_variance=found.explained_variance,
        delta_ce=found.delta_ce,
        dead=found.dead,
    )
    _write_json(one.kept, {"key": one.key, "result": plain_cell(result)})
    (one.checkpoint / "checkpoint.safetensors").unlink(missing_ok=True)
    progress.advance()
    progress.note(
        f"{one.cell.name}: L0 {_say(found.l0)}, explained variance "
        f"{_say(found.explained_variance)}, ΔCE {_say(found.delta_ce)}"
    )
    return result


def _trained(one: _Planned) -> SparseAutoencoder | None:
    if not (one.folder / "cfg.json").exists():
        return None
    try:
        sae = load_sae(one.folder)
    except AuditkitError:
        shutil.rmtree(one.folder)
        return None
    return sae if is_trained_by(sae, one.plan) else None


def _read_kept(one: _Planned) -> CellResult | None:
    kept = _read_json(one.kept, one.key)
    return None if kept is None else read_cell(kept, str(one.kept))


def _sweep(
    located: Located[TrainDocument],
    cells: tuple[CellResult, ...],
    missing: tuple[str, ...],
    text: _Text,
    activations: str,
    progress: Progress,
) -> Sweep:
    asked, document = _asked(located), located.document
    ks, width = baseline_terms(cells), max(asked.d_sae)
    path = located.resolve(asked.folder) / BASELINES
    key = fingerprint(
        [activations, asked.tokens, asked.loss_tokens, list(ks), width, document.seed]
    )
    kept = _read_json(path, key)
    if kept is None:
        progress.begin("measure PCA and a random dictionary", 1)
        held_out = text.captured()
        points = held_out.baselines(ks, width, seed=document.seed)
        fresh: dict[str, Any] = {
            "points": [plain_baseline(point) for point in points],
            "ce": plain_measure(held_out.text.ce),
            "left_out": held_out.left_out,
        }
        _write_json(path, {"key": key, "result": fresh})
        progress.advance()
        kept = fresh
    baselines: list[BaselinePoint] = [read_baseline(p, str(path)) for p in kept["points"]]
    return Sweep(
        name=document.name,
        model=document.model.source,
        hook_point=document.harvest.hook_point,
        cells=cells,
        standings=stand(cells),
        baselines=tuple(sorted(baselines, key=lambda p: (p.kind, p.k))),
        base_ce=read_measure(kept["ce"]),
        tokens_left_out=int(kept["left_out"]),
        missing=missing,
    )


def baseline_terms(cells: tuple[CellResult, ...]) -> tuple[int, ...]:
    """The numbers of terms that baselines are measured at: the cells' own L0, a few of them."""
    found = sorted({max(1, round(c.l0.value)) for c in cells if isinstance(c.l0, Measured)})
    if len(found) <= MOST_BASELINES:
        return tuple(found)
    last = len(found) - 1
    places = {round(i * last / (MOST_BASELINES - 1)) for i in range(MOST_BASELINES)}
    return tuple(found[i] for i in sorted(places))


def _write(sweep: Sweep, folder: Path) -> tuple[Path, ...]:
    """Table, picture and page."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = pareto_spec(sweep)
    svg = pareto_svg(spec)
    contents = {
        "sweep.json": render_sweep(sweep).encode(),
        "pareto.svg": svg.encode(),
        "pareto.png": pareto_png(spec),
        "sweep.html": render_page(sweep, svg).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return tuple(folder / name for name in contents)


def _read_json(path: Path, key: str) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value.get("result") if isinstance(value, dict) and value.get("key") == key else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _say(measure: Measure) -> str:
    return measure.reason if isinstance(measure, NotMeasured) else f"{measure.value:.4g}"
