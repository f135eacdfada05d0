"""The gate from both sides: every objective passes, and no trainer with a fault does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.core.measured import Measured
from auditkit.pipeline.planted.world_training import (
    store_world,
    world_budget,
    world_objective,
    world_objectives,
)
from auditkit.pipeline.planted.worlds import LEAST_F1, TRAINED, GateRun, judge_run, train_in_world
from auditkit.quality.worlds import PlantedWorld, gate_world, make_world
from auditkit.quality.worlds.world import WorldKind
from auditkit.training import Objective, TopK, objectives
from tests.faulty_training import Fault, Faulty

GATE = gate_world()
LIFTED = replace(GATE, bias=GATE.bias * 6)
"""The gate world around a mean that a trainer without biases cannot take off."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where activations are written once for all trainings."""
    return tmp_path_factory.mktemp("worlds")


def _judge(name: str, objective: Objective, folder: Path, *, world: PlantedWorld = GATE) -> GateRun:
    """With a quicker schedule where that will do. In torch, because compiling takes longer."""
    budget = world_budget(name, world)
    if name.endswith("topk"):
        budget = replace(budget, steps=600, lr=1e-2)
    run = train_in_world(
        world,
        objective,
        budget,
        floors=False,
        folder=folder / world.digest[:8],
        kernel="torch",
    )
    return judge_run(name, run, least_f1=LEAST_F1.get(name, 0.9))


def test_every_objective_of_the_registry_is_gated() -> None:
    assert set(world_objectives()) == set(objectives())


@pytest.mark.parametrize("name", world_objectives())
def test_a_correct_trainer_passes(name: str, folder: Path) -> None:
    judged = _judge(name, world_objective(name, GATE), folder)
    assert judged.passed, judged.verdict.reasons


@pytest.mark.parametrize("fault", list(Fault))
def test_a_topk_trainer_with_a_fault_does_not_pass(fault: Fault, folder: Path) -> None:
    topk = TopK(k=GATE.k, k_aux=32, aux_coefficient=0.0 if fault is Fault.DEAD_START else 1 / 32)
    world = LIFTED if fault is Fault.NO_BIASES else GATE
    judged = _judge("topk", Faulty(inner=topk, fault=fault.value), folder, world=world)
    assert not judged.passed


def test_the_lifted_world_is_passed_with_biases(folder: Path) -> None:
    assert _judge("topk", world_objective("topk", LIFTED), folder, world=LIFTED).passed


@pytest.mark.parametrize("k", [1, 16])
def test_a_k_wrong_by_four_does_not_pass(k: int, folder: Path) -> None:
    judged = _judge("topk", TopK(k=k, k_aux=32), folder)
    assert not judged.passed
    assert any(reason.startswith("F1") for reason in judged.verdict.reasons)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("batch_topk", Fault.SHUFFLED_TOKENS),
        ("matryoshka_batch_topk", Fault.GROWING_DECODER),
        *((name, Fault.FROZEN_ENCODER) for name in world_objectives() if name != "topk"),
    ],
)
def test_other_trainers_with_a_fault_do_not_pass(name: str, fault: Fault, folder: Path) -> None:
    faulty = Faulty(inner=world_objective(name, GATE), fault=fault.value)
    judged = _judge(name, faulty, folder)
    assert not judged.passed


def test_a_gate_run_says_what_it_found(folder: Path) -> None:
    budget = replace(world_budget("topk", GATE), steps=40)
    run = train_in_world(
        GATE,
        world_objective("topk", GATE),
        budget,
        folder=folder / GATE.digest[:8],
        kernel="torch",
    )
    judged = judge_run("topk", run)
    text, document = judged.text(), json.loads(judged.json())
    assert text.startswith("topk does not pass the gate: world independent/small/0, 128 features")
    for name in ("trained", "frozen decoder", "random dictionary", "PCA", "ICA", "planted, oracle"):
        assert name in text
        assert name in document["recoveries"]
    assert document["passed"] is False
    assert len(document["reasons"]) == len(judged.verdict.reasons)
    assert document["tokens_seen"] == 40 * 512
    assert len(run.features(TRAINED).cosines) == GATE.n_features
    oracle = judged.recoveries["planted, oracle"].f1
    assert isinstance(oracle, Measured)
    assert oracle.value == 1


def test_a_world_is_written_once_and_read_again(tmp_path: Path) -> None:
    store = store_world(GATE, tmp_path, rows=3000)
    again = store_world(GATE, tmp_path, rows=3000)
    x = torch.cat([b.x for b in GATE.batches(3000, stream=1)])
    assert torch.equal(store.rows(torch.arange(3000)), x.half().float())
    assert again.meta == store.meta
    with pytest.raises(MismatchError, match="activations of another harvest"):
        store_world(make_world(WorldKind.CORRELATED), tmp_path, rows=3000)


def test_an_objective_without_settings_is_refused() -> None:
    with pytest.raises(InvalidInput, match="objective 'sparse_pca' has no settings"):
        world_objective("sparse_pca", GATE)
