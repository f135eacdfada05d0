"""Inspect AI: a watched model, our suites as its datasets, a scorer and hooks for its logs.

Needs the extra `inspect`. Names are resolved when they are asked for: nothing is registered with
Inspect until then, or until Inspect asks for our entry point (`registry`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditkit.integrations.inspect.hooks import VerdictHooks
    from auditkit.integrations.inspect.registry import watched_model
    from auditkit.integrations.inspect.samples import suite_dataset
    from auditkit.integrations.inspect.scoring import watched_rules

__all__ = [
    "VerdictHooks",
    "suite_dataset",
    "watched_model",
    "watched_rules",
]

_HOMES = {
    "VerdictHooks": "hooks",
    "suite_dataset": "samples",
    "watched_model": "registry",
    "watched_rules": "scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import_module("auditkit.integrations.inspect.registry")  # the hooks count from now on
        return getattr(import_module(f"auditkit.integrations.inspect.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "inspect_ai":
            raise
        raise ImportError(
            f"{__name__}.{name} needs Inspect AI: pip install 'auditkit-sae[inspect]'"
        ) from error
