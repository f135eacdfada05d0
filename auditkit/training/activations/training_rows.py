"""What a run is trained on: an SAE's activations, or a transcoder's inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditkit.core.errors import MismatchError
from auditkit.training.activations.batches import RowSplit
from auditkit.training.activations.store import ActivationStore
from auditkit.training.plan import TrainPlan

_SAMPLE_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Rows:
    """Activations, and for a transcoder those that it is to write at the same tokens."""

    inputs: ActivationStore
    targets: ActivationStore | None = None

    def check_widths(self, plan: TrainPlan) -> None:
        """Raise MismatchError unless they are as wide as the plan says."""
        self.inputs.check_width(plan.d_in)
        if (self.targets is None) == plan.is_transcoder:
            raise MismatchError(
                f"{self.inputs.folder}: the plan's d_out is {plan.d_out}, and there are "
                + ("no targets" if self.targets is None else "targets"),
                help="train_transcoder trains plans with d_out, train_sae those without",
            )
        if self.targets is not None:
            self.targets.check_width(plan.width_out)

    def key(self) -> dict[str, Any]:
        """What tells them from others."""
        own = {"activations": self.inputs.meta.key, "rows": len(self.inputs)}
        return own if self.targets is None else {**own, "targets": self.targets.meta.key}

    def take(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        """These rows of each."""
        stores = (self.inputs,) if self.targets is None else (self.inputs, self.targets)
        return tuple(store.rows(torch.from_numpy(indices)) for store in stores)

    def sample(self, split: RowSplit, seed: int) -> tuple[Tensor, ...]:
        """Training rows of each, from which a first state is made."""
        generator = np.random.default_rng((seed, 0x5A3))
        n = min(_SAMPLE_ROWS, len(split.train))
        return self.take(generator.choice(split.train, size=n, replace=False))
