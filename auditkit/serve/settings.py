"""What the server is told: where it listens, what it does with verdicts, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Severity

MIN_TOKEN_LENGTH = 16
REFUSAL = "I can't help with that."


class Action(StrEnum):
    """What happens to a reply when a rule fires: nothing, it ends there, or a refusal instead."""

    RECORD = "record"
    STOP = "stop"
    REPLACE = "replace"


class FailPolicy(StrEnum):
    """What an unknown verdict or a broken monitor does: let the reply pass, or block it."""

    OPEN = "open"
    CLOSED = "closed"


class Hold(StrEnum):
    """How much of a streamed reply waits for the rules: its last token, or all of it."""

    TOKEN = "token"
    REPLY = "reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request and all of them together may take. Times are in seconds."""

    body_bytes: int = 1 << 20
    prompt_tokens: int = 4096
    new_tokens: int = 512
    concurrency: int = 2
    queue_length: int = 64
    request_seconds: float = 300.0
    body_seconds: float = 30.0
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        least = {"queue_length": 0}
        for name in self.__dataclass_fields__:
            value, low = getattr(self, name), least.get(name, 1)
            if value < low:
                raise InvalidInput(f"{name} is at least {low}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What verdicts lead to. Rules below `act_on` are recorded and change nothing."""

    action: Action = Action.RECORD
    act_on: Severity = Severity.HIGH
    fail: FailPolicy = FailPolicy.OPEN
    hold: Hold = Hold.TOKEN
    refusal: str = REFUSAL

    def __post_init__(self) -> None:
        if self.fail is FailPolicy.CLOSED and self.action is Action.RECORD:
            raise InvalidInput(
                "a closed fail policy blocks replies, and the action is to record only",
                help="give --action stop or --action replace with --fail closed",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """One server. `token` is what clients must present (None: nothing, on loopback only)."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    log_prompts: bool = False

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise InvalidInput(
                f"{self.host} can be reached from other machines, and no token is set",
                help="name a variable that holds one (--token-env NAME) or a file (--token-file "
                "PATH), or listen on 127.0.0.1",
            )
        if self.token is not None:
            check_token(self.token)


def check_token(token: str) -> None:
    """Raise InvalidInput for a token that is short or that a header cannot carry."""
    if len(token) < MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable()):
        raise InvalidInput(
            f"the token has {len(token)} characters, or some that a header cannot carry",
            help=f"at least {MIN_TOKEN_LENGTH} printable ASCII characters: openssl rand -hex 32",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
