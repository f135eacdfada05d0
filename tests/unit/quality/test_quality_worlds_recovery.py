"""Measures of what a dictionary found of a planted world: floors, ceilings, and what must not
change them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measured, NotMeasured
from auditkit.quality.worlds import (
    GateCheck,
    Oracle,
    PlantedBatch,
    PlantedWorld,
    Reader,
    Reading,
    Recovery,
    WorldKind,
    ceiling_readers,
    floor_readers,
    gate,
    make_world,
    measure_features,
    measure_recovery,
)
from auditkit.quality.worlds.matching import Matching, over_floor
from auditkit.quality.worlds.recovery import feature_f1, read_totals
from auditkit.quality.worlds.totals import FiringTotals
from auditkit.tensors import SparseLatents, sparse_decode

TOKENS = 4_096
WORLDS = {kind: make_world(kind) for kind in WorldKind}
GATE = WORLDS[WorldKind.INDEPENDENT]
FAMILY = WORLDS[WorldKind.HIERARCHICAL]


@dataclass(frozen=True)
class Altered:
    """What the oracle reads, seen through a map of the dense latents and other directions."""

    world: PlantedWorld
    directions: torch.Tensor
    alter: object

    def read(self, batch: PlantedBatch) -> Reading:
        assert callable(self.alter)
        latents = SparseLatents.from_dense(self.alter(batch.amounts.to_dense()))
        return Reading(
            latents=latents, x_hat=sparse_decode(latents, self.directions) + self.world.bias
        )


def _measure(world: PlantedWorld, reader: Reader, tokens: int = TOKENS) -> Recovery:
    return measure_recovery(world, reader, tokens=tokens)


def _value(recovery: Recovery, name: str) -> float:
    found = getattr(recovery, name)
    assert isinstance(found, Measured), f"{name}: {found}"
    return found.value


def _altered(world: PlantedWorld, alter: object, directions: torch.Tensor) -> Recovery:
    return _measure(world, Altered(world, directions, alter))


@pytest.mark.parametrize("kind", [k for k in WorldKind if k is not WorldKind.CROWDED])
def test_the_planted_dictionary_with_an_oracle_is_the_ceiling(kind: WorldKind) -> None:
    found = _measure(WORLDS[kind], Oracle.of(WORLDS[kind]))
    for name in ("recall", "precision", "recall_found", "mcc", "f1", "uniqueness", "shrinkage"):
        assert _value(found, name) == pytest.approx(1, abs=1e-6), name
    assert _value(found, "recall_over_random") == pytest.approx(1)
    assert _value(found, "explained_variance") == pytest.approx(1, abs=1e-9)
    assert _value(found, "splitting") == _value(found, "dead_rate") == 0
    assert _value(found, "decoder_norm_error") < 1e-5


def test_too_few_latents_for_the_features_lower_the_ceiling() -> None:
    world = WORLDS[WorldKind.CROWDED]
    found = _measure(world, Oracle.of(world), 16_384)
    assert _value(found, "precision") == pytest.approx(1)
    assert _value(found, "recall_found") == pytest.approx(0.25)
    assert 0.5 < _value(found, "explained_variance") < 0.9
    assert _value(found, "f1") < 0.5


@pytest.mark.parametrize("kind", list(WorldKind))
def test_random_directions_are_the_floor(kind: WorldKind) -> None:
    world = WORLDS[kind]
    found = _measure(world, floor_readers(world)["random dictionary"])
    assert abs(_value(found, "recall_over_random")) < 0.05
    assert abs(_value(found, "precision_over_random")) < 0.05
    assert _value(found, "recall_found") == 0
    assert _value(found, "f1") < 0.3
    best = _measure(world, ceiling_readers(world)["planted, oracle"])
    for name in ("recall", "mcc", "f1", "explained_variance", "uniqueness"):
        assert _value(found, name) < _value(best, name)


def test_independent_components_find_more_than_principal_ones_and_less_than_there_is() -> None:
    floors = floor_readers(GATE)
    pca, ica = _measure(GATE, floors["PCA"]), _measure(GATE, floors["ICA"])
    assert _value(pca, "recall_over_random") < 0.1
    assert 0.2 < _value(ica, "recall_over_random") < 0.8
    assert _value(pca, "f1") < _value(ica, "f1") < 0.6


def test_the_order_of_latents_changes_nothing() -> None:
    order = torch.randperm(FAMILY.n_features, generator=torch.Generator().manual_seed(1))
    noisy = _half(FAMILY)
    straight = _altered(FAMILY, noisy, FAMILY.features)
    mixed = _altered(FAMILY, lambda a: noisy(a)[:, order], FAMILY.features[order])
    for name, value in straight.named().items():
        other = mixed.named()[name]
        assert isinstance(value, Measured)
        assert isinstance(other, Measured)
        assert other.value == pytest.approx(value.value, abs=1e-6), name


def test_smaller_latents_with_longer_directions_change_only_the_norm() -> None:
    scale = torch.linspace(0.5, 2, FAMILY.n_features)
    noisy = _half(FAMILY)
    straight = _altered(FAMILY, noisy, FAMILY.features).named()
    scaled = _altered(FAMILY, lambda a: noisy(a) / scale, FAMILY.features * scale[:, None]).named()
    assert isinstance(scaled["decoder_norm_error"], Measured)
    assert scaled["decoder_norm_error"].value == pytest.approx(1, abs=1e-5)
    for name in straight.keys() - {"decoder_norm_error"}:
        one, other = straight[name], scaled[name]
        assert isinstance(one, Measured)
        assert isinstance(other, Measured)
        assert other.value == pytest.approx(one.value, abs=1e-5), name


def test_a_world_in_other_units_is_judged_the_same() -> None:
    larger = replace(FAMILY, magnitudes=FAMILY.magnitudes * 8, bias=FAMILY.bias * 8)
    noisy = _half(FAMILY)
    one = _altered(FAMILY, noisy, FAMILY.features).named()
    other = _altered(larger, noisy, larger.features).named()
    for name, value in one.items():
        found = other[name]
        assert isinstance(value, Measured)
        assert isinstance(found, Measured)
        assert found.value == pytest.approx(value.value, abs=1e-5), name


def test_counts_do_not_depend_on_how_tokens_come_in_batches() -> None:
    reader = ceiling_readers(FAMILY)["planted, transpose"]
    whole = FAMILY.batch(0, tokens=1000)
    reading = reader.read(whole)
    once, parts = _totals(FAMILY), _totals(FAMILY)
    once.add(whole, reading)
    for start, stop in ((0, 1), (1, 300), (300, 1000)):
        part = PlantedBatch(x=whole.x[start:stop], amounts=whole.amounts.rows(start, stop))
        latents = reading.latents.rows(start, stop)
        parts.add(part, Reading(latents=latents, x_hat=reading.x_hat[start:stop]))
    assert torch.equal(once.both, parts.both)
    assert torch.equal(once.feature_fires, parts.feature_fires)
    assert torch.allclose(once.products, parts.products, rtol=1e-5)
    assert torch.allclose(once.squares, parts.squares, rtol=1e-5)


def test_counts_agree_with_a_plain_count() -> None:
    reader = ceiling_readers(GATE)["planted, transpose"]
    batch = GATE.batch(0, tokens=500)
    a, f = batch.amounts.to_dense(), reader.read(batch).latents.to_dense()
    totals = _totals(GATE)
    totals.add(batch, reader.read(batch))
    g, j = 5, int(f.count_nonzero(0).argmax())
    on = (a[:, g] > 0) & (f[:, j] != 0)
    assert int(totals.both[g, j]) == int(on.sum())
    assert float(totals.squares[g, j]) == pytest.approx(float(a[on, g].square().sum()), rel=1e-5)
    assert float(totals.products[g, j]) == pytest.approx(float((a[:, g] * f[:, j]).sum()), rel=1e-5)


def test_a_latent_against_a_feature_has_not_found_it() -> None:
    features = torch.eye(3)
    matching = Matching.of(features, -features, torch.ones(3, dtype=torch.bool))
    recall = matching.recall()
    assert isinstance(recall, Measured)
    assert recall.value == 0


def test_dead_latents_are_no_match() -> None:
    live = torch.tensor([True, False, True])
    matching = Matching.of(torch.eye(3), torch.eye(3), live)
    found, mcc = matching.recall_above(), matching.mcc()
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(2 / 3)
    assert mcc == Measured(value=1.0, n=2)


def test_copies_of_a_latent_lower_uniqueness_and_not_the_cosines() -> None:
    copied = torch.arange(GATE.n_features) // 2
    found = _altered(GATE, lambda a: a[:, copied], GATE.features[copied])
    assert _value(found, "precision") == pytest.approx(1)
    assert _value(found, "uniqueness") == 0.5
    assert _value(found, "recall_found") == 0.5


def test_f1_falls_where_too_many_latents_fire() -> None:
    many = _altered(GATE, lambda a: a + 1e-3, GATE.features)
    assert _value(many, "recall") == pytest.approx(1)
    assert _value(many, "explained_variance") > 0.9
    assert _value(many, "f1") < 0.2


def test_half_sized_latents_are_shrunk_by_half() -> None:
    found = _altered(GATE, lambda a: a / 2, GATE.features)
    assert _value(found, "shrinkage") == pytest.approx(0.5, abs=1e-6)


def test_two_latents_that_share_a_feature_split_it() -> None:
    """Each of a pair takes the tokens on which its feature is above or below a bound."""

    def split(a: torch.Tensor) -> torch.Tensor:
        return torch.cat([a * (a > 1), a * (a <= 1)], dim=1)

    found = _altered(GATE, split, GATE.features.repeat(2, 1))
    assert _value(found, "splitting") > 0.9
    assert _value(found, "split_features") > 0.9
    assert _value(_measure(GATE, Oracle.of(GATE)), "split_features") == 0


def test_a_childs_own_latent_does_not_split_its_parent() -> None:
    assert _value(_measure(FAMILY, Oracle.of(FAMILY)), "splitting") == 0


def test_a_child_that_does_its_parents_work_absorbs_it() -> None:
    assert FAMILY.parents is not None
    above = torch.from_numpy(FAMILY.parents)
    child = (above != torch.arange(len(above))).nonzero().squeeze(1)

    def absorb(a: torch.Tensor) -> torch.Tensor:
        silent = torch.zeros_like(a, dtype=torch.int32)
        silent.index_add_(1, above[child], (a[:, child] > 0).int())
        return a * (silent == 0)

    leaning = FAMILY.features.clone()
    leaning[child] += 0.7 * FAMILY.features[above[child]]
    assert _value(_altered(FAMILY, absorb, leaning), "absorption_excess") == pytest.approx(1)
    # Without a lean the parent is plainly missed, not absorbed.
    upright = _altered(FAMILY, absorb, FAMILY.features)
    assert _value(upright, "absorption_excess") == 0


def test_missing_a_parent_everywhere_is_no_absorption() -> None:
    assert FAMILY.parents is not None
    above = torch.from_numpy(FAMILY.parents)
    parent = above == torch.arange(len(above))
    generator = torch.Generator().manual_seed(0)

    def miss(a: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(a.shape, generator=generator) < 0.5
        return torch.where(parent & ~kept, 0.0, a)

    leaning = FAMILY.features.clone()
    leaning[~parent] += 0.7 * FAMILY.features[above[~parent]]
    found = _altered(FAMILY, miss, leaning)
    assert abs(_value(found, "absorption_excess")) < 0.1


def test_absorption_is_not_measured_without_a_hierarchy() -> None:
    found = _measure(GATE, Oracle.of(GATE)).absorption_excess
    assert found == NotMeasured("this world has no hierarchy")


def test_a_dictionary_that_never_fires_has_found_nothing() -> None:
    found = _altered(GATE, torch.zeros_like, GATE.features)
    assert isinstance(found.recall, NotMeasured)
    assert isinstance(found.f1, NotMeasured)
    assert _value(found, "dead_rate") == 1
    assert not gate(GATE, found).passed


def test_features_one_by_one_average_to_the_whole() -> None:
    reader = ceiling_readers(GATE)["planted, transpose"]
    each = measure_features(GATE, reader, tokens=TOKENS)
    assert not isinstance(each, NotMeasured)
    whole = _measure(GATE, reader)
    assert float(each.f1.mean()) == pytest.approx(_value(whole, "f1"))
    assert float(each.cosines.mean()) == pytest.approx(_value(whole, "recall"))


def test_f1_of_a_latent_is_that_of_its_counts() -> None:
    totals = read_totals(GATE, Oracle.of(GATE), tokens=512, stream=0)
    matching = Matching.of(GATE.features, GATE.features, totals.latent_fires > 0)
    assert torch.equal(feature_f1(totals, matching), torch.ones(GATE.n_features).double())


def test_the_gate_says_which_measure_fell_short() -> None:
    verdict = gate(GATE, _altered(GATE, lambda a: a + 1e-3, GATE.features))
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith("F1 is 0.06")
    assert gate(GATE, _measure(GATE, Oracle.of(GATE))).passed


@pytest.mark.parametrize("kind", [k for k in WorldKind if k is not WorldKind.INDEPENDENT])
def test_only_a_gate_world_is_a_gate(kind: WorldKind) -> None:
    world = WORLDS[kind]
    with pytest.raises(InvalidInput, match="is no gate world"):
        gate(world, _measure(GATE, Oracle.of(GATE), 128))


def test_a_gate_world_must_have_features_that_can_be_told_apart() -> None:
    features = GATE.features.clone()
    features[::2] = features[1::2]
    with pytest.raises(InvalidInput, match=r"with ρ 1\.000"):
        gate(replace(GATE, features=features), _measure(GATE, Oracle.of(GATE), 128))


def test_what_was_not_measured_does_not_pass() -> None:
    check = GateCheck(measure="F1", value=NotMeasured("no live latents"), bound=0.9)
    assert not check.passed
    assert check.reason == "F1 was not measured (no live latents), at least 0.9 needed"


def test_a_floor_of_one_leaves_nothing_to_measure() -> None:
    assert isinstance(over_floor(Measured(value=1.0, n=1), 1.0), NotMeasured)


def test_totals_of_another_world_are_refused() -> None:
    with pytest.raises(MismatchError, match="128 features and 7 latents"):
        FiringTotals(n_features=128, d_sae=7).add(
            GATE.batch(0, tokens=10), Oracle.of(GATE).read(GATE.batch(0, tokens=10))
        )


def _totals(world: PlantedWorld) -> FiringTotals:
    return FiringTotals(n_features=world.n_features, d_sae=world.d_sae)


def _half(world: PlantedWorld) -> object:
    """A dictionary with faults: a quarter of its latents dead, others too small or too keen."""
    n = world.n_features

    def alter(a: torch.Tensor) -> torch.Tensor:
        f = a.clone()
        f[:, : n // 4] = 0
        f[:, n // 4 : n // 2] *= 0.5
        f[:, -n // 4 :] += 0.25 * a.roll(1, dims=1)[:, -n // 4 :]
        return f

    return alter
