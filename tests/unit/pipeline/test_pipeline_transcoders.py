"""A train.yaml that names where to write: a transcoder of an MLP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from auditkit.config import load_train
from auditkit.core.errors import DocumentError, InvalidInput, MismatchError
from auditkit.core.progress import Silent
from auditkit.pipeline.comparisons import compare_from
from auditkit.pipeline.scoring.score import score_from
from auditkit.pipeline.sweeping.sweep import sweep_from
from auditkit.pipeline.train import train_from
from auditkit.saes import load_transcoder
from auditkit.training import ActivationStore
from tests.tiny_folder import write_model_and_text

READ, WRITTEN = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
TRANSCODER = f"""\
format: auditkit-train/1
name: mlp
model: {{source: model}}
harvest:
  hook_point: {READ}
  output_hook_point: {WRITTEN}
  folder: build/activations
  context: 128
  max_tokens: 4000
  sources: [{{name: words, path: words.jsonl}}]
trainer:
  {{objective: batch_topk, d_sae: 96, k: 8, steps: 150, batch_size: 256, learning_rate: 0.01,
   held_out: 500}}
output: mlp
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("transcoder")
    write_model_and_text(folder)
    file = folder / "train.yaml"
    file.write_text(TRANSCODER, encoding="utf-8")
    return file, train_from(file, progress=Silent())


def test_a_transcoder_predicts_what_the_mlp_writes(trained: tuple[Path, str]) -> None:
    file, said = trained
    transcoder = load_transcoder(file.parent / "mlp")
    config = transcoder.config
    assert (config.hook_point.name, config.hook_point_out.name) == (READ, WRITTEN)
    build = file.parent / "build"
    read, written = (
        ActivationStore(build / name) for name in ("activations", f"activations-{WRITTEN}")
    )
    every = torch.arange(len(read))
    x, y = read.rows(every), written.rows(every)
    error = (y - transcoder.decode(transcoder.encode(x))).square().sum()
    assert float(1 - error / (y - y.mean(0)).square().sum()) > 0.5
    assert said.startswith(f"mlp: a transcoder of 96 latents from {READ} to {WRITTEN}")
    assert "explained variance on 500 held-out rows: 0." in said


def test_a_finished_transcoder_is_left_as_it_is(trained: tuple[Path, str]) -> None:
    file, said = trained
    weights = file.parent / "mlp/sae_weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert train_from(file, progress=Silent()) == said
    assert weights.stat().st_mtime_ns == before


def test_another_plan_does_not_take_its_folder(trained: tuple[Path, str]) -> None:
    file, _ = trained
    other = file.with_name("other.yaml")
    other.write_text(TRANSCODER.replace("k: 8", "k: 4"), encoding="utf-8")
    with pytest.raises(MismatchError, match="holds a transcoder of another plan"):
        train_from(other, progress=Silent())


def test_what_is_for_autoencoders_says_so_before_any_work(trained: tuple[Path, str]) -> None:
    file, _ = trained
    for verb in (
        score_from,
        compare_from,
        lambda f, progress: sweep_from(f, only_finished=False, progress=progress),
    ):
        with pytest.raises(InvalidInput, match="is for autoencoders"):
            verb(file, progress=Silent())


def test_topk_has_no_transcoder_and_is_refused_before_the_harvest(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(TRANSCODER.replace("objective: batch_topk, ", ""), encoding="utf-8")
    with pytest.raises(InvalidInput, match="no topk transcoder"):
        train_from(file, progress=Silent())
    assert not (tmp_path / "build").exists()


def test_reading_and_writing_at_one_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(TRANSCODER.replace(WRITTEN, READ), encoding="utf-8")
    with pytest.raises(DocumentError, match="output_hook_point is the hook_point itself"):
        load_train(file)
