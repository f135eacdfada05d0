"""One file that a killed run goes on from: a safetensors file with the whole training state."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from auditkit.core.errors import InvalidInput, MismatchError
from auditkit.training.parameters import SaeParameters, TrainState

_FORMAT = "auditkit-checkpoint/2"
_NAME = "checkpoint.safetensors"
_GROUPS = ("parameters", "first_moments", "second_moments")
_BUFFERS = "buffers"


def write_checkpoint(folder: Path, state: TrainState, *, key: str) -> None:
    """Replace the folder's checkpoint atomically; `key` names the run it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{group}.{name}": tensor
        for group in _GROUPS
        for name, tensor in getattr(state, group).named().items()
    }
    tensors |= {f"{_BUFFERS}.{name}": tensor for name, tensor in state.buffers.items()}
    tensors["silent_tokens"] = state.silent_tokens
    metadata = {
        "format": _FORMAT,
        "key": key,
        "step": str(state.step),
        "scale": state.scale.hex(),
        "target_scale": "" if state.target_scale is None else state.target_scale.hex(),
    }
    partial = folder / f"{_NAME}.partial"
    save_file(tensors, partial, metadata=metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
    os.replace(partial, folder / _NAME)


def read_checkpoint(folder: Path, *, key: str) -> TrainState | None:
    """The state that the folder's checkpoint holds, None where there is none.

    Raises MismatchError where it belongs to another plan or other activations, InvalidInput where
    it cannot be read.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned: tensors lie unaligned in the file, and kernels round by alignment.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidInput(
            f"{path}: not a readable checkpoint ({error})", help="delete it to start over"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise InvalidInput(
            f"{path}: format {metadata.get('format')!r}, expected {_FORMAT!r}",
            help="delete it to start over",
        )
    if metadata["key"] != key:
        raise MismatchError(
            f"{path}: belongs to another plan or to other activations",
            help="name another checkpoint folder, or delete this one to start over",
        )
    target_scale = metadata["target_scale"]
    return TrainState(
        **{group: SaeParameters.from_named(_named(tensors, group)) for group in _GROUPS},
        silent_tokens=tensors["silent_tokens"],
        scale=float.fromhex(metadata["scale"]),
        step=int(metadata["step"]),
        target_scale=float.fromhex(target_scale) if target_scale else None,
        buffers=_named(tensors, _BUFFERS),
    )


def _named(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    start = f"{group}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
