"""What Inspect finds by our entry point: the provider `auditkit`, the scorer and the hooks.

The model itself (and torch) is loaded only where a model of this provider is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from inspect_ai.model import GenerateConfig, Model, ModelAPI, modelapi

from auditkit.integrations.inspect.hooks import VerdictHooks
from auditkit.integrations.inspect.scoring import watched_rules

if TYPE_CHECKING:
    from auditkit.core.locks import Lock
    from auditkit.models import LanguageModel
    from auditkit.saes import SparseAutoencoder

__all__ = ["VerdictHooks", "auditkit", "watched_rules"]


@modelapi(name="auditkit")
def auditkit() -> type[ModelAPI]:
    """The provider: `inspect eval task.py --model auditkit/MODEL -M sae=… -M lock=…`."""
    from auditkit.integrations.inspect.model import WatchedModelAPI

    return WatchedModelAPI


def watched_model(
    model: LanguageModel,
    watches: Sequence[tuple[SparseAutoencoder, Lock]],
    *,
    stop: bool = False,
    config: GenerateConfig | None = None,
) -> Model:
    """A model in memory, under watch, for `inspect_ai.eval(task, model=…)`."""
    settings = GenerateConfig() if config is None else config
    name = model.identity.name
    provider = cast("Callable[..., ModelAPI]", auditkit)
    api = provider(name, config=settings, loaded=model, watches=watches, stop=stop)
    return Model(api, settings)
