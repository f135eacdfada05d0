"""What `train_step.py` compares: auditkit's steps, and those of other projects as they run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from auditkit.training import BatchTopK, JumpReLU, TrainPlan
from auditkit.training.finishing import explained_variance
from auditkit.training.fused.candidates import Candidates
from auditkit.training.fused.step import FusedStep, numba_is_installed
from auditkit.training.initialise import initial_state
from auditkit.training.plan import Step
from auditkit.training.sparse_step import TorchStep
from auditkit.training.topk_settings import topk_settings
from benchmarks.train_step_peers import (
    Dense,
    DictionaryLearning,
    SaeLens,
    Sparsify,
    bytes_of,
    threshold_for,
)

PRODUCT = "encoder product"
OURS = "auditkit TopK, default"
SAELENS = "sae_lens TopK"
SPARSIFY = "sparsify TopK"
SPARSE = ", sparse"


class Candidate(Protocol):
    """Something that takes steps on scaled batches; what it learnt is None for a floor."""

    def step(self, x: Tensor) -> None: ...

    def explained_variance(self, held_out: Tensor) -> float | None: ...

    def decoder_rows(self) -> Tensor | None: ...

    def recall(self, x: Tensor) -> float | None:
        """Share of the true top k that are among the chosen latents."""
        ...

    def l0(self, x: Tensor) -> float | None:
        """Active latents per token."""
        ...

    def kept_bytes(self) -> int:
        """Of parameters and the optimiser's state."""
        ...


class Product:
    """The floor: x @ W_enc into memory allocated once."""

    def __init__(self, plan: TrainPlan) -> None:
        self.W_enc = torch.randn(plan.d_sae, plan.d_in)
        self.out = torch.empty(plan.batch_size, plan.d_sae)

    def step(self, x: Tensor) -> None:
        torch.mm(x, self.W_enc.T, out=self.out)

    def explained_variance(self, held_out: Tensor) -> float | None:
        return None

    def decoder_rows(self) -> Tensor | None:
        return None

    def recall(self, x: Tensor) -> float | None:
        return None

    def l0(self, x: Tensor) -> float | None:
        return None

    def kept_bytes(self) -> int:
        return bytes_of([self.W_enc])


class Ours:
    """A step of auditkit's own."""

    def __init__(self, plan: TrainPlan, sample: Tensor, run: Step) -> None:
        self.plan, self.state, self.run = plan, initial_state(plan, sample), run

    def step(self, x: Tensor) -> None:
        self.run(self.state, x)

    def explained_variance(self, held_out: Tensor) -> float | None:
        return explained_variance(self.plan, self.state, held_out)

    def decoder_rows(self) -> Tensor | None:
        return self.state.parameters.W_dec

    def recall(self, x: Tensor) -> float | None:
        encoder = getattr(self.run, "encoder", None)
        if not isinstance(encoder, Candidates):
            return None
        p, k = self.state.parameters, topk_settings(self.plan).k
        centred = x - p.b_dec
        latents, values = np.empty((len(x), k), np.int64), np.empty((len(x), k), np.float32)
        encoder.choose(centred, p, latents, values, step=self.state.step)
        chosen = torch.zeros(len(x), p.d_sae, dtype=torch.bool)
        chosen.scatter_(1, torch.from_numpy(latents), True)
        true = (centred @ p.W_enc_rows.T + p.b_enc).topk(k, dim=1).indices
        return float(chosen.gather(1, true).double().mean())

    def l0(self, x: Tensor) -> float | None:
        return self.plan.objective.reconstruct(self.state, x)[1] / len(x)

    def kept_bytes(self) -> int:
        state = self.state
        records = (state.parameters, state.first_moments, state.second_moments)
        return bytes_of([t for record in records for t in record.named().values()])


def makers(plan: TrainPlan, sample: Tensor) -> dict[str, Callable[[], Candidate]]:
    """Name → how to make it. Making raises ImportError where its project is not installed."""
    k = topk_settings(plan).k

    def ours(
        objective: Any = None,
        make: Callable[[TrainPlan], Step] | None = None,
        lr: float | None = None,
    ) -> Ours:
        mine = plan if objective is None else replace(plan, objective=objective, lr=lr or plan.lr)
        step = mine.objective.make_step(mine, "auto") if make is None else make(mine)
        return Ours(mine, sample, step)

    def fused(product: Any) -> Callable[[], Candidate]:
        def make() -> Candidate:
            if not numba_is_installed():
                raise ImportError("numba is not installed")
            return ours(make=lambda p: FusedStep(p, product=product))

        return make

    # A step costs the same at any rate, and at this one what is active stays as it is.
    still = replace(plan, lr=1e-9)

    def sparse_jumprelu() -> Candidate:
        first = initial_state(replace(plan, objective=JumpReLU(target_l0=float(k))), sample)
        p = first.parameters
        pre_acts = first.centre(sample[:1024] * first.scale) @ p.W_enc_rows.T + p.b_enc
        threshold = threshold_for(pre_acts, 2 * k) / plan.d_in**0.5
        return ours(JumpReLU(target_l0=float(k), initial_threshold=threshold), lr=still.lr)

    def sparse_peer() -> Candidate:
        peer, scale = SaeLens(still, "JumpReLU"), initial_state(plan, sample).scale
        peer.start_sparse(sample[:1024] * scale, 2 * k)
        return peer

    return {
        PRODUCT: lambda: Product(plan),
        OURS: fused(None),
        "auditkit TopK, float32 product": fused("float32"),
        "auditkit TopK, int8 candidates": fused("int8"),
        "auditkit TopK, torch": lambda: ours(make=TorchStep),
        SPARSIFY: lambda: Sparsify(plan),
        SAELENS: lambda: SaeLens(plan, "TopK", k=k),
        "dictionary_learning TopK": lambda: DictionaryLearning(plan),
        "OpenAI's formulation, dense": lambda: Dense(plan, sample),
        "auditkit BatchTopK": lambda: ours(BatchTopK(k=k)),
        "sae_lens BatchTopK": lambda: SaeLens(plan, "BatchTopK", k=k),
        "auditkit JumpReLU": lambda: ours(JumpReLU(target_l0=float(k))),
        "sae_lens JumpReLU": lambda: SaeLens(plan, "JumpReLU"),
        f"auditkit JumpReLU{SPARSE}": sparse_jumprelu,
        f"sae_lens JumpReLU{SPARSE}": sparse_peer,
    }
