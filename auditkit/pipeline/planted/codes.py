"""An SAE's encoder, search, and dictionary learning without an encoder, on a planted world."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.measured import Measured
from auditkit.core.progress import Progress
from auditkit.pipeline.planted.world_training import (
    BUDGETS,
    TRAIN_STREAM,
    WorldBudget,
    store_world,
    train_on_world,
    world_objective,
    world_plan,
)
from auditkit.pipeline.sparse_codes import CodesTable, codes_table, sae_table
from auditkit.quality.theory import AlternatingPlan, Code, learn_dictionary, oracle_codes
from auditkit.quality.theory.code_gap import OMP_NONNEGATIVE
from auditkit.quality.worlds import PlantedWorld, WorldSize
from auditkit.saes import SparseAutoencoder
from auditkit.tensors import sparse_decode

MEASURED_STREAM = 7
PIECE = 10
"""Tokens of a world are independent; so many together are one piece of a bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedPlan:
    """Tokens that are measured; samples and rounds of the dictionaries learnt without an encoder;
    the SAE's budget, by default that of its world's size."""

    tokens: int = 1000
    samples: int = 2048
    rounds: int = 15
    epochs: int = 5
    budget: WorldBudget | None = None
    seed: int = 0


def planted_codes(
    world: PlantedWorld, plan: PlantedPlan, *, progress: Progress
) -> tuple[CodesTable, ...]:
    """Codes of a world on the dictionary of an SAE, on the planted one, and on two that were
    learnt from samples: by alternating minimisation, and by scikit-learn's online method."""
    measured = next(iter(world.batches(plan.tokens, stream=MEASURED_STREAM, batch=plan.tokens)))
    pieces = torch.arange(len(measured.x)) // PIECE
    progress.begin(f"{world.name}: train an SAE", 1)
    sae = _train(world, plan)
    progress.advance()
    of_sae = sae_table(
        sae,
        measured.x,
        pieces,
        activations=world.name,
        recovered=_recovered(world, sae.W_dec),
        progress=progress,
    )
    planted = Code(
        name="planted code",
        latents=measured.amounts,
        x_hat=sparse_decode(measured.amounts, world.features) + world.bias,
    )
    samples = torch.cat([b.x for b in world.batches(plan.samples, stream=TRAIN_STREAM)])
    progress.begin(f"{world.name}: dictionaries without an encoder", 3)
    tables = [_searched(world, "planted", world.features, world.bias, measured.x, pieces, planted)]
    progress.advance()
    learned = learn_dictionary(
        samples,
        AlternatingPlan(latents=world.d_sae, k=world.k, rounds=plan.rounds, seed=plan.seed),
    )
    name = "alternating minimisation"
    tables.append(_searched(world, name, learned.rows, learned.mean, measured.x, pieces))
    progress.advance()
    rows, centre = fit_minibatch(samples, world.d_sae, epochs=plan.epochs, seed=plan.seed)
    name = "MiniBatchDictionaryLearning"
    tables.append(_searched(world, name, rows, centre, measured.x, pieces))
    progress.advance()
    return (of_sae, *tables)


def fit_minibatch(
    samples: Tensor, latents: int, *, epochs: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Directions [latent, d_in] and centre by scikit-learn's online dictionary learning (Mairal et
    al. 2009), with codes z ≥ 0 and a penalty of 0.3."""
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning

    mean = samples.mean(0)
    penalty: Any = 0.3  # the stubs say int
    model = MiniBatchDictionaryLearning(
        n_components=latents,
        alpha=penalty,
        batch_size=256,
        max_iter=epochs,
        fit_algorithm="cd",
        positive_code=True,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Coordinate descent may end at its own bound of iterations within a batch.
        warnings.simplefilter("ignore", ConvergenceWarning)
        components = model.fit((samples - mean).numpy()).components_
    rows = normalize(torch.from_numpy(components).float(), dim=1)
    return rows[rows.norm(dim=1) > 0], mean


def _train(world: PlantedWorld, plan: PlantedPlan) -> SparseAutoencoder:
    budget = plan.budget or BUDGETS[WorldSize(world.size)]
    trained = world_plan(world, world_objective("topk", world), budget=budget, seed=plan.seed)
    with tempfile.TemporaryDirectory() as folder:
        store = store_world(world, Path(folder), rows=budget.rows)
        return train_on_world(trained, store, name=f"topk, {world.name}")


def _searched(
    world: PlantedWorld,
    dictionary: str,
    rows: Tensor,
    centre: Tensor,
    x: Tensor,
    pieces: Tensor,
    *more: Code,
) -> CodesTable:
    return codes_table(
        [*_pursuit_first(oracle_codes(x, rows, world.k, shift=centre)), *more],
        x,
        pieces,
        activations=world.name,
        dictionary=dictionary,
        rows=rows,
        k=world.k,
        recovered=_recovered(world, rows),
    )


def _pursuit_first(codes: Sequence[Code]) -> list[Code]:
    return sorted(codes, key=lambda code: code.name != OMP_NONNEGATIVE)


def _recovered(world: PlantedWorld, rows: Tensor) -> Measured:
    best = (world.features @ normalize(rows, dim=1).T).amax(1)
    return Measured(value=float(best.double().mean()), n=len(best))
