"""Lookups: planted units score 1, noise its floor, and nothing but meaning changes a score."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score as sklearn_f1
from torch import Tensor

from auditkit.core.errors import InvalidInput, NonFiniteActivations
from auditkit.quality.lookups.lookup import (
    LookupKind,
    LookupScores,
    best_cut,
    f1_score,
    measure_lookup,
    shuffle_activations,
)
from auditkit.quality.lookups.ngram_text import NO_TOKEN, NgramText, halve_documents

SEEDS = st.integers(0, 2**31)
VOCABULARY = 30


def text_of(seed: int = 0, *, documents: int = 40, length: int = 100) -> NgramText:
    """Random tokens in documents of equal length, every other one fitted on."""
    generator = torch.Generator().manual_seed(seed)
    current = torch.randint(0, VOCABULARY, (documents, length), generator=generator)
    start = torch.full((documents, 1), NO_TOKEN)
    document = torch.arange(documents).repeat_interleave(length)
    return NgramText(
        current=current.flatten(),
        previous=torch.cat([start, current[:, :-1]], dim=1).flatten(),
        document=document,
        fitted=document % 2 == 0,
    )


def planted_units(text: NgramText) -> Tensor:
    """A unit for the token 3, one for whatever follows 5, one for the pair (7, 2), and noise."""
    generator = torch.Generator().manual_seed(9)
    noise = torch.rand(len(text), generator=generator)
    current, previous = text.current, text.previous
    columns = [
        torch.where(current == 3, 2.0, 0.0),
        torch.where(previous == 5, 2.0, 0.0),
        torch.where((previous == 7) & ((current == 2) | (current == 4) | (current == 6)), 2.0, 0.0),
        torch.where(noise > 0.95, noise, 0.0),
    ]
    return torch.stack(columns, dim=1)


def close(one: LookupScores, other: LookupScores) -> bool:
    columns = ("f1", "correlation", "fitted_f1", "always")
    return all(torch.allclose(getattr(one, c), getattr(other, c), atol=1e-9) for c in columns)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [(0, LookupKind.CURRENT), (1, LookupKind.PREVIOUS), (2, LookupKind.BIGRAM)],
)
def test_a_unit_that_is_a_lookup_is_predicted_whole(unit: int, kind: LookupKind) -> None:
    text = text_of()
    found = measure_lookup(planted_units(text), text, kind)
    assert found.f1[unit] == pytest.approx(1.0, abs=0.02)
    assert found.correlation[unit] > 0.97
    assert found.fitted_f1[unit] > 0.9


def test_a_bigram_lookup_backs_off_to_the_token() -> None:
    text = text_of()
    found = measure_lookup(planted_units(text), text, LookupKind.BIGRAM)
    assert found.f1[0] > 0.95


def test_the_wrong_lookup_knows_little() -> None:
    text = text_of()
    units = planted_units(text)
    assert measure_lookup(units, text, LookupKind.PREVIOUS).f1[0] < 0.15
    assert measure_lookup(units, text, LookupKind.CURRENT).f1[1] < 0.15


def test_noise_scores_no_more_than_always_firing() -> None:
    text = text_of()
    units = planted_units(text)
    for kind in LookupKind:
        found = measure_lookup(units, text, kind)
        assert found.f1[3] < found.always[3] + 0.04
        assert abs(float(found.correlation[3])) < 0.1


def test_shuffled_activations_drop_to_the_floor() -> None:
    text = text_of()
    units = planted_units(text)
    found = measure_lookup(shuffle_activations(units, text), text, LookupKind.BIGRAM)
    assert bool((found.f1 < found.always + 0.05).all())
    assert bool((found.correlation.abs() < 0.1).all())


def test_shuffling_keeps_every_value_in_its_half() -> None:
    text = text_of()
    units = planted_units(text)
    mixed = shuffle_activations(units, text)
    for half in (text.fitted, ~text.fitted):
        assert torch.equal(mixed[half].sort(0).values, units[half].sort(0).values)


def test_frequency_tells_rare_tokens_from_common_ones_and_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    document = torch.arange(40).repeat_interleave(100)
    common = torch.rand(4000, generator=generator) < 0.8
    rare = torch.randint(100, 1000, (4000,), generator=generator)
    current = torch.where(common, torch.randint(0, 5, (4000,), generator=generator), rare)
    text = NgramText(current=current, previous=current, document=document, fitted=document % 2 == 0)
    units = torch.stack([(~common).float(), (current == 3).float()], dim=1)
    found = measure_lookup(units, text, LookupKind.FREQUENCY)
    assert found.f1[0] > 0.99
    assert found.f1[1] < 0.5


def test_what_one_document_repeats_predicts_nothing_of_it() -> None:
    document = torch.arange(40).repeat_interleave(50)
    text = NgramText(
        current=document, previous=document, document=document, fitted=document % 2 == 0
    )
    fires = (document % 4 < 2).float().unsqueeze(1)
    found = measure_lookup(fires, text, LookupKind.BIGRAM)
    assert found.fitted_f1[0] == pytest.approx(2 / 3)
    assert found.f1[0] == pytest.approx(found.always[0])


@given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_scale_and_order_of_units_and_tokens_do_not_matter(seed: int, scale: float) -> None:
    text = text_of(documents=10, length=60)
    generator = torch.Generator().manual_seed(seed)
    units = torch.cat([planted_units(text)[:, [0, 1, 3]], torch.rand(600, 2) > 0.8], dim=1).float()
    found = measure_lookup(units, text, LookupKind.BIGRAM)
    order = torch.randperm(units.shape[1], generator=generator)
    moved = measure_lookup(units[:, order] * scale, text, LookupKind.BIGRAM)
    assert torch.allclose(moved.f1, found.f1[order], atol=1e-9)
    assert torch.allclose(moved.correlation, found.correlation[order], atol=1e-6)
    rows = torch.randperm(600, generator=generator)
    dealt = NgramText(
        current=text.current[rows],
        previous=text.previous[rows],
        document=text.document[rows],
        fitted=text.fitted[rows],
    )
    assert close(measure_lookup(units[rows], dealt, LookupKind.BIGRAM), found)


def test_units_are_scored_alike_however_many_there_are() -> None:
    text = text_of(documents=10, length=60)
    units = (torch.rand(600, 150, generator=torch.Generator().manual_seed(1)) > 0.9).float()
    together = measure_lookup(units, text, LookupKind.CURRENT)
    alone = [measure_lookup(units[:, [j]], text, LookupKind.CURRENT).f1 for j in (0, 70, 149)]
    assert torch.allclose(together.f1[[0, 70, 149]], torch.cat(alone), atol=1e-12)


@given(seed=SEEDS, tokens=st.integers(2, 40), levels=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_cut_is_the_best_of_all(seed: int, tokens: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(0, levels, (tokens, 3), generator=generator).double() / 7
    fires = torch.rand(tokens, 3, generator=generator) > 0.6
    fires[0] = True
    cut, f1 = best_cut(predicted, fires)
    tried = torch.stack([f1_score(predicted >= c, fires) for c in predicted.unique()])
    assert torch.allclose(f1, tried.max(0).values)
    assert torch.allclose(f1_score(predicted >= cut, fires), f1)


def test_f1_is_the_usual_one() -> None:
    generator = torch.Generator().manual_seed(0)
    called, fires = (torch.rand(50, 4, generator=generator) > 0.5 for _ in range(2))
    expected = [float(sklearn_f1(fires[:, j], called[:, j])) for j in range(4)]
    assert f1_score(called, fires).tolist() == pytest.approx(expected)


def test_a_unit_silent_in_one_half_is_not_scored() -> None:
    text = text_of()
    units = planted_units(text)
    units[~text.fitted, 1] = 0.0
    assert measure_lookup(units, text, LookupKind.CURRENT).units.tolist() == [0, 2, 3]


def test_a_document_in_both_halves_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 documents have tokens in both halves"):
        NgramText(
            current=torch.zeros(3, dtype=torch.int64),
            previous=torch.zeros(3, dtype=torch.int64),
            document=torch.tensor([0, 0, 1]),
            fitted=torch.tensor([True, False, False]),
        )


def test_an_empty_half_is_refused() -> None:
    tokens = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InvalidInput, match="one half of the text is empty"):
        NgramText(
            current=tokens,
            previous=tokens,
            document=tokens,
            fitted=torch.ones(3, dtype=torch.bool),
        )


def test_broken_activations_are_refused() -> None:
    text = text_of()
    units = planted_units(text)
    with pytest.raises(InvalidInput, match=r"3,999 rows of activations for a text of 4,000"):
        measure_lookup(units[:-1], text, LookupKind.CURRENT)
    with pytest.raises(InvalidInput, match="some are negative"):
        measure_lookup(-units, text, LookupKind.CURRENT)
    with pytest.raises(NonFiniteActivations, match="NaN or infinite"):
        measure_lookup(units / 0, text, LookupKind.CURRENT)


def test_half_of_the_documents_is_fitted_on_whatever_their_order() -> None:
    names = [f"source/{n}" for n in range(21)]
    fitted = dict(zip(names, halve_documents(names), strict=True))
    assert sum(fitted.values()) == 11
    turned = names[::-1] + names
    assert halve_documents(turned) == [fitted[name] for name in turned]
    assert halve_documents(names, seed=1) != list(fitted.values())
