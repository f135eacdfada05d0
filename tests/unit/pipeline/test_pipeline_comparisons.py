"""What a card is held against: declared in train.yaml, trained once, measured or called missing."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from auditkit.config import load_train
from auditkit.core.audits import NamedMeasure
from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.progress import Silent
from auditkit.pipeline.comparisons import (
    Kind,
    compare_from,
    is_trained_by,
    list_comparisons,
    load_comparison,
)
from auditkit.pipeline.scoring.score import score_from
from auditkit.pipeline.train import plan_training, train_from
from auditkit.saes import load_sae
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
COMPARISONS = """\
comparisons:
  folder: build/comparisons
  steps: 40
  second_seed: 1
  frozen_decoder: true
  random_model: {weights_seed: 9, max_tokens: 2500}
"""
SLOW = ("ablation", "probing")
TRAINED = {
    "seed stability",
    "seed stability, mean decoder cosine",
    "seed stability, mean encoder cosine",
    "seed stability, greedy",
    "seed stability: random dictionary",
    "explained variance (centred): reference",
    "explained variance (centred): frozen decoder",
    "explained variance (centred): random model",
    "ΔCE: reference",
    "ΔCE: frozen decoder",
    "KL(p ‖ p_x̂): frozen decoder",
    "KL(p ‖ p_x̂): reference",
}


@dataclass(frozen=True)
class Scored:
    """A folder with everything in it, and its card before and after the comparisons."""

    file: Path
    before: tuple[NamedMeasure, ...]
    after: tuple[NamedMeasure, ...]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    folder = tmp_path_factory.mktemp("compared")
    write_model_and_gzipped_text(folder, documents=80)
    file = folder / "train.yaml"
    file.write_text(TRAIN + COMPARISONS)
    train_from(file, progress=Silent())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDITKIT_CACHE", str(folder / "cache"))
        before = score_from(file, tokens=400, skip=SLOW, progress=Silent()).measures
        compare_from(file, progress=Silent())
        after = score_from(file, tokens=400, skip=SLOW, progress=Silent()).measures
    return Scored(file=file, before=before, after=after)


def by_name(measures: tuple[NamedMeasure, ...]) -> dict[str, NamedMeasure]:
    return {m.name: m for m in measures}


def number(measures: tuple[NamedMeasure, ...], name: str) -> float:
    value = by_name(measures)[name].value
    assert isinstance(value, Measured)
    return value.value


def test_without_comparisons_the_card_says_what_is_missing_and_what_to_do(scored: Scored) -> None:
    found = by_name(scored.before)
    for name in (
        "seed stability",
        "explained variance (centred): frozen decoder",
        "explained variance (centred): random model",
    ):
        value = found[name].value
        assert isinstance(value, NotMeasured)
        assert "auditkit sae compare" in value.reason


def test_with_comparisons_every_row_has_a_value_and_its_n(scored: Scored) -> None:
    found = by_name(scored.after)
    assert found.keys() >= TRAINED
    for name in TRAINED:
        value = found[name].value
        assert isinstance(value, Measured), name
        assert value.n > 0
    card = (scored.file.parent / "sae/README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert not [r for r in rows if "not measured" in r and r.split(" | ")[0][2:] in TRAINED]
    assert "40 steps of 128 tokens" in card


def test_nothing_else_on_the_card_changes(scored: Scored) -> None:
    before, after = by_name(scored.before), by_name(scored.after)
    same = [name for name in before if name not in TRAINED]
    assert len(same) > 20
    for name in same:
        one, two = before[name].value, after[name].value
        assert type(one) is type(two), name
        if isinstance(one, Measured) and isinstance(two, Measured):  # lstsq differs in last digits
            assert two.value == pytest.approx(one.value, rel=1e-6), name


def test_a_frozen_decoder_explains_less_than_its_reference(scored: Scored) -> None:
    frozen = number(scored.after, "explained variance (centred): frozen decoder")
    assert frozen < number(scored.after, "explained variance (centred): reference")


def test_random_directions_share_nothing(scored: Scored) -> None:
    assert number(scored.after, "seed stability: random dictionary") == 0


def test_what_is_there_is_not_trained_again(scored: Scored) -> None:
    folder = scored.file.parent / "build/comparisons"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    said = compare_from(scored.file, progress=Silent())
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert len(before) == 2 * len(Kind)
    assert "frozen-decoder: 40 steps" in said


def test_each_comparison_differs_from_the_reference_in_one_thing(scored: Scored) -> None:
    located = load_train(scored.file)
    own = plan_training(located.document, d_in=32)
    plans = {c.kind: c.plan for c in list_comparisons(located, d_in=32)}
    reference = dataclasses.replace(own, steps=40)
    assert plans == {
        Kind.REFERENCE: reference,
        Kind.SECOND_SEED: dataclasses.replace(reference, seed=1),
        Kind.FROZEN_DECODER: dataclasses.replace(reference, frozen_decoder=True),
        Kind.RANDOM_MODEL: reference,
    }


def test_at_the_trainers_own_budget_the_sae_itself_is_the_reference(scored: Scored) -> None:
    file = scored.file.with_name("same.yaml")
    file.write_text(TRAIN + COMPARISONS.replace("  steps: 40\n", ""))
    kinds = [c.kind for c in list_comparisons(load_train(file), d_in=32)]
    assert kinds == [Kind.SECOND_SEED, Kind.FROZEN_DECODER, Kind.RANDOM_MODEL]
    own = plan_training(load_train(file).document, d_in=32)
    assert is_trained_by(load_sae(str(scored.file.parent / "sae")), own)


def test_an_sae_of_another_plan_is_not_compared_with(scored: Scored) -> None:
    file = scored.file.with_name("longer.yaml")
    file.write_text(TRAIN + COMPARISONS.replace("steps: 40", "steps: 41"))
    for comparison in list_comparisons(load_train(file), d_in=32):
        found = load_comparison(comparison)
        assert isinstance(found, NotMeasured)
        assert "follows another plan" in found.reason


def test_another_sae_is_not_measured_against_these_comparisons(
    scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITKIT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(scored.file.parent / "sae", tmp_path / "sae")
    other = scored.file.with_name("other.yaml")
    other.write_text(scored.file.read_text().replace("steps: 60", "steps: 50"))
    found = score_from(
        other, sae=tmp_path / "sae", tokens=200, skip=SLOW, progress=Silent()
    ).measures
    value = by_name(found)["seed stability"].value
    assert value == NotMeasured("the scored SAE was not trained by this train.yaml's plan")


def test_a_file_without_comparisons_says_how_to_declare_them(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN)
    with pytest.raises(InvalidInput, match="no comparisons are declared"):
        compare_from(tmp_path / "train.yaml", progress=Silent())


def test_the_second_seed_must_be_another(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN + COMPARISONS.replace("seed: 1", "seed: 0"))
    with pytest.raises(InvalidInput, match="second_seed is 0, the seed of the SAE itself"):
        list_comparisons(load_train(tmp_path / "train.yaml"), d_in=32)
