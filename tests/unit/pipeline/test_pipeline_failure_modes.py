"""Lookups, absorption and splitting from a train.yaml, on a tiny model that is trained for real."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from auditkit.config import load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Silent
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import LanguageModel
from auditkit.pipeline.failures.absorption import (
    EXAMPLES,
    FRAMES,
    LETTERS,
    QUESTION,
    absorption_from,
    read_words,
    single_token_words,
)
from auditkit.pipeline.failures.lookup import lookup_from, ngram_text, usable_latents
from auditkit.pipeline.failures.splitting import splitting_from
from auditkit.pipeline.fidelity import activations_of
from auditkit.pipeline.held_out import document_of, held_out_prompts
from auditkit.pipeline.train import train_from
from auditkit.pipeline.workbench import Workbench
from auditkit.quality.lookups.comparison import BEST, SHUFFLED
from auditkit.quality.lookups.ngram_text import NO_TOKEN, NgramText
from auditkit.store import MASKED_IN_STATS
from tests.tiny import tiny_model
from tests.tiny_folder import write_model_and_text

TRAIN = """\
format: auditkit-train/1
name: tiny
model: {source: model}
harvest:
  hook_point: blocks.1.hook_resid_post
  context: 128
  folder: build/activations
  sources: [{name: words, path: words.jsonl}]
trainer: {d_sae: 64, k: 4, steps: 60, batch_size: 128, learning_rate: 0.005, held_out: 500}
output: sae
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train.yaml with its model, text and trained SAE in one folder."""
    folder = tmp_path_factory.mktemp("failure-modes")
    write_model_and_text(folder, documents=800, words=60)
    file = folder / "train.yaml"
    file.write_text(TRAIN, encoding="utf-8")
    train_from(file, progress=Silent())
    return file


@pytest.fixture(scope="module")
def bench(trained: Path) -> Workbench:
    folder = trained.parent
    return Workbench.load(
        str(folder / "model"), str(folder / "sae"), dtype="float32", progress=Silent()
    )


def test_tokens_of_a_text_stand_in_the_order_of_their_activations(
    trained: Path, bench: Workbench
) -> None:
    prompts = held_out_prompts(load_train(trained), bench.model, tokens=3000)
    x = torch.cat(list(activations_of(bench, prompts)))
    text = ngram_text(prompts)
    assert len(text) == len(x)
    prompt = prompts[len(prompts) // 2]
    own = bench.model.capture(bench.model.pad([prompt]), [bench.sae.hook_point])
    kept = [i for i, mask in enumerate(prompt.masks) if not mask & MASKED_IN_STATS]
    number = list(dict.fromkeys(map(document_of, prompts))).index(document_of(prompt))
    rows = text.document == number
    assert text.current[rows].tolist() == [prompt.ids[i] for i in kept]
    before = [prompt.ids[i - 1] if i else NO_TOKEN for i in kept]
    assert text.previous[rows].tolist() == before
    assert torch.allclose(x[rows], own[bench.sae.hook_point][0][kept], atol=1e-4)


def test_latents_are_compared_with_other_directions(trained: Path) -> None:
    found = lookup_from(trained, tokens=3000, units=12, progress=Silent())
    names = [family.name for family in found.families]
    assert names == [
        "SAE latents",
        "SAE encoder directions",
        "neuron basis",
        "PCA",
        "ICA",
        "random directions",
        "random directions, whitened",
    ]
    best, floor = (found.families[0].row(name).f1 for name in (BEST, SHUFFLED))
    assert isinstance(best, Measured)
    assert isinstance(floor, Measured)
    assert best.value > 1.3 * floor.value, found.text()
    assert found.documents[0] > 1
    assert "SAE latents" in found.text()
    assert json.loads(found.json())["latents"] == found.latents


def test_latents_that_no_direction_can_match_in_density_are_not_usable() -> None:
    fitted = torch.arange(500) < 100
    text = NgramText(
        current=torch.zeros(500, dtype=torch.int64),
        previous=torch.full((500,), NO_TOKEN),
        document=(~fitted).long(),
        fitted=fitted,
    )
    on_fitted = torch.tensor([9, 10, 49, 50, 100, 10])
    on_tested = torch.tensor([50, 10, 50, 50, 40, 141])
    usable = usable_latents(on_fitted, on_tested, text)
    assert usable.tolist() == [False, True, True, False, False, False]


def test_a_word_behind_a_shared_prefix_is_read_as_in_the_whole_prompt() -> None:
    model = tiny_model()
    hook_point = HookPoint.parse("blocks.1.hook_resid_post")
    found = read_words(model, hook_point, words=60, seed=0, progress=Silent())
    assert found.x.shape == (60, model.d_model)
    again = read_words(model, hook_point, words=60, seed=0, progress=Silent())
    assert torch.equal(found.x, again.x)
    assert torch.allclose(found.x[7], _read_whole(model, hook_point, 7), atol=1e-4)


def _read_whole(model: LanguageModel, hook_point: HookPoint, row: int) -> torch.Tensor:
    """The activation of word `row` with nothing shared, nothing cached and nothing restarted."""
    listed = single_token_words(model)
    random.Random(0).shuffle(listed)
    number = row % FRAMES
    examples = listed[number * EXAMPLES : (number + 1) * EXAMPLES]
    lines = "".join(f" {w}{QUESTION} {w[0].upper()}\n" for w in examples)
    text = f"{lines} {listed[FRAMES * EXAMPLES + row]}"
    prompt = model.render(Prompt(id="x", messages=(Message(role=Role.TEXT, content=text),)))
    return model.capture(model.pad([prompt]), [hook_point])[hook_point][0, -1]


def test_the_first_letter_test_runs_or_says_why_not(trained: Path) -> None:
    found = absorption_from(trained, words=200, progress=Silent())
    report = found.report
    assert [c.name for c in report.classes] == list(LETTERS)
    # A random model of 32 dimensions knows its tokens, and no letters of words it has not seen.
    assert isinstance(report.absorption, NotMeasured)
    assert report.absorption.reason.startswith("not applicable")
    assert "not applicable" in found.text()
    assert json.loads(found.json())["hook_point"] == "blocks.1.hook_resid_post"


def test_splitting_is_measured_between_widths_beside_its_floor(trained: Path) -> None:
    found = splitting_from(trained, widths=(32, 64), tokens=3000, progress=Silent())
    assert [(r.narrow, r.wide, r.floor) for r in found.rows] == [
        (32, 64, False),
        (32, 32, True),
        (64, 64, True),
    ]
    kept = trained.parent / "build" / "splitting"
    assert sorted(p.name for p in kept.iterdir() if (p / "cfg.json").exists()) == [
        "width-32-seed-0",
        "width-32-seed-1",
        "width-64-seed-1",
    ]
    shutil.rmtree(trained.parent / "build" / "activations")
    again = splitting_from(trained, widths=(32, 64), tokens=3000, progress=Silent())
    assert again == found
    assert "other seed" in found.text()


def test_one_width_or_one_seed_is_refused(trained: Path) -> None:
    with pytest.raises(InvalidInput, match="at least two widths and two seeds"):
        splitting_from(trained, widths=(32,), progress=Silent())
    with pytest.raises(InvalidInput, match="at least two widths and two seeds"):
        splitting_from(trained, widths=(32, 64), second_seed=0, progress=Silent())
