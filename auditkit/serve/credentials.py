"""The token that clients present: from the environment or a file, never from the command line."""

from __future__ import annotations

import os
from pathlib import Path

from auditkit.core.errors import InvalidInput


def read_token(*, variable: str | None, file: Path | None) -> str | None:
    """The token that one of both names; None where neither is given. Messages never show it."""
    if variable is not None and file is not None:
        raise InvalidInput("--token-env and --token-file are both given", help="give one of them")
    if variable is not None:
        token = os.environ.get(variable, "").strip()
        if not token:
            raise InvalidInput(
                f"the environment variable {variable[:64]!r} is not set, or empty",
                help="--token-env takes the variable's name, not the token",
            )
        return token
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: the token cannot be read: {error}") from None
    if not token:
        raise InvalidInput(f"{file}: the file holds no token")
    return token
