"""vLLM's decoder layers: where they are, and what they hand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.hook_point import HookPoint, Site

_PLACES = ("model.layers", "model.model.layers", "transformer.h", "model.decoder.layers")


def find_layer(model: nn.Module, hook_point: HookPoint) -> nn.Module | None:
    """The decoder layer whose output is `hook_point`; None where another worker holds it.

    Under pipeline parallelism a worker has only its own layers, and `PPMissingLayer` in the place
    of the others. Raises NotSupportedYet for a site that is no layer's output, InvalidInput where
    the layers are not found.
    """
    if hook_point.site is not Site.RESID_POST:
        raise NotSupportedYet(
            f"{hook_point} cannot be watched in vLLM",
            help="its fused layers show hook_resid_post only: use an SAE trained there",
        )
    for place in _PLACES:
        layers = _at(model, place)
        if layers is not None:
            if hook_point.layer >= len(layers):
                raise InvalidInput(
                    f"the model has {len(layers)} layers, and none of number {hook_point.layer}"
                )
            layer = layers[hook_point.layer]
            return None if type(layer).__name__ == "PPMissingLayer" else layer
    raise InvalidInput(
        f"no decoder layers found in {type(model).__name__}",
        help=f"looked at {', '.join(_PLACES)}",
    )


def _at(model: Any, place: str) -> Sequence[nn.Module] | None:
    for name in place.split("."):
        model = getattr(model, name, None)
        if model is None:
            return None
    return model


def residual_stream(output: Any) -> Tensor:
    """The residual stream [token, d_in] after a layer.

    vLLM's layers hand on `(hidden_states, residual)` with the addition still to be done, inside
    the next layer's fused norm; some families return the sum itself.
    """
    if isinstance(output, tuple):
        hidden, residual = output[0], output[1] if len(output) > 1 else None
        return hidden if residual is None else hidden + residual
    return output
