"""What is done when a rule fires. Each action says which rules it listens to.

`Record`, `Call` and `LogJsonl` only tell; `Stop`, `Replace` and `Steer` act on the generation, and
need a fail policy; `Escalate` sends the sequence to a costlier check.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import canonical_json
from auditkit.core.locks import Lock, Severity
from auditkit.monitor.alerts import Alert
from auditkit.saes import SparseAutoencoder


@runtime_checkable
class ActedOn(Protocol):
    """What an action may do to the row that an alert is about."""

    def stop(self, alert: Alert) -> str:
        """End the reply at the next token."""
        ...

    def replace(self, alert: Alert, text: str) -> str:
        """End the reply, and put `text` in its place."""
        ...

    def steer(self, steering: Steer) -> str:
        """Steer the row's tokens from here on."""
        ...

    def escalate(self, escalation: Escalate) -> str:
        """Send the row to the costlier check when its reply has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Action:
    """Something done when a rule fires: a rule of `rules` (empty: any) of `at_least` severity."""

    acts: ClassVar[bool] = False
    """Does it change what is generated? Such an action needs a fail policy."""

    rules: tuple[str, ...] = ()
    at_least: Severity = Severity.INFO

    def __post_init__(self) -> None:
        if isinstance(self.rules, str):
            raise InvalidInput(
                f"{type(self).__name__}: rules is a tuple of rule ids, not the text {self.rules!r}"
            )

    def covers(self, rule_id: str, severity: Severity) -> bool:
        """Does this action listen to the rule?"""
        named = not self.rules or rule_id in self.rules
        return named and severity.rank >= self.at_least.rank

    def act(self, row: ActedOn, alert: Alert) -> str:
        """Do it; return a word about what was done."""
        raise InvalidInput(f"{type(self).__name__} does nothing: use one of the actions")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record(Action):
    """Keep the last `limit` alerts in `alerts`."""

    limit: int = 10_000
    alerts: deque[Alert] = field(init=False)

    def __post_init__(self) -> None:
        Action.__post_init__(self)
        object.__setattr__(self, "alerts", deque(maxlen=self.limit))

    def act(self, row: ActedOn, alert: Alert) -> str:
        del row
        self.alerts.append(alert)
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Call(Action):
    """Call `function(alert)`, in the thread that generates."""

    function: Callable[[Alert], object] = field(kw_only=False)

    def act(self, row: ActedOn, alert: Alert) -> str:
        del row
        self.function(alert)
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class LogJsonl(Action):
    """Append each alert as a line of JSON to the file `path`; whole lines from any thread."""

    path: str | os.PathLike[str] = field(kw_only=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def act(self, row: ActedOn, alert: Alert) -> str:
        del row
        line = canonical_json(alert) + "\n"
        with self._lock, Path(self.path).open("a", encoding="utf-8") as file:
            file.write(line)
        return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stop(Action):
    """End the reply at the token where the rule fires; in beam search it is cut there.

    The caller reads why in the row's result.
    """

    acts: ClassVar[bool] = True

    def act(self, row: ActedOn, alert: Alert) -> str:
        return row.stop(alert)


@dataclass(frozen=True, slots=True, eq=False)
class Replace(Action):
    """End the reply and return `text` in its place.

    What a streamer was given before the rule fired has been said; only the result is replaced.
    """

    acts: ClassVar[bool] = True
    text: str = field(kw_only=False)

    def act(self, row: ActedOn, alert: Alert) -> str:
        return row.replace(alert, self.text)


class When(StrEnum):
    """From when on a row is steered: from where a rule fired, or from its first token."""

    FIRED = "fired"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steer(Action):
    """Hold the rule's latents down to `ceiling`, in the signal's unit.

    x' = x + Σ (f'ⱼ − fⱼ) dⱼ over the latents above it, so what the SAE does not explain of x stays
    as it is. ‖x' − x‖ is kept within `bound` times ‖x‖. A row is steered from the token after the
    one at which the rule fired, or at all tokens with when="always".
    """

    acts: ClassVar[bool] = True
    ceiling: float = 0.0
    bound: float = 0.3
    when: str = When.FIRED

    def __post_init__(self) -> None:
        Action.__post_init__(self)
        if not 0 < self.bound <= 1 or self.ceiling < 0:
            raise InvalidInput(
                f"Steer: bound {self.bound} is a share of ‖x‖ in (0, 1], ceiling {self.ceiling} "
                "is not negative"
            )
        if self.when not in tuple(When):
            raise InvalidInput(f"Steer: when is 'fired' or 'always', not {self.when!r}")

    def act(self, row: ActedOn, alert: Alert) -> str:
        return row.steer(self)


@dataclass(frozen=True, slots=True, eq=False)
class Escalate(Action):
    """Send the sequence to the rules of costlier locks, once its reply has ended.

    A cheap rule decides which sequences those are; `Request.cost` says what was saved. Alerts of
    the costlier rules go to the monitor's other actions.
    """

    watches: Sequence[tuple[SparseAutoencoder, Lock]] = field(kw_only=False)

    def act(self, row: ActedOn, alert: Alert) -> str:
        return row.escalate(self)


def name_of(action: Action) -> str:
    """The action's name in results and logs."""
    return type(action).__name__.lower()
