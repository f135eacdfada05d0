"""Commands that torchrun must not start: every process would do the same, into the same files."""

from __future__ import annotations

import os

from auditkit.core.errors import InvalidInput


def require_one_process(command: str) -> None:
    """Raise InvalidInput where torchrun started `command` as one of several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidInput(
            f"{command} does not run on several processes",
            help="start it without torchrun; sae train is what is shared out",
        )
