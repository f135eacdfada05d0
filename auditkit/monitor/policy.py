"""What happens when a verdict is unknown, or the monitor itself fails: the caller says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from auditkit.core.errors import InvalidInput
from auditkit.monitor.actions import Action, name_of


class OnFail(StrEnum):
    """`open`: the reply goes on, and the result says what happened. `closed`: it is taken back."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailPolicy:
    """The two answers of the caller."""

    unknown_closed: bool
    error_closed: bool


def fail_policy(
    on_unknown: str | None, on_error: str | None, actions: Sequence[Action]
) -> FailPolicy:
    """The policy; InvalidInput where an acting action is given and the policy is not."""
    for name, value in (("on_unknown", on_unknown), ("on_error", on_error)):
        if value is not None and value not in tuple(OnFail):
            raise InvalidInput(f"{name} is 'open' or 'closed', not {value!r}")
        acting = [name_of(a) for a in actions if a.acts]
        if value is None and acting:
            raise InvalidInput(
                f"the monitor acts ({', '.join(acting)}), and {name} is not given",
                help=f"{name}='open': the reply goes on; {name}='closed': it is taken back",
            )
    return FailPolicy(
        unknown_closed=on_unknown == OnFail.CLOSED, error_closed=on_error == OnFail.CLOSED
    )
