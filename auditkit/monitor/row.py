"""One row of a request: its tokens under every lock, the alerts they raise, and what is done."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from auditkit.core.errors import AuditkitError
from auditkit.core.fixed_point import lift
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.core.verdicts import Truth
from auditkit.monitor.actions import Action, Escalate, Replace, Steer, Stop, name_of
from auditkit.monitor.alerts import ActionRun, Alert, Ending, Roles, RowResult, TokenSeen
from auditkit.monitor.policy import FailPolicy
from auditkit.monitor.sequence import Decided, SequenceWatch
from auditkit.monitor.watched import Entry, WatchedLock

Entries = Sequence[Entry | None]
"""What one token showed under each lock (None: not covered)."""


@dataclass(slots=True, kw_only=True, eq=False)
class Setting:
    """What all rows of a request share."""

    request: str
    watches: tuple[WatchedLock, ...]
    actions: tuple[Action, ...]
    policy: FailPolicy
    special_ids: frozenset[int]
    on_token: Callable[[TokenSeen], object] | None


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """The rules over one prompt and its reply.

    `column` is the next column of the batch to be watched; `limit` the first column after the
    reply, once it is known. `steering` are actions with the column from which they steer. `cut`:
    the reply was generated before the rules saw it, and ends where one stops it.
    """

    number: int
    prompt: TokenizedPrompt
    roles: Roles
    setting: Setting
    column: int = 0
    limit: int | None = None
    sequences: list[SequenceWatch] = field(default_factory=list[SequenceWatch])
    errors: list[str] = field(default_factory=list[str])
    runs: list[ActionRun] = field(default_factory=list[ActionRun])
    stopped_by: Alert | None = None
    why: str = ""
    ending: Ending = Ending.COMPLETED
    replacement: str | None = None
    escalations: list[Escalate] = field(default_factory=list[Escalate])
    steering: list[tuple[Steer, int]] = field(default_factory=list[tuple[Steer, int]])
    over: bool = False
    cut: bool = False
    _told: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])
    _foreseen: bool = False

    def __post_init__(self) -> None:
        if not self.sequences:
            self.sequences = [SequenceWatch(w) for w in self.setting.watches]

    @property
    def tokens(self) -> int:
        """How many tokens of the row were taken."""
        return self.sequences[0].tokens

    @property
    def ended(self) -> bool:
        """Shall the row's reply end now?"""
        return self.ending is not Ending.COMPLETED

    def push(self, token_id: int, entries: Entries) -> None:
        """Take the row's next token; alerts are acted on at once."""
        position = self.tokens
        role, message, mask = self.place(position, token_id)
        fired: list[str] = []
        for number, (sequence, entry) in enumerate(zip(self.sequences, entries, strict=True)):
            decided = sequence.push(role, message, mask, entry)
            if decided:
                fired += self._tell(number, decided)
        if self.setting.on_token is not None:
            self._show(position, token_id, role, entries, fired)
        if not self._foreseen and position + 1 >= len(self.prompt):
            self._foreseen = True
            for number, sequence in enumerate(self.sequences):
                self._tell(number, sequence.foresee(self.reply_place[0]))

    @property
    def reply_place(self) -> tuple[Role, int]:
        """Role and message index of what the model says after the prompt."""
        last = self.prompt.roles[-1]
        role = last if last in (Role.ASSISTANT, Role.TEXT) else Role.ASSISTANT
        return role, self.prompt.messages[-1] + (role is not last)

    def place(self, position: int, token_id: int) -> tuple[Role, int, int]:
        """Role, message and mask bits of a token of the row."""
        if position < len(self.prompt):
            prompt = self.prompt
            return prompt.roles[position], prompt.messages[position], int(prompt.masks[position])
        role, message = self.reply_place
        mask = TokenMask.SPECIAL if token_id in self.setting.special_ids else TokenMask.NONE
        return role, message, int(mask)

    def copy(self, number: int) -> Row:
        """A row that goes on from here: another hypothesis on the same prompt."""
        other = Row(
            number=number,
            prompt=self.prompt,
            roles=self.roles,
            setting=self.setting,
            column=self.column,
            sequences=[s.copy() for s in self.sequences],
            errors=list(self.errors),
            runs=list(self.runs),
            stopped_by=self.stopped_by,
            why=self.why,
            ending=self.ending,
            replacement=self.replacement,
            escalations=list(self.escalations),
            steering=list(self.steering),
        )
        other._told, other._foreseen = set(self._told), self._foreseen
        return other

    def catch_up(self) -> None:
        """Let every rule take the tokens it has put off, and act on what comes of it."""
        for number, sequence in enumerate(self.sequences):
            self._tell(number, sequence.settle())

    def conclude(self) -> list[Alert]:
        """Every rule's verdict on every frame; what was not told before is acted on now."""
        self.over = True
        verdicts: list[Alert] = []
        for number, sequence in enumerate(self.sequences):
            decided = sorted(sequence.finish(), key=lambda d: (d[0], d[1].frame))
            self._tell(number, decided)
            verdicts += [self._alert(number, d) for d in decided]
        return verdicts

    def judge_unknown(self, verdicts: Sequence[Alert]) -> None:
        """Apply the fail policy to what could not be decided."""
        if not self.setting.policy.unknown_closed:
            return
        acting = [a for a in self.setting.actions if isinstance(a, (Stop, Replace))]
        for alert in verdicts:
            unknown = alert.verdict.truth is Truth.UNKNOWN
            if unknown and any(a.covers(alert.rule_id, alert.severity) for a in acting):
                reason = alert.verdict.reason
                self.refuse(f"rule {alert.rule_id} is undecided: {reason and reason.value}")
                return
        if self.roles is not Roles.UNKNOWN:
            return
        for watched in (w for lock in self.setting.watches for w in lock.rules):
            rule = watched.rule
            if watched.uses_roles and any(a.covers(rule.id, rule.severity) for a in acting):
                self.refuse(f"rule {rule.id} needs roles, and the prompt's are not known")
                return

    def fail(self, error: Exception) -> None:
        """Something in the monitor failed: note it, and what follows is not covered."""
        where = traceback.extract_tb(error.__traceback__)
        place = f" ({where[-1].name})" if where and not isinstance(error, AuditkitError) else ""
        text = f"{type(error).__name__}: {error}{place}"
        if len(self.errors) < 20:
            self.errors.append(text)
        if self.setting.policy.error_closed:
            self.refuse(f"the monitor failed: {text}")

    def refuse(self, why: str) -> None:
        """Take the reply back: the fail policy is closed."""
        if self.ending in (Ending.WITHHELD, Ending.REPLACED):
            return
        text = next((a.text for a in self.setting.actions if isinstance(a, Replace)), None)
        self.why, self.replacement = why, text
        self.ending = Ending.WITHHELD if text is None else Ending.REPLACED

    def cancel(self, why: str) -> None:
        """The caller ended the row."""
        if not self.ended:
            self.ending, self.why = Ending.CANCELLED, why

    def tell(self, alert: Alert, key: tuple[int, int, int] | None = None) -> None:
        """Act on a true verdict, once per rule and frame."""
        if key is not None:
            if key in self._told:
                return
            self._told.add(key)
        for action in self.setting.actions:
            if not action.covers(alert.rule_id, alert.severity):
                continue
            try:
                detail = action.act(self, alert)
            except Exception as error:
                self.fail(error)
                detail = f"failed: {error}"
            self.runs.append(
                ActionRun(
                    action=name_of(action),
                    rule_id=alert.rule_id,
                    frame=alert.frame,
                    token=alert.token,
                    detail=detail,
                )
            )

    def stop(self, alert: Alert) -> str:
        if self.over:
            return "the reply had ended"
        if not self.ended:
            self.ending, self.stopped_by = Ending.STOPPED, alert
            self.why = _fired(alert)
        return "the reply ends here"

    def replace(self, alert: Alert, text: str) -> str:
        if self.ending in (Ending.REPLACED, Ending.WITHHELD):
            return "already replaced"
        self.ending, self.replacement = Ending.REPLACED, text
        self.stopped_by, self.why = self.stopped_by or alert, _fired(alert)
        return "the reply is replaced"

    def steer(self, steering: Steer) -> str:
        if any(known is steering for known, _ in self.steering):
            return "already steered"
        self.steering.append((steering, self.column))
        return "steered from the next token on"

    def escalate(self, escalation: Escalate) -> str:
        if not any(known is escalation for known in self.escalations):
            self.escalations.append(escalation)
        return "to the costlier check"

    def result(self, verdicts: Sequence[Alert], ids: Sequence[int]) -> RowResult:
        """The row's result, its reply being `ids`."""
        return RowResult(
            request=self.setting.request,
            row=self.number,
            prompt_id=self.prompt.prompt_id,
            verdicts=tuple(verdicts),
            ending=self.ending,
            why=self.why,
            stopped_by=self.stopped_by,
            actions=tuple(self.runs),
            errors=tuple(self.errors),
            tokens=self.tokens,
            prompt_tokens=len(self.prompt),
            ids=tuple(ids),
            roles=self.roles,
            escalated=bool(self.escalations),
        )

    def _tell(self, number: int, decided: Sequence[Decided]) -> list[str]:
        fired: list[str] = []
        for rule, outcome in decided:
            if outcome.verdict.truth is Truth.TRUE:
                alert = self._alert(number, (rule, outcome))
                fired.append(alert.rule_id)
                self.tell(alert, (number, rule, outcome.frame))
        return fired

    def _alert(self, number: int, decided: Decided) -> Alert:
        watched = self.setting.watches[number]
        return alert_of(self, watched, decided)

    def _show(
        self, position: int, token_id: int, role: Role, entries: Entries, fired: list[str]
    ) -> None:
        assert self.setting.on_token is not None
        signals: dict[str, dict[str, float | None]] = {}
        for watched, entry in zip(self.setting.watches, entries, strict=True):
            for rule in watched.rules:
                values = rule.uncovered if entry is None else rule.values(entry)
                signals[rule.rule.id] = {
                    name: None if value is None else lift(value) for name, value in values.items()
                }
        seen = TokenSeen(
            row=self.number,
            position=position,
            token_id=token_id,
            role=role,
            generated=position >= len(self.prompt),
            signals=signals,
            fired=tuple(fired),
        )
        try:
            self.setting.on_token(seen)
        except Exception as error:
            self.fail(error)


def alert_of(row: Row, watched: WatchedLock, decided: Decided) -> Alert:
    """A rule's outcome as the caller is told of it."""
    number, outcome = decided
    rule = watched.rules[number].rule
    return Alert(
        request=row.setting.request,
        row=row.number,
        prompt_id=row.prompt.prompt_id,
        rule_id=rule.id,
        title=rule.title,
        severity=rule.severity,
        hook_point=watched.hook_point.name,
        frame=outcome.frame,
        verdict=outcome.verdict,
        token=outcome.token,
        score=outcome.score,
        final=outcome.final,
    )


def _fired(alert: Alert) -> str:
    at = "" if alert.token is None else f" at token {alert.token}"
    return f"rule {alert.rule_id} fired{at}"
