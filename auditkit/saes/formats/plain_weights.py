"""Other tools' weights: matrices by name, their sizes, and where in the model they belong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from auditkit.core.errors import InvalidInput, WeightsError
from auditkit.core.hook_point import HookPoint


def require_names(tensors: Mapping[str, Tensor], names: set[str], path: Path, whose: str) -> None:
    """Raise WeightsError unless the tensors have exactly these names."""
    missing, surplus = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
    if missing or surplus:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing)
        faults += [f"has unexpected {', '.join(surplus)}"] * bool(surplus)
        raise WeightsError(
            f"{path}: {' and '.join(faults)}",
            help=f"{whose} has exactly {', '.join(sorted(names))}",
        )


def require_matrix(tensor: Tensor, name: str, path: Path) -> tuple[int, int]:
    """Rows and columns; raise WeightsError for what is no matrix."""
    if tensor.ndim != 2:
        raise WeightsError(
            f"{path}: {name} has shape {list(tensor.shape)}, expected a matrix",
            help="the file was cut off, or another tool wrote it",
        )
    return tensor.shape[0], tensor.shape[1]


def require_hook_point(found: HookPoint | None, given: HookPoint | None, path: Path) -> HookPoint:
    """The hook point that the source names, else the one given; raise InvalidInput for neither."""
    chosen = found or given
    if chosen is None:
        raise InvalidInput(
            f"{path}: nothing says where in the model this SAE reads",
            help="give its hook point, for example blocks.12.hook_resid_post",
        )
    return chosen
