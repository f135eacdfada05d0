"""One request under watch: tokens come in chunks, from a cache, or a second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from auditkit.core.errors import MismatchError
from auditkit.core.fingerprint import to_plain
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.measured import NotMeasured
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.integrations.vllm.layout import PromptLayout
from auditkit.integrations.vllm.ledger import Ledger, TokenReading, next_key
from auditkit.rules import FrameOutcome, RuleWatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestVerdicts:
    """A request's verdicts at one hook point, every rule and frame.

    `tokens` passed through or were accounted for, of which `remembered` were known from an earlier
    request and `uncovered` not at all; `errors` says why, where the adapter failed.
    """

    request: str
    hook_point: str
    verdicts: tuple[tuple[str, FrameOutcome], ...]
    tokens: int
    remembered: int
    uncovered: int
    errors: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """JSON-ready, as it leaves the worker process."""
        return {
            "request": self.request,
            "hook_point": self.hook_point,
            "verdicts": [{"rule": rule, **to_plain(o)} for rule, o in self.verdicts],
            "tokens": self.tokens,
            "remembered": self.remembered,
            "uncovered": self.uncovered,
            "errors": list(self.errors),
        }


class RequestWatch:
    """The rules of a lock over one request's tokens, by their positions."""

    def __init__(
        self,
        request: str,
        prompt: Sequence[int],
        layout: PromptLayout,
        lock: Lock,
        *,
        ledger: Ledger,
        key: bytes | None,
        special: frozenset[int] = frozenset(),
    ) -> None:
        self._request, self._lock, self._layout = request, lock, layout
        self._reply_role, self._reply_message = layout.reply()
        self._prompt, self._special = tuple(prompt), special
        self._ledger, self._key = ledger, key
        self._ids: list[int] = []
        self._watchers = [RuleWatcher(rule, lock.masked) for rule in lock.rules]
        self._finals: list[tuple[str, FrameOutcome]] = []
        self._early: list[tuple[str, FrameOutcome]] = []
        self._remembered = self._uncovered = 0
        self._errors: list[str] = []

    @property
    def seen(self) -> int:
        """How many positions are settled, from 0 on."""
        return len(self._ids)

    def fail(self, why: str) -> None:
        """Watch this request no further: what is not true by now stays unknown."""
        self._errors.append(why)

    def take(
        self, first: int, ids: Sequence[int], readings: Sequence[TokenReading] | None
    ) -> list[tuple[str, FrameOutcome]]:
        """Take the tokens at positions `first`…; return the rules that they made fire.

        Positions before `first` that were never seen came from the prefix cache. Positions already
        settled are being recomputed after a preemption, and are left as they are. Without readings
        the tokens are not covered. Raises MismatchError where a position changes its token.
        """
        if self._errors:
            return []
        fired = [f for p in range(self.seen, first) for f in self._from_cache(p)]
        for n, token in enumerate(ids):
            position = first + n
            if position < self.seen:
                if self._ids[position] != token:
                    raise MismatchError(
                        f"request {self._request}: position {position} was token "
                        f"{self._ids[position]} and is now {token}"
                    )
                continue
            fired += self._push(token, None if readings is None else readings[n])
        return fired

    def _from_cache(self, position: int) -> list[tuple[str, FrameOutcome]]:
        if position >= len(self._prompt):
            raise MismatchError(
                f"request {self._request}: position {position} of its reply was never computed here"
            )
        token = self._prompt[position]
        found = None if self._key is None else self._ledger.find(next_key(self._key, token))
        self._remembered += found is not None
        return self._push(token, found)

    def _push(self, token: int, reading: TokenReading | None) -> list[tuple[str, FrameOutcome]]:
        position = self.seen
        self._ids.append(token)
        self._uncovered += reading is None
        if self._key is not None:
            self._key = next_key(self._key, token)
            if reading is not None:
                self._ledger.keep(self._key, reading)
        given = position < len(self._layout)
        role = self._layout.roles[position] if given else self._reply_role
        message = self._layout.messages[position] if given else self._reply_message
        mask = self._mask(position, token, reading)
        fired: list[tuple[str, FrameOutcome]] = []
        for n, (rule, watcher) in enumerate(zip(self._lock.rules, self._watchers, strict=True)):
            values = _nothing(rule) if reading is None else reading.signals[n]
            fired += self._kept(rule, watcher.push(role, message, int(mask), values))
        return fired

    def _mask(self, position: int, token: int, reading: TokenReading | None) -> TokenMask:
        if position < len(self._layout):
            mask = self._layout.masks[position]
        else:
            mask = TokenMask.SPECIAL if token in self._special else TokenMask.NONE
        high = reading is not None and reading.high_norm
        return mask | TokenMask.HIGH_NORM if high else mask

    def _kept(
        self, rule: LockedRule, outcomes: Sequence[FrameOutcome]
    ) -> list[tuple[str, FrameOutcome]]:
        named = [(rule.id, outcome) for outcome in outcomes]
        self._finals += [(r, o) for r, o in named if o.final]
        early = [(r, o) for r, o in named if not o.final]
        self._early += early
        return early

    def finish(self) -> RequestVerdicts:
        """End the open frames: what every rule came to on the tokens that passed through."""
        if self._errors:
            self._finals = self._known()
        else:
            for rule, watcher in zip(self._lock.rules, self._watchers, strict=True):
                self._kept(rule, watcher.finish())
        return RequestVerdicts(
            request=self._request,
            hook_point=str(self._lock.sae.hook_point),
            verdicts=tuple(self._finals),
            tokens=self.seen,
            remembered=self._remembered,
            uncovered=self._uncovered,
            errors=tuple(self._errors),
        )

    def _known(self) -> list[tuple[str, FrameOutcome]]:
        """What a failed request still says: what fired has fired, every other rule is unknown."""
        true = [(r, o) for r, o in [*self._finals, *self._early] if o.verdict.truth is Truth.TRUE]
        fired = {rule for rule, _ in true}
        reason = Reason.NOT_COVERED
        unknown = FrameOutcome(
            frame=0,
            verdict=Verdict(truth=Truth.UNKNOWN, reason=reason),
            token=None,
            score=NotMeasured(reason.value),
            final=True,
        )
        return true + [(rule.id, unknown) for rule in self._lock.rules if rule.id not in fired]


def _nothing(rule: LockedRule) -> dict[str, int | None]:
    return {signal.name: None for signal in rule.signals}
