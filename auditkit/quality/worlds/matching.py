"""Which latent stands for which planted feature, by the cosine of their directions, signed.

A latent only ever adds its direction, so one that points against a feature has not found it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.statistics import measure_mean
from auditkit.quality.worlds.packing import random_unit_rows

FOUND_ABOVE = 0.9
FLOOR_DRAWS = 3
NO_LIVE = NotMeasured("no live latents")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matching:
    """Cosines of planted features (rows) with live latents (columns); `live` are the latents'
    numbers, in rising order."""

    cosines: Float[Tensor, "feature live"]
    live: Int64[Tensor, " live"]
    d_in: int

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "feature d_in"],
        directions: Float[Tensor, "latent d_in"],
        live: Bool[Tensor, " latent"],
    ) -> Matching:
        """Latents without a direction count as not live."""
        alive = live & (directions.norm(dim=1) > 0)
        rows = normalize(directions[alive].double(), dim=1)
        return cls(
            cosines=normalize(features.double(), dim=1) @ rows.T,
            live=alive.nonzero().squeeze(1),
            d_in=features.shape[1],
        )

    @property
    def n_live(self) -> int:
        return len(self.live)

    def best_latents(self) -> Int64[Tensor, " feature"]:
        """Of each feature the latent of largest cosine; there must be a live one."""
        return self.live[self.cosines.argmax(dim=1)]

    def best_features(self) -> Int64[Tensor, " live"]:
        """Of each live latent the feature of largest cosine."""
        return self.cosines.argmax(dim=0)

    def recall(self) -> Measure:
        """MMCS (Sharkey et al. 2022): mean over features of the best cosine."""
        return measure_mean(self._best(1).numpy()) if self.n_live else NO_LIVE

    def precision(self) -> Measure:
        """The same over live latents."""
        return measure_mean(self._best(0).numpy()) if self.n_live else NO_LIVE

    def recall_above(self, cosine: float = FOUND_ABOVE) -> Measure:
        """Share of features with a latent above that cosine."""
        return _share(self._best(1) > cosine) if self.n_live else NO_LIVE

    def precision_above(self, cosine: float = FOUND_ABOVE) -> Measure:
        """Share of live latents with a feature above that cosine."""
        return _share(self._best(0) > cosine) if self.n_live else NO_LIVE

    def floors(self, features: Float[Tensor, "feature d_in"]) -> tuple[float, float]:
        """Recall and precision of as many random directions as there are live latents (mean of a
        few draws); zeros without a live one."""
        if not self.n_live:
            return 0.0, 0.0
        unit = normalize(features.double(), dim=1)
        found: list[tuple[float, float]] = []
        for draw in range(FLOOR_DRAWS):
            rows = random_unit_rows(self.n_live, self.d_in, seed=0xF100 + draw)
            cosines = unit @ rows.double().T
            found.append(
                (float(cosines.max(dim=1).values.mean()), float(cosines.max(dim=0).values.mean()))
            )
        recall, precision = np.mean(found, axis=0)
        return float(recall), float(precision)

    def mcc(self) -> Measure:
        """Mean cosine, signed, of the best one-to-one assignment of live latents and features."""
        if not self.n_live:
            return NO_LIVE
        rows, columns = linear_sum_assignment(self.cosines.numpy(), maximize=True)
        matched = self.cosines.numpy()[rows, columns]
        return Measured(value=float(matched.mean()), n=len(matched))

    def uniqueness(self) -> Measure:
        """Distinct features that live latents match best, over live latents."""
        if not self.n_live:
            return NO_LIVE
        return Measured(value=len(self.best_features().unique()) / self.n_live, n=self.n_live)

    def _best(self, dim: int) -> Float[Tensor, " best"]:
        return self.cosines.max(dim=dim).values


def over_floor(value: Measure, floor: float) -> Measure:
    """(value − floor) / (1 − floor): 0 as random directions, 1 at the truth."""
    if isinstance(value, NotMeasured):
        return value
    if floor >= 1 - 1e-9:
        return NotMeasured("random directions find everything here")
    return Measured(value=(value.value - floor) / (1 - floor), n=value.n)


def _share(hits: Bool[Tensor, " one"]) -> Measured:
    return Measured(value=float(hits.double().mean()), n=len(hits))
