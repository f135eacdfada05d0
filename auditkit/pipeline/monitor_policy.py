"""What a fired rule, an unknown verdict and a failing monitor do to a watched reply."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Severity
from auditkit.monitor import Action, OnFail, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPolicy:
    """With `stop`, a reply ends where a rule of `act_on` severity or above fires.

    Rules below it are told and end nothing. `on_unknown` and `on_error` are the monitor's: `open`,
    the reply goes on; `closed`, it is taken back, where an unknown rule is one that acts.

    Raises InvalidInput for a closed policy without `stop`: nothing would act.
    """

    stop: bool = False
    act_on: Severity = Severity.HIGH
    on_unknown: OnFail = OnFail.OPEN
    on_error: OnFail = OnFail.OPEN

    def __post_init__(self) -> None:
        if OnFail.CLOSED in (self.on_unknown, self.on_error) and not self.stop:
            raise InvalidInput(
                "a closed fail policy takes replies back, and the monitor is to watch only",
                help="give --stop with --fail closed",
            )

    @property
    def actions(self) -> tuple[Action, ...]:
        """The monitor's actions."""
        return (Stop(at_least=self.act_on),) if self.stop else ()
