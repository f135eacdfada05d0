"""Absorption: planted at a known rate it is found, and what is merely missing is not it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.quality.failures.absorption import AbsorptionReport, ClassedWords, measure_absorption
from auditkit.quality.failures.letter_probes import class_f1, find_main_latents, fit_probes
from auditkit.tensors import SparseLatents

D_IN = 40
CLASSES = 4
CHILDREN = 5
NAMES = ["a", "b", "c", "d"]
D_SAE = CLASSES + CHILDREN + 10


@dataclass(frozen=True)
class World:
    """Words of four classes. A fifth of class 0's words belong to one of five children, each with
    a feature of its own; ten other features come and go. The dictionary is the features'."""

    train: ClassedWords
    test: ClassedWords
    directions: Tensor


def world(fault: str, *, seed: int = 0, words: int = 2500, readable: bool = True) -> World:
    """`absorbed`: a child's latent says "class 0" for its parent's, which is silent then.
    `missing`: the parent's latent is silent for the children's words, and nothing stands in.
    `leaning`: the child's latent says "class 0" as well, beside its parent's.
    `healthy`: every latent fires where its feature is."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator))[0][:D_SAE]
    labels = torch.randint(0, CLASSES, (words,), generator=generator)
    strength = 2 + torch.rand(words, generator=generator)
    child = torch.randint(0, 5 * CHILDREN, (words,), generator=generator)
    child = torch.where(labels == 0, child, 5 * CHILDREN)
    truth = torch.zeros(words, D_SAE)
    truth[torch.arange(words), labels] = strength
    for n in range(CHILDREN):
        truth[child == n, CLASSES + n] = strength[child == n]
    others = torch.rand(words, 10, generator=generator)
    truth[:, -10:] = torch.where(others > 0.7, others, 0.0)
    x = truth @ features + 0.05 * torch.randn(words, D_IN, generator=generator)
    latents, directions = truth.clone(), features.clone()
    if fault in ("absorbed", "missing"):
        latents[child < CHILDREN, 0] = 0.0
    if fault in ("absorbed", "leaning"):
        directions[CLASSES : CLASSES + CHILDREN] += features[0]
    if not readable:
        labels = torch.randint(0, CLASSES, (words,), generator=generator)
    cut = round(0.6 * words)
    train, test = (
        ClassedWords(x=x[r], labels=labels[r], latents=SparseLatents.from_dense(latents[r]))
        for r in (slice(0, cut), slice(cut, None))
    )
    return World(train=train, test=test, directions=directions)


def measured(found: World) -> AbsorptionReport:
    return measure_absorption(found.train, found.test, found.directions, NAMES)


def value(measure: Measure) -> float:
    assert isinstance(measure, Measured), measure
    return measure.value


def planted_share(found: World) -> float:
    """Share of class 0's test words whose main latent is silent."""
    own = found.test.labels == 0
    return float((found.test.latents.to_dense()[own, 0] == 0).double().mean())


def test_planted_absorption_is_found_at_its_rate() -> None:
    found = world("absorbed")
    report = measured(found)
    first, *others = report.classes
    assert first.main_latents == (0,)
    assert value(first.absorption) == pytest.approx(planted_share(found), abs=0.01)
    assert planted_share(found) == pytest.approx(0.2, abs=0.04)
    assert value(first.plain_missing) == 0.0
    assert value(first.excess) == pytest.approx(1.0)
    assert value(report.excess) == pytest.approx(1.0)
    assert value(first.chance) < 0.02
    for letter in others:
        assert value(letter.absorption) == 0.0


def test_what_is_merely_missing_is_not_absorbed() -> None:
    found = world("missing")
    first = measured(found).classes[0]
    assert value(first.absorption) == 0.0
    assert value(first.plain_missing) == pytest.approx(planted_share(found), abs=0.01)
    assert isinstance(first.excess, NotMeasured)
    assert first.excess.reason == "no recognised word of one of the two kinds"


def test_latents_that_lean_on_a_main_one_beside_which_they_fire_absorb_nothing() -> None:
    first = measured(world("leaning")).classes[0]
    assert value(first.absorption) == 0.0
    assert value(first.plain_missing) == 0.0
    assert isinstance(first.carried, Measured)
    assert first.carried.n > 20
    assert value(first.excess) == 0.0


def test_a_healthy_dictionary_absorbs_and_misses_nothing() -> None:
    report = measured(world("healthy"))
    assert value(report.absorption) == 0.0
    assert value(report.plain_missing) == 0.0
    assert value(report.main_f1) == 1.0
    assert value(report.main_latents) == 1.0
    assert value(report.probe_f1) > 0.98


def test_the_overall_rate_is_the_mean_over_classes() -> None:
    report = measured(world("absorbed"))
    rates = [value(c.absorption) for c in report.classes]
    assert value(report.absorption) == pytest.approx(sum(rates) / CLASSES)
    assert isinstance(report.absorption, Measured)
    assert report.absorption.n == CLASSES
    assert report.absorption.interval is not None


def test_classes_that_cannot_be_read_make_the_test_not_applicable() -> None:
    report = measured(world("absorbed", readable=False))
    assert value(report.probe_f1) < 0.6
    for measure in (report.absorption, report.plain_missing, report.excess, report.chance):
        assert isinstance(measure, NotMeasured)
        assert measure.reason.startswith("not applicable: the probes' mean F1 is 0.")
        assert "below 0.6" in measure.reason
    assert all(isinstance(c.absorption, NotMeasured) for c in report.classes)


def test_one_class_that_cannot_be_read_is_left_out_alone() -> None:
    found = world("healthy")
    parts: list[ClassedWords] = []
    for words in (found.train, found.test):
        generator = torch.Generator().manual_seed(len(words.x))
        mixed = torch.where(
            (words.labels == 3) | (torch.rand(len(words.x), generator=generator) < 0.1),
            torch.where(torch.rand(len(words.x), generator=generator) < 0.5, 3, 2),
            words.labels,
        )
        parts.append(replace(words, labels=mixed))
    report = measure_absorption(parts[0], parts[1], found.directions, NAMES)
    assert value(report.probe_f1) > 0.6
    last = report.classes[3]
    assert isinstance(last.absorption, NotMeasured)
    assert last.absorption.reason.startswith("not applicable: its probe's F1 is")
    assert isinstance(report.absorption, Measured)
    assert report.absorption.n == 3


def test_scale_and_order_of_latents_do_not_matter() -> None:
    found = world("absorbed")
    generator = torch.Generator().manual_seed(1)
    scale = 0.1 + 10 * torch.rand(D_SAE, generator=generator)
    order = torch.randperm(D_SAE, generator=generator)

    def moved(words: ClassedWords) -> ClassedWords:
        dense = (words.latents.to_dense() * scale)[:, order]
        return replace(words, latents=SparseLatents.from_dense(dense))

    directions = (found.directions / scale.unsqueeze(1))[order]
    report = measure_absorption(moved(found.train), moved(found.test), directions, NAMES)
    expected = measured(found)
    for one, other in zip(report.classes, expected.classes, strict=True):
        assert one.absorption == other.absorption
        assert one.plain_missing == other.plain_missing
        assert one.excess == other.excess
        assert sorted(order[list(one.main_latents)].tolist()) == sorted(other.main_latents)


def test_words_and_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"one row per word in every column, not \[2, 3\]"):
        ClassedWords(
            x=torch.zeros(3, D_IN),
            labels=torch.zeros(3, dtype=torch.int64),
            latents=SparseLatents.from_dense(torch.zeros(2, D_SAE)),
        )


def test_probes_do_not_depend_on_the_scale_of_coordinates() -> None:
    words = world("healthy", words=500).train
    scale = torch.logspace(-2, 2, D_IN)
    plain = fit_probes(words.x, words.labels, CLASSES)
    scaled = fit_probes(words.x * scale, words.labels, CLASSES)
    assert torch.allclose(plain.scores(words.x), scaled.scores(words.x * scale), atol=1e-2)
    assert plain.directions.norm(dim=1).tolist() == pytest.approx([1.0] * CLASSES)


def test_too_few_words_make_no_probe() -> None:
    with pytest.raises(InvalidInput, match="at least 10 words, not 9"):
        fit_probes(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64), 1)


def test_a_class_split_between_two_latents_has_both() -> None:
    generator = torch.Generator().manual_seed(0)
    member = torch.rand(400, generator=generator) < 0.3
    first = torch.rand(400, generator=generator) < 0.5
    noise = (torch.rand(400, 6, generator=generator) < 0.2).float()
    own = torch.stack([member & first, member & ~first], dim=1).float()
    found = find_main_latents(SparseLatents.from_dense(torch.cat([noise, own], dim=1)), member)
    assert sorted(found.latents.tolist()) == [6, 7]
    assert found.f1[1] == 1.0


def test_a_class_without_members_has_no_latents() -> None:
    latents = SparseLatents.from_dense(torch.ones(5, 3))
    found = find_main_latents(latents, torch.zeros(5, dtype=torch.bool))
    assert found.latents.tolist() == []


def test_f1_of_a_rare_class_is_not_measured() -> None:
    true = torch.tensor([True] * 4 + [False] * 6)
    assert class_f1(true, true) == NotMeasured("4 words of this class, fewer than 5")
    assert class_f1(~true, torch.ones(10, dtype=torch.bool)) == Measured(value=0.75, n=10)
