"""Options that take one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from auditkit.core.errors import InvalidInput

E = TypeVar("E", bound=StrEnum)


def chosen(kind: type[E], option: str, text: str) -> E:
    """The member of `kind` that `text` names; InvalidInput, naming all of them, where none is.

    Commands take such options as text: a help page should not wait for the enums' modules.
    """
    try:
        return kind(text)
    except ValueError:
        names = ", ".join(member.value for member in kind)
        raise InvalidInput(f"{option} {text!r} is not known", help=f"one of {names}") from None
