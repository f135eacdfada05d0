"""Several SAEs of one train.yaml from one pass over the model, and one of them repaired."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.progress import TextColumn
from typer.testing import CliRunner

from auditkit.cli.console import Bars
from auditkit.cli.live_bars import LiveBars
from auditkit.cli.sae import app
from auditkit.config import load_saes
from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured
from auditkit.core.progress import LiveProgress, Silent
from auditkit.models import LanguageModel
from auditkit.pipeline.live_measures import duration, harvest_figures, train_figures
from auditkit.pipeline.repair import repair_from
from auditkit.pipeline.train import harvest_together, train_from
from auditkit.saes import load_sae
from auditkit.training import HarvestEvent, RepairPlan, TrainEvent, check_aligned
from tests.tiny_folder import write_model_and_text

SEVERAL = """\
format: auditkit-train/1
name: layers
model: {source: model}
harvest:
  folder: build/activations
  context: 128
  max_tokens: 4000
  sources: [{name: words, path: words.jsonl}]
trainer: {d_sae: 64, k: 4, steps: 30, batch_size: 128, learning_rate: 0.005, held_out: 500}
saes:
  - {name: low, hook_point: blocks.0.hook_resid_post, output: saes/low}
  - {name: high, hook_point: blocks.1.hook_resid_post, output: saes/high, trainer: {k: 8}}
  - {name: wide, hook_point: blocks.1.hook_resid_post, output: saes/wide, trainer: {d_sae: 96}}
buffer: {place: disk}
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Shown(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.figures: list[str] = []
        self.notes: list[str] = []

    def begin(self, task: str, total: int) -> None:
        self.tasks.append(task)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show(self, figures: str) -> None:
        self.figures.append(figures)


def make_world(folder: Path) -> Path:
    write_model_and_text(folder)
    file = folder / "train.yaml"
    file.write_text(SEVERAL, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Shown]:
    file = make_world(tmp_path_factory.mktemp("several"))
    shown = Shown()
    assert isinstance(shown, LiveProgress)
    return file, train_from(file, progress=shown), shown


def test_each_sae_stands_at_its_own_hook_point_with_its_own_settings(trained) -> None:
    folder = trained[0].parent
    low, high, wide = (load_sae(str(folder / "saes" / name)) for name in ("low", "high", "wide"))
    assert [s.hook_point.layer for s in (low, high, wide)] == [0, 1, 1]
    assert [s.config.k for s in (low, high, wide)] == [4, 8, 4]
    assert [s.config.d_sae for s in (low, high, wide)] == [64, 64, 96]
    for name in ("low", "high", "wide"):
        assert f"auditkit sae score {trained[0]}#{name}" in trained[1]


def test_all_hook_points_come_from_one_pass(trained) -> None:
    harvests = [task for task in trained[2].tasks if task.startswith("harvest ")]
    assert harvests == ["harvest 2 hook points of model"]
    passes = [note for note in trained[2].notes if note.startswith("one pass")]
    assert passes == [
        "one pass over the model for blocks.0.hook_resid_post, blocks.1.hook_resid_post"
    ]
    folder = trained[0].parent / "build" / "activations"
    assert sorted(p.name for p in folder.iterdir() if not p.name.endswith(".checkpoint")) == [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
    ]
    stores = harvest_together(load_saes(trained[0]), Silent())
    check_aligned(*stores.values())


def test_the_figures_shown_while_it_runs_hold_the_live_measures(trained) -> None:
    figures = trained[2].figures
    assert any("tokens at 2 hook points" in line for line in figures)
    last = [line for line in figures if "explained variance" in line][-1]
    for part in ("held out", "L0", "of 96 dead", "tokens/s", "0 s left"):
        assert part in last


def test_a_hook_point_that_is_there_is_not_read_again(
    trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the model was run")

    folder = trained[0].parent / "build" / "activations"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    written = [path.read_bytes() for path in files]
    monkeypatch.setattr(LanguageModel, "capture", fail)
    stores = harvest_together(load_saes(trained[0]), Silent())
    assert [hook_point.name for hook_point in stores] == [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
    ]
    for hook_point, store in stores.items():
        assert store.folder == folder / hook_point.name
        assert len(store) == 4000
        assert store.d_in == load_sae(str(trained[0].parent / "saes" / "low")).config.d_in
    assert [path.read_bytes() for path in files] == written


def test_a_hook_point_that_is_not_there_is_read(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read(Exception):
        """The model was run."""

    def read(*arguments: object) -> None:
        raise Read("the model was run")

    for name in ("model", "words.jsonl"):
        (tmp_path / name).symlink_to(trained[0].parent / name)
    (tmp_path / "train.yaml").write_text(SEVERAL, encoding="utf-8")
    monkeypatch.setattr(LanguageModel, "capture", read)
    with pytest.raises(Read, match="the model was run"):
        harvest_together(load_saes(tmp_path / "train.yaml"), Silent())


def test_the_buffer_that_the_file_asks_for_is_in_the_log(trained) -> None:
    folder = trained[0].parent / "build" / "activations"
    line = (folder / "low.checkpoint" / "log.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["buffer"] == "disk"


def test_one_of_several_is_trained_alone_to_the_same_weights(trained, tmp_path: Path) -> None:
    file = make_world(tmp_path)
    said = train_from(Path(f"{file}#high"), progress=Silent())
    assert f"auditkit sae score {file}#high" in said
    assert not (tmp_path / "saes" / "low").exists()
    alone, together = (load_sae(str(f / "saes" / "high")) for f in (tmp_path, trained[0].parent))
    assert alone.identity.weights_sha256 == together.identity.weights_sha256


def test_a_trained_sae_is_repaired_from_its_file(trained, tmp_path: Path) -> None:
    file = trained[0]
    out = tmp_path / "repaired"
    summary = repair_from(Path(f"{file}#high"), out, sae=None, plan=RepairPlan(), progress=Silent())
    before, after = summary.before.explained_variance, summary.after.explained_variance
    assert isinstance(before, Measured)
    assert isinstance(after, Measured)
    assert after.value > before.value
    assert summary.changed == 0
    assert before.n == summary.held_out == 500
    sae = load_sae(str(out))
    assert sae.config.name == "high-repaired"
    card = sae.config.metadata["auditkit"]
    assert card["repair"]["active_latents_changed"] == 0
    assert card["training"]["plan"]["d_sae"] == 64
    document = json.loads(summary.json())
    assert document["after"]["gamma"]["value"] == pytest.approx(1, abs=0.05)
    assert document["form"] == "decoder"
    assert "active latents that changed: 0" in summary.text()
    with pytest.raises(InvalidInput, match="exists already"):
        repair_from(Path(f"{file}#high"), out, sae=None, plan=RepairPlan(), progress=Silent())


def test_the_command_repairs_one_of_several(trained, tmp_path: Path) -> None:
    out = tmp_path / "repaired"
    asked = ["repair", f"{trained[0]}#low", str(out), "--rows", "500", "--json", "--quiet"]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    assert document["fitted_on"] == 500
    assert document["active_latents_changed"] == 0
    assert load_sae(str(out)).config.name == "low-repaired"


def event(**changed) -> TrainEvent:
    return TrainEvent(**{
        "step": 5, "steps": 10, "loss": 0.2, "explained_variance": 0.81234, "l0": 32.04,
        "dead": 1234, "learning_rate": 1e-3, "tokens_per_second": 4310.2,
        "seconds_left": 700.0, **changed,
    })  # fmt: skip


def test_a_line_of_figures_has_every_live_measure() -> None:
    assert train_figures(event(), d_sae=6144, held_out=0.8) == (
        "explained variance 0.8123 (held out 0.8000) · L0 32.0 · 1,234 of 6,144 dead · "
        "4,310 tokens/s · 12 min left"
    )
    assert train_figures(event(seconds_left=None), d_sae=6144, held_out=None) == (
        "explained variance 0.8123 · L0 32.0 · 1,234 of 6,144 dead · 4,310 tokens/s"
    )
    seen = HarvestEvent(
        documents=1, of_documents=2, rows=70_000, hook_points=1, tokens_per_second=1650.0
    )
    assert harvest_figures(seen) == "70,000 tokens at 1 hook point · 1,650 tokens/s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (3540, "59 min"),
        (3600, "1 h 00 min"),
        (11_100, "3 h 05 min"),
    ],
)
def test_lengths_of_time_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_figures_stand_under_the_bar_until_the_task_ends() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, color_system=None)
    bars = LiveBars(TextColumn("{task.description}"), console=console, auto_refresh=False)
    with bars:
        bars.add_task("train high", total=3)
        bars.figures = "L0 [32]"
        bars.refresh()
    assert "train high" in written.getvalue()
    assert "L0 [32]" in written.getvalue()


def test_bars_are_a_live_progress_and_forget_figures_with_their_task(capsys) -> None:
    bars = Bars()
    assert isinstance(bars, LiveProgress)
    with bars:
        bars.begin("one", 2)
        bars.show("L0 32")
        assert bars._progress.figures == "L0 32"
        bars.begin("two", 2)
        assert bars._progress.figures == ""
    assert "L0" not in capsys.readouterr().err
