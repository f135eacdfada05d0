"""Text files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from auditkit.core.errors import RunFailed


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it; RunFailed where it cannot be written."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        raise RunFailed(
            f"{path}: cannot be written: {error}",
            help="make room or name another place; what was recorded or measured is kept",
        ) from None
    finally:
        with suppress(OSError):
            fresh.unlink()
