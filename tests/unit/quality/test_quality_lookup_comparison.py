"""Families beside one another: medians, pairs of equal density, bands, floors."""

from __future__ import annotations

import pytest
import torch

from auditkit.core.errors import InvalidInput
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality.lookups.comparison import (
    ALWAYS,
    BEST,
    FREQUENCY,
    SHUFFLED,
    FamilyScores,
    Units,
    compare_by_lookup,
    density_bands,
    measure_median,
)
from auditkit.quality.lookups.ngram_text import NO_TOKEN, NgramText


@pytest.fixture(scope="module")
def compared() -> tuple[FamilyScores, FamilyScores]:
    generator = torch.Generator().manual_seed(0)
    current = torch.randint(0, 20, (30, 80), generator=generator)
    start = torch.full((30, 1), NO_TOKEN)
    document = torch.arange(30).repeat_interleave(80)
    text = NgramText(
        current=current.flatten(),
        previous=torch.cat([start, current[:, :-1]], dim=1).flatten(),
        document=document,
        fitted=document % 2 == 0,
    )
    by_current = [text.current == n for n in range(5)]
    by_previous = [text.previous == n for n in range(5)]
    planted = torch.stack([*by_current, *by_previous], dim=1).float()
    noise = (torch.rand(planted.shape, generator=generator) < 0.05).float()
    noise[:, 9] = 0.0
    bands = density_bands(planted[text.fitted].mean(0), parts=2)
    found = compare_by_lookup(
        Units(name="planted", activations=planted),
        [Units(name="noise", activations=noise, note="drawn by chance")],
        text,
        bands=bands,
    )
    return found[0], found[1]


def value(measure: Measured | NotMeasured) -> float:
    assert isinstance(measure, Measured)
    return measure.value


def test_each_unit_is_scored_by_its_own_best_lookup(
    compared: tuple[FamilyScores, FamilyScores],
) -> None:
    planted, noise = compared
    assert value(planted.row(BEST).f1) > 0.98
    assert value(planted.row("current token").f1) < 0.8
    assert value(noise.row(BEST).f1) < 0.2


def test_pairs_are_compared_with_an_interval(
    compared: tuple[FamilyScores, FamilyScores],
) -> None:
    planted, noise = compared
    better = noise.row(BEST).better_f1
    assert isinstance(better, Measured)
    assert better.interval is not None
    assert better.interval.low > 0.7
    assert better.n == 9
    assert value(planted.row(BEST).better_f1) == 0.0


def test_floors_stand_beside_every_family(compared: tuple[FamilyScores, FamilyScores]) -> None:
    for family in compared:
        always = value(family.row(ALWAYS).f1)
        assert value(family.row(SHUFFLED).f1) < always + 0.05
        assert value(family.row(FREQUENCY).f1) < always + 0.1
        assert isinstance(family.row(ALWAYS).correlation, NotMeasured)


def test_unscored_units_are_counted(compared: tuple[FamilyScores, FamilyScores]) -> None:
    planted, noise = compared
    assert (planted.units, planted.unscored) == (10, 0)
    assert (noise.units, noise.unscored) == (10, 1)
    assert noise.note == "drawn by chance"


def test_bands_hold_every_unit_once(compared: tuple[FamilyScores, FamilyScores]) -> None:
    planted, _ = compared
    sizes = [m.n for _, m in planted.bands if isinstance(m, Measured)]
    assert sizes == [5, 5]


def test_a_family_of_another_size_is_refused() -> None:
    document = torch.arange(4)
    text = NgramText(
        current=document, previous=document, document=document, fitted=document % 2 == 0
    )
    with pytest.raises(InvalidInput, match="noise has 2 units, and planted has 3"):
        compare_by_lookup(
            Units(name="planted", activations=torch.ones(4, 3)),
            [Units(name="noise", activations=torch.ones(4, 2))],
            text,
        )


def test_a_median_has_an_interval_around_it() -> None:
    found = measure_median(torch.arange(101).double())
    assert isinstance(found, Measured)
    assert found.value == 50
    assert found.interval is not None
    assert 30 < found.interval.low < 50 < found.interval.high < 70
    assert isinstance(measure_median(torch.empty(0).double()), NotMeasured)


def test_fewer_units_than_bands_make_fewer_bands() -> None:
    assert len(density_bands(torch.tensor([0.1, 0.2]), parts=3)) == 2
