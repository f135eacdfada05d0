"""Patterns on text, on RE2: linear in the text's length, whatever the pattern is."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

MAX_MEMORY = 8 << 20
MAX_TEXT = 1_000_000
"""Characters of a text that a pattern looks at."""


class PatternError(ValueError):
    """A pattern that RE2 does not take, with its reason."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """A function that says whether `pattern` is found in a text; PatternError for a bad pattern.

    Only the first `MAX_TEXT` characters are looked at; a pattern may need no more than
    `MAX_MEMORY` bytes.
    """
    re2: Any = import_module("re2")
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "not a pattern"
        told = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(told) from None
    except UnicodeEncodeError:
        raise PatternError("half of a character (a lone surrogate)") from None
    return lambda text: compiled.search(_encodable(text[:MAX_TEXT])) is not None


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
