"""Tokens in order → frames: the same frames that the compiled SQL makes, one token at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.locks import Frame, LockedRule, Scope
from auditkit.core.measured import Measure
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Verdict
from auditkit.rules.lowered.plan import Plan
from auditkit.rules.streaming.stream import StreamEvaluator, StreamSnapshot, TokenSignals

BY_MESSAGE = (Frame.MESSAGE, Frame.PAIRED_MESSAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a token belongs: frame number, and place among its eligible tokens.

    `frame` None: outside any frame; `epos` None: not eligible (masked, out of scope or skipped).
    """

    frame: int | None
    epos: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblerSnapshot:
    """The state of an assembler between two tokens."""

    frame: int
    eligible: int
    message: int | None
    users: frozenset[int]


class FrameAssembler:
    """Numbers the frames of one prompt and the eligible tokens in them.

    Eligible: not masked, in the scope's roles; the first `skip_first` of a frame are dropped.
    `conversation`: one frame. `exchange`: from a user message up to the next; what stands before
    the first belongs to it. `message`, `paired_message`: one per message that has an eligible
    token. `token`: one per eligible token but the prompt's first `skip_first`.
    """

    def __init__(self, frame: Frame, scope: Scope, masked: TokenMask) -> None:
        self._kind, self._scope, self._masked = frame, scope, int(masked)
        self.reset()

    def reset(self) -> None:
        """Begin the next prompt."""
        self._frame = 0 if self._kind in (Frame.CONVERSATION, Frame.EXCHANGE) else -1
        self._eligible = 0
        self._message: int | None = None
        self._users: frozenset[int] = frozenset()

    def place(self, role: Role, message: int, mask: int) -> Placement:
        """Place the prompt's next token; `message` is its message index, `mask` its mask bits."""
        eligible = not (mask & self._masked) and (
            not self._scope.roles or role in self._scope.roles
        )
        if self._kind is Frame.EXCHANGE and role is Role.USER and message not in self._users:
            if self._users:
                self._open(self._frame + 1)
            self._users |= {message}
        if self._kind is Frame.TOKEN:
            return self._place_token(eligible)
        if self._kind in BY_MESSAGE:
            if not eligible:
                return Placement(frame=None, epos=None)
            if message != self._message:
                self._message = message
                self._open(self._frame + 1)
        if not eligible:
            return Placement(frame=self._frame, epos=None)
        self._eligible += 1
        epos = self._eligible - 1 - self._scope.skip_first
        return Placement(frame=self._frame, epos=epos if epos >= 0 else None)

    def _place_token(self, eligible: bool) -> Placement:
        if eligible:
            self._eligible += 1
        if not eligible or self._eligible <= self._scope.skip_first:
            return Placement(frame=None, epos=None)
        self._frame += 1
        return Placement(frame=self._frame, epos=0)

    def place_run(self, role: Role, message: int, mask: int, n: int) -> tuple[int | None, int]:
        """Place `n` tokens that are all alike: their frame, and how many of them belong to it.

        Those that belong are the last ones: only the first of a frame are skipped. Not for frames
        of a single token.
        """
        first = self.place(role, message, mask)
        eligible = not (mask & self._masked) and (
            not self._scope.roles or role in self._scope.roles
        )
        if first.frame is None or not eligible:
            return first.frame, 0
        self._eligible += n - 1
        return first.frame, max(0, min(n, self._eligible - self._scope.skip_first))

    def _open(self, frame: int) -> None:
        self._frame, self._eligible = frame, 0

    @property
    def frame(self) -> int | None:
        """The open frame's number; None before the first."""
        return self._frame if self._frame >= 0 else None

    def snapshot(self) -> AssemblerSnapshot:
        """The state between two tokens, to come back to."""
        return AssemblerSnapshot(
            frame=self._frame, eligible=self._eligible, message=self._message, users=self._users
        )

    def restore(self, snapshot: AssemblerSnapshot) -> None:
        """Go back to a snapshot."""
        self._frame, self._eligible = snapshot.frame, snapshot.eligible
        self._message, self._users = snapshot.message, snapshot.users


def split_frames(
    frame: Frame, scope: Scope, masked: TokenMask, tokens: Iterable[tuple[Role, int, int]]
) -> list[list[int]]:
    """The frames of one whole prompt: for each, the indices of its eligible tokens.

    `tokens` are (role, message index, mask bits) in order.
    """
    assembler = FrameAssembler(frame, scope, masked)
    frames: dict[int, list[int]] = {}
    for index, (role, message, mask) in enumerate(tokens):
        placed = assembler.place(role, message, mask)
        if placed.frame is not None:
            members = frames.setdefault(placed.frame, [])
            if placed.epos is not None:
                members.append(index)
    return [frames[number] for number in sorted(frames)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOutcome:
    """A rule's verdict on one frame; `token` is the firing token's index in the prompt.

    `final` is False where a latching rule fired before the frame ended: the frame's score may
    still rise, its verdict no longer changes.
    """

    frame: int
    verdict: Verdict
    token: int | None
    score: Measure
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherSnapshot:
    """The state of a watcher between two tokens."""

    assembler: AssemblerSnapshot
    evaluator: StreamSnapshot
    fired_at: int | None
    last: int
    index: int
    open: int | None
    announced: bool


class RuleWatcher:
    """One rule over the tokens of one prompt as they come: frames, verdicts, early firing."""

    def __init__(self, rule: LockedRule | Plan, masked: TokenMask) -> None:
        self.evaluator = StreamEvaluator(rule)
        plan = self.evaluator.plan
        self._by_token = plan.frame is Frame.TOKEN
        self._assembler = FrameAssembler(plan.frame, plan.scope, masked)
        self.reset()

    def reset(self, twin: Sequence[Sequence[TokenSignals]] = ()) -> None:
        """Begin the next prompt; `twin`: the frames of its twin, each with its eligible tokens."""
        self._twin = twin
        self._assembler.reset()
        self._begin(None)
        self._index = 0

    def _begin(self, frame: int | None) -> None:
        self.evaluator.reset()
        if frame is not None and frame < len(self._twin):
            self.evaluator.compare_with(self._twin[frame])
        self._fired_at: int | None = None
        self._last = -1
        self._open, self._announced = frame, False

    def push(
        self, role: Role, message: int, mask: int, values: Mapping[str, int | None]
    ) -> list[FrameOutcome]:
        """Take the prompt's next token; return what it decided: an ended frame, an early firing."""
        return self.push_run(role, message, mask, values, 1)

    def push_run(
        self, role: Role, message: int, mask: int, values: Mapping[str, int | None], n: int
    ) -> list[FrameOutcome]:
        """Take the prompt's next `n` tokens, all alike: the same as n times `push`."""
        if self._by_token and n > 1:
            pushed = (self.push_run(role, message, mask, values, 1) for _ in range(n))
            return [outcome for outcomes in pushed for outcome in outcomes]
        frame, members = self._assembler.place_run(role, message, mask, n)
        outcomes: list[FrameOutcome] = []
        if frame is not None and frame != self._open:
            outcomes += self.finish()
            self._begin(frame)
        if members:
            self._last = self._index + n - 1
            before = self.evaluator.tokens
            self.evaluator.push_run(TokenSignals(role=role, values=values), members)
            fired = self.evaluator.fired
            if fired is not None and not self._announced:
                self._fired_at = self._index + n - members + fired - before
                outcomes += self._early()
        self._index += n
        return outcomes

    def _early(self) -> list[FrameOutcome]:
        self._announced = True
        return [self._outcome(self.evaluator.verdict(), final=False)]

    def finish(self) -> list[FrameOutcome]:
        """The verdict on the open frame, if there is one: call it when the prompt has ended."""
        if self._open is None:
            return []
        outcome = self._outcome(self.evaluator.finish(), final=True)
        self._begin(None)
        return [outcome]

    def _outcome(self, verdict: Verdict, *, final: bool) -> FrameOutcome:
        assert self._open is not None
        return FrameOutcome(
            frame=self._open,
            verdict=verdict,
            token=None if verdict.at is None else self._token(),
            score=self.evaluator.score(),
            final=final,
        )

    def _token(self) -> int:
        """A latching rule fires where it became true, any other at the frame's last token."""
        return self._last if self._fired_at is None else self._fired_at

    def snapshot(self) -> WatcherSnapshot:
        """The state between two tokens, to come back to."""
        return WatcherSnapshot(
            assembler=self._assembler.snapshot(),
            evaluator=self.evaluator.snapshot(),
            fired_at=self._fired_at,
            last=self._last,
            index=self._index,
            open=self._open,
            announced=self._announced,
        )

    def restore(self, snapshot: WatcherSnapshot) -> None:
        """Go back to a snapshot of a watcher of the same rule."""
        self._assembler.restore(snapshot.assembler)
        self.evaluator.restore(snapshot.evaluator)
        self._fired_at, self._last = snapshot.fired_at, snapshot.last
        self._index = snapshot.index
        self._open, self._announced = snapshot.open, snapshot.announced
