"""What `worlds.py` trains: auditkit's objectives and SAELens's trainer; a world of SAELens's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auditkit.core.measured import Measured
from auditkit.pipeline.planted.world_training import (
    store_world,
    train_on_world,
    world_budget,
    world_objective,
    world_plan,
)
from auditkit.quality.worlds import (
    SIZES,
    DictionaryReader,
    PlantedBatch,
    PlantedWorld,
    Reader,
    WorldKind,
    WorldSize,
    ceiling_readers,
    floor_readers,
    make_world,
    measure_recovery,
)
from auditkit.quality.worlds.firing import Independent
from auditkit.tensors import SparseLatents

TOKENS_MEASURED = 8192
PEER_WORLD = "saelens-zipf"
PEER_TRAINER = "SAELens TopK"
FROZEN = "frozen decoder"
UNTRAINED = ("random dictionary", "PCA", "ICA", "planted, transpose", "planted, oracle")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PeerWorld(PlantedWorld):
    """A world whose amounts come out of SAELens's ActivationGenerator."""

    generator: Any

    def batch(self, number: int, *, tokens: int = 4096, stream: int = 0) -> PlantedBatch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, stream, number)) % 2**31)
            a = self.generator.sample(tokens).float()
        return PlantedBatch(x=a @ self.features + self.bias, amounts=SparseLatents.from_dense(a))


def peer_world(size: WorldSize, *, seed: int = 0) -> PlantedWorld:
    """SAELens's synthetic world: its orthogonalised dictionary, Zipf rates and folded magnitudes,
    at the sizes of our own."""
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary
    from sae_lens.synthetic.firing_probabilities import zipfian_firing_probabilities

    sizes = SIZES[size]
    # A stream of its own: a trainer that draws its first decoder from the same seed would begin at
    # the answer.
    dictionary = FeatureDictionary(sizes.d_sae, sizes.d_in, bias=True, seed=seed + 1_000_003)
    rates = zipfian_firing_probabilities(
        sizes.d_sae, exponent=0.5, max_prob=0.3, min_prob=0.25 * sizes.l0 / sizes.d_sae
    )
    rates = rates * (sizes.l0 / rates.sum())
    generator = ActivationGenerator(
        sizes.d_sae, rates, std_firing_magnitudes=0.25, mean_firing_magnitudes=1.0
    )
    features = dictionary.feature_vectors.detach()
    return PeerWorld(
        kind=PEER_WORLD,
        size=size.value,
        seed=seed,
        features=features / features.norm(dim=1, keepdim=True),
        bias=dictionary.bias.detach().clone(),
        firing=Independent(rates=rates.double().numpy()),
        magnitudes=torch.ones(sizes.d_sae),
        spread=0.25,
        d_sae=sizes.d_sae,
        k=sizes.l0,
        generator=generator,
    )


def any_world(name: str, size: WorldSize) -> PlantedWorld:
    return peer_world(size) if name == PEER_WORLD else make_world(WorldKind(name), size)


class _PeerDictionary:
    """A trained SAELens SAE behind our protocol, decoder rows made unit."""

    def __init__(self, sae: Any, k: int) -> None:
        norms = sae.W_dec.detach().norm(dim=1)
        self.rows = (sae.W_dec.detach() / norms[:, None]).contiguous()
        self._sae, self._norms = sae, norms

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> SparseLatents:
        # With rescale_acts_by_decoder_norm its latents already are in units of unit rows.
        latents = self._sae.encode(x)
        if not self._sae.cfg.rescale_acts_by_decoder_norm:
            latents = latents * self._norms
        return SparseLatents.from_dense(latents)

    @torch.no_grad()
    def decode(self, latents: SparseLatents, x: torch.Tensor | None = None) -> torch.Tensor:
        return latents.to_dense() @ self.rows + self._sae.b_dec.detach()


def train_peer(world: PlantedWorld, folder: Path, *, seed: int) -> Reader:
    """SAELens's TopK by its own trainer, on the same rows, for as many tokens; learning rate and
    the rest as in its own toy trainer but for the rate, which is ours."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    budget = world_budget("topk", world)
    store = store_world(world, folder, rows=budget.rows)
    x = store.rows(torch.arange(len(store)))
    torch.manual_seed(seed)
    config = TopKTrainingSAEConfig(d_in=world.d_in, d_sae=world.d_sae, k=world.k)
    sae = TopKTrainingSAE(config)
    rng = np.random.default_rng(seed)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            order = torch.from_numpy(rng.permutation(len(x)))
            for part in order.split(budget.batch_size):
                if len(part) == budget.batch_size:
                    yield x[part]

    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=budget.tokens,
            train_batch_size_samples=budget.batch_size,
            lr=budget.lr,
            lr_end=budget.lr / 10,
            lr_decay_steps=budget.steps // 5,
            dead_feature_window=max(1, budget.dead_after_tokens // budget.batch_size),
            logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
        ),
        sae=sae,
        data_provider=batches(),
    )
    trainer.fit()
    dictionary = _PeerDictionary(trainer.sae.eval(), world.k)
    return DictionaryReader(dictionary=dictionary, directions=dictionary.rows)


def train_ours(
    world: PlantedWorld, folder: Path, objective: str, *, seed: int, frozen: bool = False
) -> Reader:
    """One of our objectives, with its settings for planted worlds."""
    budget = world_budget(objective, world)
    store = store_world(world, folder, rows=budget.rows)
    plan = world_plan(
        world,
        world_objective(objective, world),
        budget=budget,
        seed=seed,
        frozen_decoder=frozen,
    )
    return DictionaryReader.of_sae(train_on_world(plan, store, name=objective))


def run_cell(world: PlantedWorld, trainer: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train, measure, and what it took."""
    began = time.process_time()
    if trainer == PEER_TRAINER:
        reader = train_peer(world, folder, seed=seed)
    elif trainer == FROZEN:
        reader = train_ours(world, folder, "topk", seed=seed, frozen=True)
    elif trainer in UNTRAINED:
        reader = (floor_readers(world, seed=seed) | ceiling_readers(world))[trainer]
    else:
        reader = train_ours(world, folder, trainer, seed=seed)
    trained = time.process_time() - began
    found = measure_recovery(world, reader, tokens=TOKENS_MEASURED)
    return {
        "world": world.kind,
        "size": world.size,
        "trainer": trainer,
        "seed": seed,
        "processor_seconds": round(trained, 2),
        "measures": {
            name: value.value if isinstance(value, Measured) else None
            for name, value in found.named().items()
        },
    }
