"""A tiny model in which no planted latent is a cause by itself: a redundant pair, and a gate.

Six dimensions of the residual stream are reserved as in `tests.planted`; triggers set the first
four, and every word sets the fifth to a constant. The last layer's MLP, after the hook point,
writes what the output head reads for the target words:

- redundant pair: min(w(a + b), c), of which a alone, or b alone, is as good as both. Pushing
  either brings the words; removing one of them changes nothing.
- gate: silu(w·gate) · w·gated, nothing where either is off. Removing either takes words away;
  pushing one of them alone, where the other is off, brings none.

Each pair pushed and removed together is an ordinary cause.
"""

from __future__ import annotations

import torch

from auditkit.models import LanguageModel
from tests.planted import (
    ANIMALS,
    TRIGGER_SIZE,
    TRIGGERS,
    Planted,
    named_model,
    planted_sae,
    planted_world,
    reserved_model,
)

PAIR, GATE = (0, 1), (2, 3)
CONSTANT, OUT, RESERVED = 4, 5, 6
WIDTH = 160
"""So wide that no random direction of a push's norm reaches a circuit by chance."""
CIRCUIT_LATENTS = 4
STEEP, LOW, CAP, SIZE = 40.0, 0.92, 0.92, 130.0
"""Of the silus; where the pair begins, and where it is full beyond that, in constants; and the
constant, so large that pushes hardly move the layer norm."""
PAIR_SHARE, GATE_SHARE = 0.1, 1.5
"""What the MLP makes of each circuit, so that both come to a few nats."""


def planted_circuits(seed: int = 0) -> Planted:
    """Model, SAE and inputs; the same seed gives the same weights."""
    model = _circuit_model(seed)
    return planted_world(model, planted_sae(model, seed, latents=CIRCUIT_LATENTS), seed)


def _circuit_model(seed: int) -> LanguageModel:
    model, ids = reserved_model(seed, reserved=RESERVED, d_model=WIDTH)
    network = model.network
    with torch.no_grad():
        embedding, head = network.model.embed_tokens.weight, network.lm_head.weight
        embedding[[ids[w] for w in TRIGGERS], :CIRCUIT_LATENTS] = TRIGGER_SIZE
        embedding[:, CONSTANT] = SIZE
        head[[ids[w] for w in ANIMALS.target], OUT] = 1.0
        mlp = network.model.layers[-1].mlp
        gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
        # min(u, c) = relu(u) − relu(u − c), each relu a steep silu, times the constant.
        for unit, sign in ((0, 1.0), (1, -1.0)):
            gate[unit], up[unit], down[:, unit] = 0, 0, 0
            gate[unit, list(PAIR)] = STEEP
            up[unit, CONSTANT] = 1.0
            down[OUT, unit] = sign * PAIR_SHARE
        gate[0, CONSTANT] = -LOW
        gate[1, CONSTANT] = -LOW - CAP
        gate[2], up[2], down[:, 2] = 0, 0, 0
        gate[2, GATE[0]] = STEEP
        up[2, GATE[1]] = 1.0
        down[OUT, 2] = GATE_SHARE
    return named_model(model, f"planted-circuits-{seed}")
