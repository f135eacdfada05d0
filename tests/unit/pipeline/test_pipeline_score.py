"""`sae score` from end to end on a tiny model: what it writes, keeps, skips and leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Silent
from auditkit.pipeline.comparisons import Kind, compare_from
from auditkit.pipeline.scoring.probing import LabelledTask, shipped_tasks
from auditkit.pipeline.scoring.score import choose_groups, score_from
from auditkit.pipeline.summaries import card_measures
from auditkit.pipeline.train import train_from
from auditkit.report.score_document import EVERY_GROUP, Beside, ScoreDocument
from auditkit.saes import load_sae, write_sae
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
trainer: {d_sae: 48, k: 4, steps: 30, batch_size: 128, learning_rate: 0.005, held_out: 500}
comparisons:
  folder: build/comparisons
  steps: 20
  second_seed: 1
  frozen_decoder: true
  random_model: {weights_seed: 9, max_tokens: 2500}
output: sae
"""
FAST = ("loss", "ablation", "probing", "geometry", "stability")


@dataclass(frozen=True)
class Whole:
    """A train.yaml with all its SAEs, and what a whole score of it said."""

    file: Path
    document: ScoreDocument
    weights: str

    @property
    def sae(self) -> Path:
        return self.file.parent / "sae"


class Stopper(Silent):
    """Presses Ctrl-C when a task begins."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.begun: list[str] = []

    def begin(self, task: str, total: int) -> None:
        self.begun.append(task)
        if task.startswith(self.at):
            raise KeyboardInterrupt


def few_tasks() -> tuple[LabelledTask, ...]:
    """Two tasks with their first sixteen pairs."""
    few: list[LabelledTask] = []
    for task in shipped_tasks()[:2]:
        kept = [i for i, p in enumerate(task.prompts) if int(p.tags[0][-3:]) <= 16]
        few.append(
            LabelledTask(
                name=task.name,
                prompts=tuple(task.prompts[i] for i in kept),
                labels=tuple(task.labels[i] for i in kept),
            )
        )
    return tuple(few)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of this module's own, few tasks, few ablations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDITKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("auditkit.pipeline.scoring.probing.shipped_tasks", few_tasks)
        patch.setattr("auditkit.pipeline.scoring.effects.ABLATED_LATENTS", 4)
        patch.setattr("auditkit.pipeline.scoring.effects.FIRES_OF_EACH", 2)
        yield


@pytest.fixture(scope="module")
def whole(apart: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("scored")
    write_model_and_gzipped_text(folder, documents=400, words=60)
    file = folder / "train.yaml"
    file.write_text(TRAIN)
    train_from(file, progress=Silent())
    compare_from(file, progress=Silent())
    weights = digest(folder / "sae/sae_weights.safetensors")
    found = score_from(file, tokens=900, progress=Silent())
    return Whole(file=file, document=found.document, weights=weights)


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Whole:
    """The same, to be changed."""
    shutil.copytree(whole.file.parent, tmp_path / "copy")
    return Whole(file=tmp_path / "copy/train.yaml", document=whole.document, weights=whole.weights)


def test_every_group_and_every_column_is_there(whole: Whole) -> None:
    assert [part.group for part in whole.document.parts] == list(EVERY_GROUP)
    assert [c.name for c in whole.document.columns] == [
        "random dictionary",
        "PCA",
        "neuron basis",
        "frozen decoder",
        "random model",
        "reference",
    ]
    for row in whole.document.rows():
        if row.name.startswith("CE recovered"):
            continue  # no ablation harms a model that knows nothing
        assert isinstance(row.value, Measured), row.name
        assert row.value.n > 0
        missing = [b for b in row.beside if isinstance(b.value, NotMeasured)]
        assert not missing, row.name
        assert not any(b.kept for b in row.beside)


def test_what_stands_beside_covers_every_measure_that_makes_sense_there(whole: Whole) -> None:
    beside = {row.name: {b.column for b in row.beside} for row in whole.document.rows()}
    everyone = {c.name for c in whole.document.columns}
    for name in ("explained variance (centred)", "L0", "mutual coherence", "dead latents"):
        assert beside[name] == everyone
    assert beside["AUROC of probes on k = 2"] == everyone
    for name in ("ΔCE", "KL(p ‖ p_x̂)", "effective logits moved"):
        assert beside[name] == everyone - {"random model"}
    assert beside["seed stability"] == {"random dictionary"}


def test_measures_over_documents_have_intervals(whole: Whole) -> None:
    rows = {row.name: row.value for row in whole.document.rows()}
    for name in (
        "explained variance (centred)",
        "relative reconstruction bias γ",
        "norm ratio ‖x̂‖/‖x‖",
        "ΔCE",
        "KL(p ‖ p_x̂)",
    ):
        value = rows[name]
        assert isinstance(value, Measured), name
        assert value.interval is not None, name
        assert value.interval.low <= value.value <= value.interval.high


def test_the_weights_are_untouched_and_the_metadata_hold_the_rows(whole: Whole) -> None:
    assert digest(whole.sae / "sae_weights.safetensors") == whole.weights
    measures = {m.name: m for m in card_measures(load_sae(whole.sae).config.metadata)}
    explained = measures["explained variance (centred)"].value
    assert explained == whole.document.rows()[0].value  # interval and all
    assert "explained variance (centred): frozen decoder" in measures


def test_card_document_and_page_lie_beside_the_sae(whole: Whole) -> None:
    card = (whole.sae / "README.md").read_text(encoding="utf-8")
    header = next(line for line in card.splitlines() if line.startswith("| measure |"))
    width = header.count("|")
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert width == len(whole.document.columns) + 5
    assert sum(line.count("|") - line.count("\\|") == width for line in table) > 40
    assert "| ΔCE |" in card
    text = (whole.sae / "score.json").read_text(encoding="utf-8")
    assert ScoreDocument.model_validate_json(text) == whole.document
    page = (whole.sae / "score.html").read_text(encoding="utf-8")
    assert page.count("<svg ") == 7
    assert "http-equiv" in page
    assert "<script" not in page


def test_the_same_inputs_give_the_same_bytes_from_the_cache_and_anew(copy: Whole) -> None:
    files = ("score.json", "score.html", "README.md", "cfg.json", "sae_weights.safetensors")
    before = {name: digest(copy.sae / name) for name in files}
    watch = Stopper("nothing")
    score_from(copy.file, tokens=900, progress=watch)
    assert watch.begun == []  # all from the cache: nothing was measured, or even captured
    assert {name: digest(copy.sae / name) for name in files} == before
    score_from(copy.file, tokens=900, only=["fidelity", "probing"], again=True, progress=watch)
    assert watch.begun
    again = ScoreDocument.model_validate_json((copy.sae / "score.json").read_text())
    for group in ("fidelity", "probing"):
        assert again.part(group) == copy.document.part(group)


def test_a_group_left_out_keeps_what_was_said_and_says_so(copy: Whole) -> None:
    found = score_from(copy.file, tokens=900, skip=FAST, progress=Silent()).document
    kept = {part.group: part.kept for part in found.parts}
    assert kept == {group: group in FAST for group in EVERY_GROUP}
    assert found.part("loss") == copy.document.part("loss").model_copy(update={"kept": True})  # type: ignore[union-attr]
    card = (copy.sae / "README.md").read_text(encoding="utf-8")
    assert "† measured in an earlier run and kept." in card
    assert "**Stability over seeds †**" in card


def beside(document: ScoreDocument, name: str, column: str) -> Beside:
    (row,) = (r for r in document.rows() if r.name == name)
    (found,) = (b for b in row.beside if b.column == column)
    return found


def test_comparisons_that_are_gone_keep_their_values(copy: Whole) -> None:
    shutil.rmtree(copy.file.parent / "build/comparisons")
    groups = ("fidelity", "stability", "probing")
    found = score_from(copy.file, tokens=900, only=groups, progress=Silent()).document
    for name in ("explained variance (centred)", "AUROC of probes on k = 1"):
        kept = beside(found, name, "frozen decoder")
        assert kept.kept
        assert kept.value == beside(copy.document, name, "frozen decoder").value
        assert not beside(found, name, "PCA").kept
    stability = found.part("stability")
    assert stability is not None
    assert stability.kept
    assert isinstance(stability.rows[0].value, Measured)
    probing = found.part("probing")
    assert probing is not None
    assert {s.column for s in probing.probes[0].scores} >= {"frozen decoder", "random model"}
    again = score_from(copy.file, tokens=900, only=groups, progress=Silent()).document
    assert again == found


def test_comparisons_that_never_were_say_what_to_do(copy: Whole) -> None:
    shutil.rmtree(copy.file.parent / "build/comparisons")
    (copy.sae / "score.json").unlink()
    found = score_from(copy.file, tokens=900, only=["fidelity", "stability"], progress=Silent())
    missing = beside(found.document, "explained variance (centred)", "frozen decoder").value
    assert isinstance(missing, NotMeasured)
    assert "auditkit sae compare trains it" in missing.reason
    card = (copy.sae / "README.md").read_text(encoding="utf-8")
    assert "n/m [1]" in card
    assert "- [1] no frozen-decoder SAE has been trained" in card


def test_a_score_of_other_weights_keeps_nothing(copy: Whole) -> None:
    sae = load_sae(copy.sae)
    sae.tensors["W_dec"].mul_(0.5)
    write_sae(sae, copy.sae)
    found = score_from(copy.file, tokens=900, only=["geometry"], progress=Silent()).document
    assert [part.group for part in found.parts] == ["geometry"]


def test_a_score_on_another_model_keeps_nothing(copy: Whole) -> None:
    before = ScoreDocument.model_validate_json((copy.sae / "score.json").read_text())
    other = before.model.model_copy(update={"weights_sha256": "0" * 64})
    changed = before.model_copy(update={"model": other})
    (copy.sae / "score.json").write_text(changed.json_text(), encoding="utf-8")
    found = score_from(copy.file, tokens=900, only=["geometry"], progress=Silent()).document
    assert [part.group for part in found.parts] == ["geometry"]


def test_measures_kept_from_another_text_say_so(copy: Whole) -> None:
    found = score_from(copy.file, tokens=400, only=["geometry"], progress=Silent()).document
    assert found.kept_from == copy.document.text
    assert found.text != copy.document.text
    card = (copy.sae / "README.md").read_text(encoding="utf-8")
    n = copy.document.text.tokens
    assert f"† measured in an earlier run and kept, on {n:,} tokens of another draw" in card


def test_suppression_stands_beside_every_sae_and_no_floor(copy: Whole) -> None:
    rows = {row.name: row for row in copy.document.rows()}
    for name in ("γ about the bias", "γ of single latents, median", "latents with γ below 0.9"):
        columns = {b.column for b in rows[name].beside}
        assert {"frozen decoder", "random model"} <= columns
        assert not columns & {"PCA", "neuron basis", "random dictionary"}


def test_weights_in_float32_stay_as_they_are(copy: Whole) -> None:
    sae = load_sae(copy.sae)
    sae.tensors["W_dec"].mul_(1 + 1e-5)  # beyond float16
    write_sae(sae, copy.sae, dtype="float32", log_sparsity=torch.full((48,), -2.0))
    names = ("sae_weights.safetensors", "sparsity.safetensors")
    before = [digest(copy.sae / name) for name in names]
    found = score_from(copy.file, tokens=900, only=["geometry"], progress=Silent()).document
    assert [digest(copy.sae / name) for name in names] == before
    assert load_sae(copy.sae).identity.weights_sha256 == found.sae.weights_sha256


def test_ctrl_c_loses_no_finished_group(copy: Whole) -> None:
    before = digest(copy.sae / "score.json")
    stopper = Stopper("measure directions")
    with pytest.raises(KeyboardInterrupt):
        score_from(copy.file, tokens=300, only=["fidelity", "geometry"], progress=stopper)
    assert "reconstruct held-out activations" in stopper.begun
    assert digest(copy.sae / "score.json") == before
    watch = Stopper("nothing")
    score_from(copy.file, tokens=300, only=["fidelity", "geometry"], progress=watch)
    assert "reconstruct held-out activations" not in watch.begun
    assert "measure directions" in watch.begun


def test_another_folder_leaves_the_sae_alone(copy: Whole, tmp_path: Path) -> None:
    before = {p: digest(p) for p in copy.sae.iterdir()}
    found = score_from(
        copy.file, tokens=900, only=["fidelity"], out=tmp_path / "out", progress=Silent()
    )
    assert {p: digest(p) for p in copy.sae.iterdir()} == before
    assert found.card == tmp_path / "out/README.md"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "README.md",
        "score.json",
        "score.html",
    }


def test_other_saes_stand_in_columns_of_their_own(copy: Whole, tmp_path: Path) -> None:
    reference = copy.file.parent / "build/comparisons" / Kind.SECOND_SEED.value
    found = score_from(
        copy.file,
        tokens=900,
        beside=[reference],
        only=["fidelity"],
        out=tmp_path / "out",
        progress=Silent(),
    ).document
    assert found.columns[-1].name == "tiny-second-seed"
    assert isinstance(beside(found, "L0", "tiny-second-seed").value, Measured)
    part = found.part("fidelity")
    assert part is not None
    assert "tiny-second-seed" in {p.curve for p in part.frontier}


def test_an_sae_of_another_hook_point_is_not_put_beside(copy: Whole, tmp_path: Path) -> None:
    cfg = json.loads((copy.sae / "cfg.json").read_text())
    cfg["metadata"]["hook_name"] = "blocks.0.hook_resid_post"
    shutil.copytree(copy.sae, tmp_path / "other")
    (tmp_path / "other/cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(MismatchError, match=r"reads blocks\.0\.hook_resid_post"):
        score_from(copy.file, tokens=900, beside=[tmp_path / "other"], progress=Silent())


def test_groups_are_chosen_by_name() -> None:
    assert choose_groups((), ()) == EVERY_GROUP
    assert choose_groups(("loss", "fidelity"), ()) == ("fidelity", "loss")
    assert choose_groups((), ("ablation", "probing")) == EVERY_GROUP[:4]
    with pytest.raises(InvalidInput, match="no group of measures called 'los'"):
        choose_groups(("los",), ())


def test_another_tools_sae_is_scored_only_into_another_folder(copy: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "sae.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInput, match="another tool's SAE"):
        score_from(copy.file, sae=folder, progress=Silent())


def test_shipped_tasks_keep_twins_in_one_half() -> None:
    tasks = shipped_tasks()
    assert len(tasks) == 11
    for task in tasks:
        halves: dict[str, set[object]] = {}
        for prompt in task.prompts:
            halves.setdefault(prompt.tags[0], set()).add(prompt.split)
        assert all(len(h) == 1 for h in halves.values())
        assert {p.label for p, y in zip(task.prompts, task.labels, strict=True) if y} == {
            "concerning"
        }
