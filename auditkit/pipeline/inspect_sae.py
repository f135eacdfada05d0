"""`auditkit sae inspect`: what an SAE is, what its weights look like, what its card says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from auditkit.core.audits import NamedMeasure
from auditkit.core.fingerprint import to_plain
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import SaeIdentity
from auditkit.core.measured import Measured
from auditkit.pipeline.summaries import card_measures
from auditkit.saes import SparseAutoencoder, load_sae

MIN_NORM = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, median and largest of some numbers."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """An SAE, looked at without running it.

    `weights` are spreads over latents by name; `silent_rows` counts decoder rows of norm 0, which
    say nothing whatever fires.
    """

    source: str
    identity: SaeIdentity
    digest: str
    parameters: int
    weights: Mapping[str, Spread]
    silent_rows: int
    notes: tuple[str, ...]
    measures: tuple[NamedMeasure, ...]
    metadata: Mapping[str, Any]

    def json(self) -> str:
        found = {
            "identity": {**to_plain(self.identity), "digest": self.digest},
            "parameters": self.parameters,
            "weights": self.weights,
            "silent_decoder_rows": self.silent_rows,
            "notes": list(self.notes),
            "measures": [_row(m) for m in self.measures],
            "metadata": self.metadata,
        }
        return json.dumps(to_plain(found), indent=1, ensure_ascii=False)


def inspect_sae(source: str, *, hook_point: str | None = None) -> Inspected:
    """Load an SAE of any known format, which checks its weights, and describe it.

    Raises WeightsError for weights that are missing, damaged, of another shape or not finite, and
    whatever else `load_sae` raises.
    """
    given = None if hook_point is None else HookPoint.parse(hook_point)
    sae = load_sae(source, hook_point=given)
    return Inspected(
        source=source,
        identity=sae.identity,
        digest=sae.identity.digest,
        parameters=sum(t.numel() for t in sae.tensors.values()),
        weights=_spreads(sae),
        silent_rows=int((sae.W_dec.norm(dim=1) <= MIN_NORM).sum()),
        notes=sae.notes,
        measures=card_measures(sae.config.metadata),
        metadata=sae.config.metadata,
    )


def _spreads(sae: SparseAutoencoder) -> dict[str, Spread]:
    per_latent = {
        name: tensor for name, tensor in sae.tensors.items() if tensor.ndim == 1 and name != "b_dec"
    }
    return {
        "norm of decoder rows": _spread(sae.W_dec.norm(dim=1)),
        "norm of encoder columns": _spread(sae.W_enc.norm(dim=0)),
        **{name: _spread(tensor) for name, tensor in per_latent.items()},
    }


def _spread(values: Tensor) -> Spread:
    return Spread(low=float(values.min()), median=float(values.median()), high=float(values.max()))


def _row(measure: NamedMeasure) -> dict[str, Any]:
    row: dict[str, Any] = {"name": measure.name, "unit": measure.unit, "note": measure.note}
    if isinstance(measure.value, Measured):
        return row | {"value": measure.value.value, "n": measure.value.n}
    return row | {"reason": measure.value.reason}
