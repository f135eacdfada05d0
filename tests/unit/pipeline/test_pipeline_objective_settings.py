"""train.yaml chooses the objective; what does not belong to it is refused before any harvest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditkit.config import TrainDocument, load_train
from auditkit.core.errors import DocumentError, InvalidInput, NotSupportedYet
from auditkit.core.progress import Silent
from auditkit.pipeline.objective_settings import plan_objective
from auditkit.pipeline.train import check_training, plan_training, train_from
from auditkit.training import (
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Mesh,
    ReluL1,
    TopK,
    is_plan_of_card,
)

ROOT = Path(__file__).resolve().parents[3]
BASE = """format: auditkit-train/1
name: tiny
model: {source: tiny}
harvest: {hook_point: blocks.1.hook_resid_post, folder: a, sources: [{name: a, path: a.txt}]}
output: sae
trainer:
  d_sae: 96
  steps: 100
  learning_rate: 0.001
"""


def document(tmp_path: Path, *lines: str) -> TrainDocument:
    path = tmp_path / "train.yaml"
    path.write_text(BASE + "".join(f"  {line}\n" for line in lines))
    return load_train(path).document


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["k: 8"], TopK(k=8)),
        (["architecture: topk", "k: 8", "k_aux: 3"], TopK(k=8, k_aux=3)),
        (["objective: topk", "k: 8", "aux_coefficient: 0.5"], TopK(k=8, aux_coefficient=0.5)),
        (
            ["objective: batch_topk", "k: 8", "threshold_rate: 0.2"],
            BatchTopK(k=8, threshold_rate=0.2),
        ),
        (
            ["objective: matryoshka_batch_topk", "k: 8", "group_shares: [0.25, 1.0]"],
            MatryoshkaBatchTopK(k=8, group_shares=(0.25, 1.0)),
        ),
        (
            ["objective: jumprelu", "target_l0: 8", "bandwidth: 0.02", "log_threshold: true"],
            JumpReLU(target_l0=8.0, bandwidth=0.02, log_threshold=True),
        ),
        (
            ["objective: relu_l1", "l1: 0.3", "resample_at: [20, 50]"],
            ReluL1(l1=0.3, resample_at=(20, 50)),
        ),
        (["objective: gated", "l1: 1"], Gated(l1=1.0)),
    ],
)
def test_the_trainer_block_names_objective_and_settings(tmp_path, lines, expected):
    found = document(tmp_path, *lines)
    assert plan_objective(found) == expected
    assert plan_training(found, d_in=32).objective == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["objective: topkk", "k: 8"], "trainer.objective is topkk, which does not exist"),
        ([], "trainer.k is missing, which topk needs"),
        (["k: 8", "l1: 0.3"], "trainer.l1 is no setting of topk"),
        (["objective: gated", "l1: 0.3", "k: 3"], "trainer.k is no setting of gated"),
        (["objective: jumprelu"], "target_l0 is None"),
        (["objective: matryoshka_batch_topk", "k: 8", "group_shares: [0.5]"], "group_shares"),
    ],
)
def test_settings_that_an_objective_does_not_have_or_lacks_are_refused(tmp_path, lines, message):
    with pytest.raises(InvalidInput, match=message):
        plan_objective(document(tmp_path, *lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["k: 97"], r"k is 97, expected 1 to d_sae \(96\)"),
        (["objective: jumprelu", "target_l0: 97"], r"target_l0 is 97.0, expected at most d_sae"),
    ],
)
def test_settings_that_do_not_fit_the_width_are_refused_before_any_harvest(
    tmp_path, lines, message
):
    document(tmp_path, *lines)  # neither the model nor the text is there
    with pytest.raises(InvalidInput, match=message):
        train_from(tmp_path / "train.yaml", progress=Silent())


def test_what_several_processes_cannot_train_is_refused_before_any_harvest(tmp_path):
    found = document(tmp_path, "objective: gated", "l1: 1")
    with pytest.raises(NotSupportedYet, match="the objective gated is not trained on several"):
        check_training(found, Mesh(rank=0, data=2, latents=1))
    found = document(tmp_path, "k: 8")
    with pytest.raises(InvalidInput, match="d_sae 96 cannot be shared out evenly among 5 ranks"):
        check_training(found, Mesh(rank=0, data=1, latents=5))
    with pytest.raises(InvalidInput, match="batch_size 2048 cannot be shared out evenly among 3"):
        check_training(found, Mesh(rank=0, data=3, latents=1))


def test_two_names_for_the_objective_are_refused_where_they_stand(tmp_path):
    with pytest.raises(DocumentError, match="architecture is topk and objective gated"):
        document(tmp_path, "architecture: topk", "objective: gated", "l1: 0.3")


def test_an_unknown_key_is_refused_where_it_stands(tmp_path):
    with pytest.raises(DocumentError, match=r"train\.yaml:10"):
        document(tmp_path, "kk: 8")


def stored_plan() -> tuple[TrainDocument, dict[str, Any]]:
    located = load_train(ROOT / "examples/smollm2/train.yaml").document
    cfg = json.loads((ROOT / "examples/smollm2/sae/cfg.json").read_text())
    return located, cfg["metadata"]["auditkit"]["training"]["plan"]


def test_the_shipped_example_is_still_trained_by_its_train_yaml():
    located, stored = stored_plan()
    plan = plan_training(located, d_in=576)
    assert plan.objective == TopK(k=32)
    assert is_plan_of_card(plan, stored)


@pytest.mark.parametrize("change", [{"seed": 5}, {"k": 31}, {"k_aux": 1}, {"lr": 0.5}])
def test_a_card_of_another_plan_is_told_apart(change):
    located, stored = stored_plan()
    assert not is_plan_of_card(plan_training(located, d_in=576), {**stored, **change})


def test_cards_of_other_objectives_with_equal_settings_are_told_apart(tmp_path):
    plans = [
        plan_training(document(tmp_path, f"objective: {name}", "k: 8"), d_in=32)
        for name in ("topk", "batch_topk")
    ]
    cards = [json.loads(json.dumps(_card(plan))) for plan in plans]
    assert [is_plan_of_card(plan, card) for plan in plans for card in cards] == [
        True, False, False, True,
    ]  # fmt: skip


def _card(plan: Any) -> dict[str, Any]:
    from auditkit.training.plan import plain_plan

    return plain_plan(plan)
