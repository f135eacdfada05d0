"""A sweep: cells are trained once, measured on the same text, and stand where they belong."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from auditkit.cli.sae_view import sweep_view
from auditkit.config import load_train
from auditkit.core.errors import DocumentError, InvalidInput, NothingEvaluated
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Silent
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.pipeline.sweeping.baselines import RandomDictionary, principal_components
from auditkit.pipeline.sweeping.cells import Cell, CellResult, dominated, stand
from auditkit.pipeline.sweeping.grid import cell_document, list_cells
from auditkit.pipeline.sweeping.json_form import plain_cell, read_cell
from auditkit.pipeline.sweeping.loss import SplicedText
from auditkit.pipeline.sweeping.page import render_page
from auditkit.pipeline.sweeping.plot import pareto_spec
from auditkit.pipeline.sweeping.sweep import SweepOutcome, baseline_terms, sweep_from
from auditkit.quality import (
    PrincipalComponents,
    ReconstructionTotals,
    fit_floors,
    measure_fidelity,
    measure_loss,
)
from auditkit.saes import SparseAutoencoder, load_sae
from tests.tiny import WORDS, tiny_model
from tests.tiny_folder import write_model_and_gzipped_text

TRAIN = """\
format: auditkit-train/1
name: tiny
model: {source: model}
harvest:
  hook_point: blocks.1.hook_resid_post
  context: 128
  folder: build/activations
  sources: [{name: words, path: words.jsonl.gz}]
trainer: {d_sae: 64, k: 4, steps: 60, batch_size: 128, learning_rate: 0.005, held_out: 500}
output: sae
"""
SWEEP = """\
sweep:
  folder: build/sweep
  output: found
  d_sae: [32, 64]
  grids: [{k: [2, 8]}]
  steps: 40
  tokens: 400
  loss_tokens: 200
"""
HOOK = HookPoint.parse("blocks.1.hook_resid_post")


class Counted(Silent):
    """Stops like Ctrl-C after so many steps of training."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.trained, self.left = [], stop_after

    def begin(self, task: str, total: int) -> None:
        self.task = task
        if task.startswith("train "):
            self.trained.append(task.removeprefix("train "))

    def advance(self, steps: int = 1) -> None:
        if self.left is not None and self.task.startswith("train "):
            self.left -= steps
            if self.left <= 0:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    write_model_and_gzipped_text(folder, documents=120)
    (folder / "train.yaml").write_text(TRAIN + SWEEP)
    return folder / "train.yaml"


@pytest.fixture(scope="module")
def swept(file: Path) -> SweepOutcome:
    return sweep_from(file, only_finished=False, progress=Silent())


def result(l0: float, ev: float, ce: float) -> CellResult:
    return CellResult(
        cell=Cell(objective="topk", d_sae=64, knob="k", setting=l0), folder="f", sae="s", steps=1,
        tokens_seen=1, l0=Measured(value=l0, n=5), dead=NotMeasured("not looked at"),
        explained_variance=Measured(value=ev, n=5), delta_ce=Measured(value=ce, n=3),
    )  # fmt: skip


def value(measure: object) -> float:
    assert isinstance(measure, Measured)
    return measure.value


def test_every_cell_of_the_grid_is_trained_and_measured_with_its_n(swept: SweepOutcome) -> None:
    cells = swept.sweep.cells
    assert [c.cell.name for c in cells] == ["topk-32-k2", "topk-32-k8", "topk-64-k2", "topk-64-k8"]
    for found in cells:
        assert found.steps == 40
        assert value(found.l0) <= found.cell.setting
        for measure in (found.l0, found.explained_variance, found.dead):
            assert isinstance(measure, Measured)
            assert 200 < measure.n <= 400
        assert isinstance(found.delta_ce, Measured)
        assert 50 < found.delta_ce.n <= 200
    assert swept.sweep.missing == ()


def test_more_latents_per_token_explain_more(swept: SweepOutcome) -> None:
    variance = {c.cell.name: value(c.explained_variance) for c in swept.sweep.cells}
    assert variance["topk-64-k8"] > variance["topk-64-k2"]
    assert variance["topk-32-k8"] > variance["topk-32-k2"]


def test_baselines_stand_at_the_cells_own_l0(swept: SweepOutcome) -> None:
    kinds = {p.kind for p in swept.sweep.baselines}
    assert kinds == {"PCA", "random rows, 64"}
    assert {p.k for p in swept.sweep.baselines} == set(baseline_terms(swept.sweep.cells))
    assert all(isinstance(p.delta_ce, Measured) for p in swept.sweep.baselines)


def test_the_files_say_what_was_found(swept: SweepOutcome) -> None:
    names = [p.name for p in swept.files]
    assert names == ["sweep.json", "pareto.svg", "pareto.png", "sweep.html"]
    document = json.loads(swept.files[0].read_text())
    assert document == json.loads(swept.json())
    assert document["format"] == "auditkit-sweep/1"
    assert len(document["cells"]) == 4
    for cell in document["cells"]:
        assert cell["explained_variance"]["n"] > 0
        assert set(cell["dominated"]) == {"explained_variance", "delta_ce"}
    assert swept.files[1].read_text().startswith("<svg")
    assert swept.files[2].read_bytes().startswith(b"\x89PNG")
    page = swept.files[3].read_text()
    assert "<svg" in page
    assert page.count("<small>n ") >= 16
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_a_second_run_trains_nothing_and_says_the_same(swept: SweepOutcome, file: Path) -> None:
    progress = Counted()
    again = sweep_from(file, only_finished=False, progress=progress)
    assert progress.trained == []
    assert again.sweep == swept.sweep


def test_a_stopped_sweep_goes_on_to_the_same_weights(swept: SweepOutcome, file: Path) -> None:
    other = file.with_name("stopped.yaml")
    other.write_text(file.read_text().replace("build/sweep", "build/stopped"))
    with pytest.raises(NothingEvaluated, match="no cell of the sweep is finished"):
        sweep_from(other, only_finished=True, progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        sweep_from(other, only_finished=False, progress=Counted(stop_after=55))
    part = sweep_from(other, only_finished=True, progress=Silent())
    assert [c.cell.name for c in part.sweep.cells] == ["topk-32-k2"]
    assert part.sweep.missing == ("topk-32-k8", "topk-64-k2", "topk-64-k8")
    assert "Not finished: topk-32-k8" in render_page(part.sweep, "<svg/>")
    progress = Counted()
    whole = sweep_from(other, only_finished=False, progress=progress)
    assert progress.trained == ["topk-32-k8", "topk-64-k2", "topk-64-k8"]
    assert [c.sae for c in whole.sweep.cells] == [c.sae for c in swept.sweep.cells]


def test_other_settings_are_other_cells(swept: SweepOutcome, file: Path) -> None:
    other = file.with_name("longer.yaml")
    other.write_text(
        file.read_text()
        .replace("grids: [{k: [2, 8]}]", "grids: [{k: [2]}]")
        .replace("d_sae: [32, 64]", "d_sae: [32]")
        .replace("steps: 40", "steps: 41")
        .replace("found", "f2")
    )
    progress = Counted()
    found = sweep_from(other, only_finished=False, progress=progress)
    assert progress.trained == ["topk-32-k2"]
    assert found.sweep.cells[0].sae != swept.sweep.cells[0].sae


def test_cells_whose_settings_differ_behind_the_point_keep_apart(file: Path) -> None:
    other = file.with_name("fine.yaml")
    other.write_text(
        file.read_text()
        .replace("k: 4, ", "")
        .replace("trainer: {", "trainer: {objective: relu_l1, l1: 1, ")
        .replace("grids: [{k: [2, 8]}]", "grids: [{l1: [0.01, 0.02]}]")
        .replace("d_sae: [32, 64]", "d_sae: [32]")
        .replace("steps: 40", "steps: 5")
        .replace("found", "f3")
    )
    sweep_from(other, only_finished=False, progress=Silent())
    progress = Counted()
    again = sweep_from(other, only_finished=True, progress=progress)
    assert [c.cell.setting for c in again.sweep.cells] == [0.01, 0.02]
    assert progress.trained == []


def test_the_terminal_shows_every_cell_and_every_baseline(swept: SweepOutcome) -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(sweep_view(swept.sweep))
    shown = console.export_text()
    for found, standing in zip(swept.sweep.cells, swept.sweep.standings, strict=True):
        line = next(line for line in shown.splitlines() if line.startswith(found.cell.name))
        assert f"{value(found.explained_variance):.4f}" in line
        assert line.rstrip().endswith(standing.mark)
    assert shown.count("baseline") == len(swept.sweep.baselines)
    assert "held-out tokens" in shown


def test_a_cell_that_is_wholly_dead_does_not_break_the_log_axis(swept: SweepOutcome) -> None:
    dead = replace(swept.sweep.cells[0], l0=Measured(value=0.0, n=5))
    others = swept.sweep.cells[1:]
    sweep = replace(swept.sweep, cells=(dead, *others), standings=stand((dead, *others)))
    drawn = [
        row["l0"]
        for panel in pareto_spec(sweep)["hconcat"]
        for layer in panel["layer"]
        for row in layer["data"]["values"]
    ]
    assert drawn
    assert min(drawn) > 0


def test_a_damaged_cell_is_trained_again(swept: SweepOutcome, file: Path) -> None:
    cell = swept.sweep.cells[0]
    folder = file.parent / "build/sweep" / cell.folder
    (folder / "sae_weights.safetensors").write_bytes(b"")
    folder.with_suffix(".json").unlink()
    progress = Counted()
    again = sweep_from(file, only_finished=False, progress=progress)
    assert progress.trained == [cell.cell.name]
    assert again.sweep.cells[0] == cell
    assert load_sae(folder).identity.digest == cell.sae


def test_a_cell_differs_from_the_trainer_in_what_the_grid_names(file: Path) -> None:
    document = load_train(file).document
    cells = list_cells(document)
    made = cell_document(document, cells[1])
    assert (made.trainer.d_sae, made.trainer.steps) == (32, 40)
    assert made.trainer.learning_rate == document.trainer.learning_rate
    assert made.model_copy(update={"trainer": document.trainer}) == document


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("{k: [2], l1: [0.1]}", "exactly one of k, l1, target_l0 is wanted, not k, l1"),
        ("{objective: topk}", "exactly one of k, l1, target_l0 is wanted, not none"),
        ("{k: []}", "at least 1 wanted"),
        ("{k: [2, 2]}", "topk-32-k2 stands twice"),
        ("{l1: [0.1]}", "trainer.l1 is no setting of topk"),
        ("{objective: nonsense, k: [2]}", "trainer.objective is nonsense, which does not"),
        ("{k: [2, 33]}", r"k is 33, expected 1 to d_sae \(32\)"),
    ],
)
def test_grids_that_make_no_sense_are_refused(tmp_path: Path, grid: str, message: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN + SWEEP.replace("{k: [2, 8]}", grid))
    with pytest.raises((DocumentError, InvalidInput), match=message):
        sweep_from(path, only_finished=False, progress=Silent())


def test_a_file_without_a_sweep_says_how_to_declare_one(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN)
    with pytest.raises(InvalidInput, match="no sweep is declared"):
        sweep_from(tmp_path / "train.yaml", only_finished=False, progress=Silent())


# Who dominates whom

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_no_point_of_the_frontier_is_beaten_and_every_other_is(
    points: list[tuple[int, int]],
) -> None:
    found = dominated(points)
    frontier = [p for p, beaten in zip(points, found, strict=True) if not beaten]
    assert frontier
    for point, beaten in zip(points, found, strict=True):
        better = [q for q in frontier if q != point and q[0] <= point[0] and q[1] >= point[1]]
        assert bool(better) == beaten


@given(POINTS, st.randoms())
def test_the_order_of_points_does_not_matter(
    points: list[tuple[int, int]], draw: random.Random
) -> None:
    order = list(range(len(points)))
    draw.shuffle(order)
    shuffled = dominated([points[i] for i in order])
    assert [dominated(points)[i] for i in order] == list(shuffled)


def test_a_cell_can_be_dominated_on_one_measure_alone() -> None:
    cells = [result(8, 0.9, 0.4), result(16, 0.8, 0.1), result(16, 0.95, 0.5)]
    standings = stand(cells)
    assert [s.on_explained_variance for s in standings] == [False, True, False]
    assert [s.on_delta_ce for s in standings] == [False, False, True]
    assert [s.mark for s in standings] == ["frontier", "dominated on EV", "dominated on ΔCE"]


def test_what_was_not_measured_stands_nowhere() -> None:
    cells = [result(8, 0.9, 0.4), replace(result(16, 0.8, 0.1), delta_ce=NotMeasured("no text"))]
    assert stand(cells)[1].on_delta_ce is None
    assert stand(cells)[0].on_delta_ce is False
    without = replace(cells[0], l0=NotMeasured("no latents"))
    assert stand([without])[0].mark == "not measured"


def test_a_cells_result_comes_back_from_json() -> None:
    found = result(8, 0.9, 0.4)
    assert read_cell(json.loads(json.dumps(plain_cell(found))), "here") == found
    with pytest.raises(InvalidInput, match="here: incomplete"):
        read_cell({"cell": {}}, "here")


# Baselines


def rows(tokens: int = 600, d_in: int = 16) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(tokens, d_in, generator=g) @ torch.randn(d_in, d_in, generator=g) + 2


def explained(sae: SparseAutoencoder, x: torch.Tensor) -> float:
    totals = ReconstructionTotals()
    totals.add(x, sae.decode(sae.encode(x), x))
    return value(totals.explained_variance())


@pytest.mark.parametrize("k", [1, 3, 16])
def test_pca_as_an_sae_is_pca(k: int) -> None:
    x = rows()
    sae = principal_components(x, k, HOOK)
    pca = measure_fidelity(PrincipalComponents.fit(x, k=k), [x]).every_token
    assert explained(sae, x) == pytest.approx(value(pca.explained_variance), abs=1e-5)
    assert float(sae.encode(x).counts().float().mean()) == k


def test_the_random_dictionary_is_the_floor_of_the_card() -> None:
    x = rows()
    sae = RandomDictionary.draw(x, 3, d_sae=40, hook_point=HOOK, seed=0)
    floor = measure_fidelity(fit_floors(x, k=3, d_sae=40, seed=0)[0], [x]).every_token
    assert explained(sae, x) == pytest.approx(value(floor.explained_variance), abs=1e-3)
    assert sae.encode(x).counts().max() == 3


def some_text() -> list[Prompt]:
    draw = random.Random(3)
    return [
        Prompt(id=str(i), messages=(Message(role=Role.TEXT, content=text),))
        for i, text in enumerate(" ".join(draw.choices(WORDS, k=20)) for _ in range(6))
    ]


def test_delta_ce_is_that_of_the_card() -> None:
    model = tiny_model()
    batches = [model.pad([model.render(p) for p in some_text()])]
    spliced = SplicedText(model, HOOK, batches)
    x = model.capture(batches[0], [HOOK])[HOOK].flatten(0, 1)
    sae = principal_components(x, 4, HOOK)
    report = measure_loss(model, sae, batches)
    expected = report.reconstruction.delta_ce
    assert isinstance(expected, Measured)
    found = spliced.delta_ce(sae)
    assert isinstance(found, Measured)
    assert (found.value, found.n) == (pytest.approx(expected.value, abs=1e-6), expected.n)
    assert value(spliced.ce) == pytest.approx(value(report.ce), abs=1e-6)
    assert found.value > 0
