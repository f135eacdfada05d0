"""Training steps of other projects, as they run them, for `train_step.py`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from auditkit.training import TrainPlan
from auditkit.training.initialise import initial_state
from auditkit.training.objective import dense_loss
from auditkit.training.parameters import SaeParameters
from auditkit.training.topk_settings import topk_settings


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def threshold_for(pre_acts: Tensor, per_token: int) -> float:
    """The value above which `per_token` latents a token are, on average."""
    return float(pre_acts.flatten().topk(per_token * len(pre_acts), sorted=False).values.min())


class Peer:
    """A torch module with an optimiser; subclasses say how it steps and reconstructs."""

    module: torch.nn.Module
    optimiser: torch.optim.Optimizer

    def step(self, x: Tensor) -> None:
        raise AssertionError("every peer has a step of its own")

    def reconstruct(self, x: Tensor) -> Tensor:
        raise AssertionError("every peer has a reconstruction of its own")

    def decoder_rows(self) -> Tensor | None:
        return self.module.W_dec.detach()

    @torch.no_grad()
    def explained_variance(self, held_out: Tensor) -> float | None:
        self.module.eval()
        error = sum(
            float((x - self.reconstruct(x)).square().sum(dtype=torch.float64))
            for x in held_out.split(2048)
        )
        exact = held_out.double()
        return 1 - error / float((exact - exact.mean(0)).square().sum())

    def recall(self, x: Tensor) -> float | None:
        return None

    def l0(self, x: Tensor) -> float | None:
        return None

    def kept_bytes(self) -> int:
        moments = [
            t
            for state in self.optimiser.state.values()
            for t in state.values()
            if isinstance(t, Tensor)
        ]
        return bytes_of([*self.module.parameters(), *moments])


class Dense(Peer):
    """OpenAI's formulation of TopK with AuxK, dense, by autograd and torch's Adam."""

    def __init__(self, plan: TrainPlan, sample: Tensor) -> None:
        self.plan, self.state = plan, initial_state(plan, sample)
        self.module = torch.nn.Module()
        for name, tensor in self.state.parameters.named().items():
            self.module.register_parameter(name, torch.nn.Parameter(tensor))
        self.optimiser = torch.optim.Adam(
            self.module.parameters(), betas=(plan.beta1, plan.beta2), eps=plan.eps
        )
        self.dead = torch.zeros(plan.d_sae, dtype=torch.bool)

    def step(self, x: Tensor) -> None:
        plan, topk = self.plan, topk_settings(self.plan)
        p = SaeParameters.from_named(dict(self.module.named_parameters()))
        self.optimiser.zero_grad()
        dense_loss(
            p,
            x,
            k=topk.k,
            dead=self.dead,
            k_aux=topk.k_aux,
            aux_coefficient=topk.aux_coefficient,
        ).backward()
        with torch.no_grad():
            gradient = p.W_dec.grad
            assert gradient is not None
            gradient -= (gradient * p.W_dec).sum(1, keepdim=True) * p.W_dec
            self.optimiser.param_groups[0]["lr"] = plan.learning_rate(self.state.step)
            self.optimiser.step()
            p.W_dec.div_(p.W_dec.norm(dim=1, keepdim=True))
        self.state.step += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat, _ = self.plan.objective.reconstruct(self.state, x)
        return x_hat + self.state.parameters.b_dec


class SaeLens(Peer):
    """sae_lens' own training SAE under its own SAETrainer: the training step as `fit` runs it.

    Its option use_sparse_activations is left off: its backward pass has no sparse kernel on CPU.
    """

    def __init__(self, plan: TrainPlan, kind: str, **settings: Any) -> None:
        import sae_lens
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        torch.manual_seed(plan.seed)
        config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
            d_in=plan.d_in, d_sae=plan.d_sae, apply_b_dec_to_input=True, **settings
        )
        self.module = getattr(sae_lens, f"{kind}TrainingSAE")(config)
        trainer = SAETrainerConfig(
            total_training_samples=plan.steps * plan.batch_size,
            train_batch_size_samples=plan.batch_size,
            lr=plan.lr,
            lr_end=0.0,
            lr_warm_up_steps=plan.warmup_steps,
            lr_decay_steps=round(plan.decay_fraction * plan.steps),
            adam_beta1=plan.beta1,
            adam_beta2=plan.beta2,
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(trainer, self.module, iter(()))
        self.optimiser = self.trainer.optimizer

    @torch.no_grad()
    def start_sparse(self, x: Tensor, per_token: int) -> None:
        """Set JumpReLU's thresholds so that `per_token` latents are active at first."""
        pre_acts = self.module.process_sae_in(x) @ self.module.W_enc + self.module.b_enc
        self.module.threshold.fill_(threshold_for(pre_acts, per_token))

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module.decode(self.module.encode(x))

    @torch.no_grad()
    def l0(self, x: Tensor) -> float | None:
        return float(self.module.encode(x).count_nonzero()) / len(x)


class DictionaryLearning(Peer):
    """dictionary_learning's TopKTrainer: its `update`."""

    def __init__(self, plan: TrainPlan) -> None:
        trainers = _submodule("dictionary_learning", "trainers.top_k")
        self.trainer = trainers.TopKTrainer(
            steps=plan.steps,
            activation_dim=plan.d_in,
            dict_size=plan.d_sae,
            k=topk_settings(plan).k,
            layer=0,
            lm_name="none",
            lr=plan.lr,
            warmup_steps=plan.warmup_steps,
            decay_start=max(
                plan.warmup_steps + 1, plan.steps - round(plan.decay_fraction * plan.steps)
            ),
            device="cpu",
            seed=plan.seed,
        )
        self.module, self.optimiser, self.done = self.trainer.ae, self.trainer.optimizer, 0

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.done, x)
        self.done += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module(x)

    def decoder_rows(self) -> Tensor | None:
        return self.module.decoder.weight.detach().T


class Sparsify(Peer):
    """sparsify's SparseCoder, stepped as its Trainer does with optimizer="adam", auxk_alpha=1/32.

    Its Trainer itself needs the language model that the activations come from.
    """

    def __init__(self, plan: TrainPlan) -> None:
        config = _submodule("sparsify", "config").SparseCoderConfig
        coder = _submodule("sparsify", "sparse_coder").SparseCoder
        torch.manual_seed(plan.seed)
        k = topk_settings(plan).k
        self.plan = plan
        self.module = coder(plan.d_in, config(num_latents=plan.d_sae, k=k))
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=plan.lr)
        self.silent, self.done = torch.zeros(plan.d_sae, dtype=torch.long), 0

    def step(self, x: Tensor) -> None:
        if not self.done:
            self.module.b_dec.data = x.mean(0)
        self.module.set_decoder_norm_to_unit_norm()
        out = self.module(x, dead_mask=self.silent > self.plan.dead_after_tokens)
        (out.fvu + out.auxk_loss / 32).backward()
        self.module.remove_gradient_parallel_to_decoder_directions()
        self.optimiser.param_groups[0]["lr"] = self.plan.learning_rate(self.done)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.silent += len(x)
        self.silent[out.latent_indices.flatten()] = 0
        self.done += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module(x).sae_out


def _submodule(package: str, name: str) -> ModuleType:
    """A module of an installed package without its __init__, which asks for more packages than a
    training step needs (nnsight, schedulefree)."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ImportError(f"{package} is not installed")
        shell = ModuleType(package)
        shell.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[package] = shell
    return importlib.import_module(f"{package}.{name}")
