"""New folders that are there whole or not at all, and what no exported format can say."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from auditkit.core.errors import InvalidInput, NotSupportedYet, RunFailed
from auditkit.saes.sparse_autoencoder import SparseAutoencoder


def write_new_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write a new folder's content, and put it at `folder`.

    Raises InvalidInput where something stands there already, RunFailed where it cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(
            f"{folder}: there is something already", help="name a folder that does not exist yet"
        )
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        fresh.mkdir(parents=True)
        fill(fresh)
        if folder.exists():
            folder.rmdir()
        fresh.rename(folder)
    except OSError as error:
        raise RunFailed(
            f"{folder}: the SAE cannot be written: {error.strerror or error}",
            help="choose a folder that is writable and has space",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def refuse_normalised(sae: SparseAutoencoder, format_name: str) -> None:
    """Raise NotSupportedYet where each token's activations are normalised by themselves."""
    mode = sae.config.normalize_activations
    if mode.per_token:
        raise NotSupportedYet(
            f"SAE {sae.config.name}: {format_name} cannot say {mode.value}, "
            "under which every token has its own scale",
            help="export it as saelens",
        )
