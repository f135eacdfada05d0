"""Several SAEs in one train.yaml: each as if it were alone, and errors where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.config import load_saes, load_train
from auditkit.core.errors import DocumentError, InvalidInput

SEVERAL = """\
format: auditkit-train/1
name: layers
model: {source: model}
harvest:
  folder: build/activations
  context: 64
  sources: [{name: words, path: words.jsonl}]
trainer: {d_sae: 64, k: 4, steps: 60, learning_rate: 0.005}
saes:
  - {name: low, hook_point: blocks.0.hook_resid_post, output: saes/low}
  - name: high
    hook_point: blocks.1.hook_resid_post
    output: saes/high
    trainer: {k: 8, d_sae: 128}
comparisons: {folder: build/comparisons, second_seed: 1}
sweep:
  folder: build/sweep
  output: pictures
  d_sae: [64]
  grids: [{k: [2, 4]}]
buffer: {place: disk}
seed: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(SEVERAL, encoding="utf-8")
    return path


def test_each_sae_is_a_document_of_its_own(file: Path) -> None:
    low, high = (one.document for one in load_saes(file))
    assert (low.name, high.name) == ("low", "high")
    assert low.harvest.hook_point == "blocks.0.hook_resid_post"
    assert low.harvest.folder == "build/activations/blocks.0.hook_resid_post"
    assert high.harvest.folder == "build/activations/blocks.1.hook_resid_post"
    assert low.harvest.context == high.harvest.context == 64
    assert low.harvest.sources == high.harvest.sources
    assert (low.output, high.output) == ("saes/low", "saes/high")
    assert low.seed == high.seed == 3
    assert low.buffer.place == "disk"


def test_an_own_trainer_wins_over_the_files(file: Path) -> None:
    low, high = (one.document.trainer for one in load_saes(file))
    assert (low.d_sae, low.k, low.steps) == (64, 4, 60)
    assert (high.d_sae, high.k, high.steps) == (128, 8, 60)


def test_another_objective_takes_none_of_the_first_ones_own_settings(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    text = SEVERAL.replace("{k: 8, d_sae: 128}", "{objective: relu_l1, l1: 5.0}")
    path.write_text(text, encoding="utf-8")
    low, high = (one.document.trainer for one in load_saes(path))
    assert low.own_settings == {"k": 4}
    assert high.own_settings == {"l1": 5.0}
    assert (high.objective, high.d_sae, high.steps) == ("relu_l1", 64, 60)


def test_comparisons_and_sweeps_of_different_saes_do_not_mix(file: Path) -> None:
    low, high = (one.document for one in load_saes(file))
    assert low.comparisons is not None
    assert high.comparisons is not None
    assert low.comparisons.folder == "build/comparisons/low"
    assert high.comparisons.folder == "build/comparisons/high"
    assert low.sweep is not None
    assert high.sweep is not None
    assert (low.sweep.folder, low.sweep.output) == ("build/sweep/low", "pictures/low")
    assert (high.sweep.folder, high.sweep.output) == ("build/sweep/high", "pictures/high")


def test_one_of_several_is_named_behind_a_number_sign(file: Path) -> None:
    located = load_train(Path(f"{file}#high"))
    assert located.document.name == "high"
    assert located.folder == file.parent.resolve()
    assert [one.document.name for one in load_saes(Path(f"{file}#low"))] == ["low"]


def test_one_sae_is_wanted_and_several_are_named(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"one is wanted: low, high(.|\n)*train.yaml#low"):
        load_train(file)


def test_a_name_that_is_not_in_the_file_is_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no SAE is named 'middle'(.|\n)*low, high"):
        load_train(Path(f"{file}#middle"))


def test_a_file_whose_name_has_a_number_sign_is_read(file: Path) -> None:
    odd = file.with_name("a#low")
    odd.write_text(SEVERAL, encoding="utf-8")
    assert len(load_saes(odd)) == 2
    assert load_train(Path(f"{odd}#low")).document.name == "low"


def test_a_file_of_one_sae_can_be_named_too(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    text = SEVERAL.split("saes:")[0].replace(
        "  context", "  hook_point: blocks.0.hook_resid_post\n  context"
    )
    path.write_text(text + "output: sae\n", encoding="utf-8")
    assert load_train(path).document.name == "layers"
    assert load_train(Path(f"{path}#layers")) == load_train(path)
    assert load_train(path).document.buffer.place == "auto"


def errors_of(tmp_path: Path, before: str, after: str) -> str:
    assert before in SEVERAL
    path = tmp_path / "bad.yaml"
    path.write_text(SEVERAL.replace(before, after), encoding="utf-8")
    with pytest.raises(DocumentError, match=r"bad\.yaml") as caught:
        load_saes(path)
    return str(caught.value)


def test_a_wrong_setting_is_shown_in_the_trainer_that_has_it(tmp_path: Path) -> None:
    found = errors_of(tmp_path, "{k: 8, d_sae: 128}", "{k: 8, d_sae: 1}")
    assert "bad.yaml:14:28" in found


def test_a_setting_that_no_trainer_has_is_refused(tmp_path: Path) -> None:
    assert "width" in errors_of(tmp_path, "{k: 8, d_sae: 128}", "{k: 8, width: 128}")
    assert "width" in errors_of(tmp_path, "{d_sae: 64, k: 4", "{width: 64, k: 4")


def test_a_setting_that_is_nowhere_is_missed(tmp_path: Path) -> None:
    found = errors_of(tmp_path, "steps: 60, ", "")
    assert "steps" in found


@pytest.mark.parametrize(("before", "after", "what"), [
    ("name: high", "name: low", "name 'low'"),
    ("output: saes/high", "output: saes/low", "output 'saes/low'"),
])  # fmt: skip
def test_two_saes_of_one_name_or_folder_are_refused(
    tmp_path: Path, before: str, after: str, what: str
) -> None:
    assert what in errors_of(tmp_path, before, after)


def test_a_hook_point_under_harvest_contradicts_several_saes(tmp_path: Path) -> None:
    found = errors_of(tmp_path, "  context: 64", "  hook_point: blocks.0.hook_resid_post")
    assert "hook_point" in found


def test_no_saes_at_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    head = SEVERAL.split("saes:")[0]
    path.write_text(f"{head}saes: []\n", encoding="utf-8")
    with pytest.raises(DocumentError, match="saes"):
        load_saes(path)
    path.write_text(f"{head}saes: {{low: 1}}\n", encoding="utf-8")
    with pytest.raises(DocumentError, match="saes"):
        load_saes(path)
