"""Plain linear directions at an SAE's hook point, read as if they were more of its latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from auditkit.core.directions import LockedDirection
from auditkit.core.errors import InvalidInput, MismatchError, NonFiniteActivations
from auditkit.core.identity import SaeIdentity


class DirectionReader:
    """Values x·v of some directions, in rising order of their `numbers` (each at least d_sae).

    Summed in float64 and rounded to float32, so that a token has the same value in whatever batch
    it is computed. Raises MismatchError for directions of another width, InvalidInput where two
    have one number or a vector is not what its digest names.
    """

    def __init__(self, directions: Sequence[LockedDirection], sae: SaeIdentity) -> None:
        numbered: dict[int, LockedDirection] = {}
        for direction in directions:
            known = numbered.setdefault(direction.latent(sae.d_sae), direction)
            if known.digest != direction.digest:
                raise InvalidInput(
                    f"the directions {known.digest[:12]} and {direction.digest[:12]} have the "
                    "same number",
                    help="watch them with two locks",
                )
        self.numbers = tuple(sorted(numbered))
        self.directions = tuple(numbered[n] for n in self.numbers)
        rows = [d.components() for d in self.directions]
        for row, direction in zip(rows, self.directions, strict=True):
            if len(row) != sae.d_in:
                raise MismatchError(
                    f"the direction {direction.digest[:12]} has {len(row)} components, and "
                    f"{sae.hook_point} has {sae.d_in}",
                    help="it was bound for another model: auditkit rules bind",
                )
        self._vectors = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), sae.d_in)

    def __len__(self) -> int:
        return len(self.numbers)

    @torch.no_grad()
    def read(self, x: Float[Tensor, "token d_in"]) -> Float32[Tensor, "token direction"]:
        """The directions' values at activations x; NonFiniteActivations for NaN or infinity."""
        values = (x.detach().to(torch.float64) @ self._vectors.to(x.device).T).to(torch.float32)
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteActivations(
                "values of a direction are NaN or infinite",
                help="check the model's dtype (float16 overflows)",
            )
        return values
