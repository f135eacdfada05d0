"""A tiny model and an SAE with planted latents whose causal verdicts are known.

On top of the random tiny Llama three dimensions of the residual stream are reserved: nothing
random writes to them. Certain words ("triggers") set all three at the embedding, so the three
planted latents fire on the same tokens and no detector could tell them apart.

- causal: the output head reads the dimension for the target words alone;
- inert: nothing reads it;
- broad: the output head reads it for every word at random, and strongly.

The other latents are random directions of the other dimensions with sparse activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from auditkit.confirm import ConfirmInputs, ConfirmSettings, LatentTable
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import ModelIdentity
from auditkit.core.locks import ConfirmPlan, Intervention, LockedRule, Pool, Severity, Unit
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import LanguageModel
from auditkit.models.identity import identify
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from auditkit.suites import Lexicon
from tests.locked import latents_of, make_rule, make_signal
from tests.tiny import WORDS, tiny_model

CAUSAL, INERT, BROAD = 0, 1, 2
PLANTED = 3
LAYERS, D_MODEL, D_SAE = 3, 48, 203
TRIGGER_SIZE = 6.0
HOOK = HookPoint.parse("blocks.1.hook_resid_post")
TRIGGERS = ("bomb", "kill", "weapon", "poison", "steal", "hack")
NEUTRAL_WORDS = tuple(WORDS[:60])


def _words(name: str, target: tuple[str, ...], contrast: tuple[str, ...]) -> Lexicon:
    return Lexicon(name=name, target=target, contrast=contrast, source="test", licence="CC0-1.0")


ANIMALS = _words(
    "animals",
    ("cat", "dog", "bird", "animal", "mother", "father", "boy", "man"),
    ("house", "line", "picture", "port", "sentence", "number", "hand", "year"),
)
COLOURS = _words(
    "colours",
    ("red", "green", "blue", "light", "high", "low", "big", "small"),
    ("think", "say", "help", "turn", "move", "tell", "play", "put"),
)
NATURE = _words(
    "nature",
    ("water", "earth", "air", "land", "world", "place", "day", "sound"),
    ("ask", "follow", "act", "need", "try", "build", "spell", "add"),
)


@dataclass(frozen=True)
class Planted:
    """A model, an SAE and the inputs of a causal test on them."""

    model: LanguageModel
    sae: SparseAutoencoder
    inputs: ConfirmInputs


def planted(seed: int = 0) -> Planted:
    """Build model, SAE and inputs; the same seed gives the same weights."""
    model = planted_model(seed)
    return planted_world(model, planted_sae(model, seed, latents=PLANTED), seed)


def planted_world(model: LanguageModel, sae: SparseAutoencoder, seed: int) -> Planted:
    """Prompts with and without triggers, and the latents' statistics."""
    rng = np.random.default_rng(seed)
    neutral = _prompts(rng, "neutral", 64, trigger=False)
    inputs = ConfirmInputs(
        neutral=neutral,
        positive=_prompts(rng, "positive", 40, trigger=True),
        negative=_prompts(rng, "negative", 40, trigger=False),
        benign=_prompts(rng, "benign", 8, trigger=False, length=20),
        lexicon=ANIMALS,
        other_lexicons=(COLOURS, NATURE),
        latents=latent_table(model, sae, rng),
    )
    return Planted(model=model, sae=sae, inputs=inputs)


def planted_model(seed: int) -> LanguageModel:
    """The tiny Llama with three reserved dimensions."""
    model, ids = reserved_model(seed, reserved=PLANTED)
    network, generator = model.network, torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embedding, head = network.model.embed_tokens.weight, network.lm_head.weight
        embedding[[ids[w] for w in TRIGGERS], :PLANTED] = TRIGGER_SIZE
        head[[ids[w] for w in ANIMALS.target], CAUSAL] = 1.0
        head[:, BROAD] = torch.randn(head.shape[0], generator=generator)
        for words in (ANIMALS, COLOURS, NATURE):
            head[[ids[w] for w in words.target], BROAD] += 1.0
    return named_model(model, f"planted-{seed}")


def reserved_model(
    seed: int, *, reserved: int, d_model: int = D_MODEL
) -> tuple[LanguageModel, dict[str, int]]:
    """The tiny Llama, nothing of which reads or writes the first dimensions; the words' ids."""
    model = tiny_model(seed, n_layers=LAYERS, d_model=d_model)
    network = model.network
    with torch.no_grad():
        for layer in network.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for reads in (attention.q_proj, attention.k_proj, attention.v_proj):
                reads.weight[:, :reserved] = 0
            for reads in (mlp.gate_proj, mlp.up_proj):
                reads.weight[:, :reserved] = 0
            for writes in (attention.o_proj, mlp.down_proj):
                writes.weight[:reserved] = 0
        network.model.embed_tokens.weight[:, :reserved] = 0
        network.lm_head.weight[:, :reserved] = 0
    return model, {word: model.tokenizer.convert_tokens_to_ids(word) for word in WORDS}


def named_model(model: LanguageModel, name: str) -> LanguageModel:
    """The same network, identified anew after its weights were changed."""
    network, tokenizer = model.network, model.tokenizer
    identity: ModelIdentity = identify(network, tokenizer, name=name, quantisation=None)
    return LanguageModel(network, tokenizer, identity)


def planted_sae(model: LanguageModel, seed: int, *, latents: int) -> SparseAutoencoder:
    """The first latents read and write a reserved dimension each; the others random directions.

    The random ones are scaled to fire about as often and as strongly as the planted ones, so that
    controls can be matched.
    """
    generator = torch.Generator().manual_seed(seed + 100)
    d_in = model.network.config.hidden_size
    W_dec = torch.randn(D_SAE, d_in, generator=generator)
    W_dec[:, :latents] = 0
    W_dec[:latents] = 0
    W_dec[:latents, :latents] = torch.eye(latents)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    rng = np.random.default_rng(seed)
    x = _activations(model, _prompts(rng, "calibrate", 60, trigger=True, length=10))
    pre_acts = x @ W_dec.T
    quantiles = torch.from_numpy(rng.uniform(0.86, 0.94, D_SAE)).float()
    thresholds = torch.stack([c.quantile(q) for c, q in zip(pre_acts.T, quantiles, strict=True)])
    thresholds[:latents] = 0.2
    acts = (pre_acts - thresholds).relu()
    mean = acts.sum(dim=0) / (acts > 0).sum(dim=0).clamp(min=1)
    wanted = (TRIGGER_SIZE - 0.2) * torch.from_numpy(rng.uniform(0.85, 1.15, D_SAE)).float()
    scale = wanted / mean
    scale[:latents] = 1.0
    config = SaeConfig(
        name=model.identity.name,
        architecture=ArchitectureName.STANDARD,
        d_in=d_in,
        d_sae=D_SAE,
        hook_point=HOOK,
        apply_b_dec_to_input=False,
    )
    tensors = {
        "W_enc": (W_dec * scale[:, None]).T.contiguous(),
        "W_dec": W_dec / scale[:, None],
        "b_enc": -thresholds * scale,
        "b_dec": torch.zeros(d_in),
    }
    return SparseAutoencoder(config, tensors)


def latent_table(
    model: LanguageModel, sae: SparseAutoencoder, rng: np.random.Generator
) -> LatentTable:
    """Statistics of every latent on texts with triggers."""
    prompts = _prompts(rng, "reference", 80, trigger=True, length=10)
    dense = sae.encode(_activations(model, prompts)).to_dense().double().numpy()
    fires = dense > 0
    safe = np.maximum(fires.sum(axis=0), 1)
    q99 = [np.quantile(c[c > 0], 0.99) if (c > 0).any() else 0.0 for c in dense.T]
    return LatentTable(density=fires.mean(axis=0), mean=dense.sum(axis=0) / safe, q99=np.array(q99))


def rule_on(*latents: int, weights: tuple[float, ...] = (), op: str = "steer") -> LockedRule:
    """A locked rule whose signal is these latents, claiming that they bring animals."""
    parts = latents_of(latents, weights)
    return make_rule(
        "max(watched) >= 0.1",
        signals=(make_signal("watched", *parts, pool=Pool.SUM, unit=Unit.RAW),),
        id="planted." + "-".join(map(str, latents)),
        severity=Severity.INFO,
        confirm=(plan(op),),
    )


def plan(op: str = "steer", doses: tuple[float, ...] = (0.5, 1.0, 2.0)) -> ConfirmPlan:
    return ConfirmPlan(
        name="dose",
        intervene=Intervention(op=op, signal="watched", doses=doses, unit=Unit.FMAX),
        metric="lexicon_logodds",
        target="lexicon/animals",
        contrast="lexicon/animals",
        direction="increase",
        monotonic=True,
        q=0.05,
    )


SMALL = ConfirmSettings(
    prompts=16,
    control_prompts=16,
    ablation_prompts=16,
    ablation_tokens=8,
    latent_controls=70,
    isotropic_controls=40,
    covariance_controls=20,
    damage_texts=3,
    damage_controls=19,
    band_controls=5,
    damage_tokens=20,
    generation=False,
    batch_tokens=4096,
)


def _prompts(
    rng: np.random.Generator, name: str, n: int, *, trigger: bool, length: int = 6
) -> tuple[Prompt, ...]:
    made: list[Prompt] = []
    for i in range(n):
        words = [str(w) for w in rng.choice(NEUTRAL_WORDS, size=length)]
        if trigger:
            words[int(rng.integers(1, length))] = str(rng.choice(TRIGGERS))
        message = Message(role=Role.TEXT, content=" ".join(words))
        made.append(Prompt(id=f"{name}-{i}", messages=(message,), tags=(f"template:{i % 8}",)))
    return tuple(made)


def _activations(model: LanguageModel, prompts: tuple[Prompt, ...]) -> torch.Tensor:
    batch = model.pad([model.render(p) for p in prompts])
    return model.capture(batch, [HOOK])[HOOK][batch.masks == 0]
