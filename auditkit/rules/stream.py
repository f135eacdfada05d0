"""The streaming evaluator: a rule's verdict on a frame, token by token, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.fixed_point import SCALE
from auditkit.core.locks import LockedRule
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.rules.kleene import Held, Judged, at_least, decide, negate
from auditkit.rules.lowering import lower_rule
from auditkit.rules.plan import FrameAtLeast, FrameCut, FrameNode, FrameNot, Plan
from auditkit.rules.running import AggregateState, Snapshot, new_state

REASONS = tuple(Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSignals:
    """One eligible token: its role and every signal's value (None: not covered)."""

    role: Role
    values: Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSnapshot:
    """The state of an evaluator between two tokens."""

    states: tuple[Snapshot, ...]
    tokens: int
    fired: int | None


class StreamEvaluator:
    """Evaluates one rule on one frame; `reset` begins the next frame.

    `push` takes the frame's eligible tokens in order, in chunks of any size. `verdict` is the
    verdict on the tokens so far; for a latching rule a true verdict is final.
    """

    def __init__(self, rule: LockedRule | Plan) -> None:
        self.plan = lower_rule(rule)
        self._names = tuple(s.name for s in self.plan.signals)
        self.reset()

    @property
    def latching(self) -> bool:
        """May a true verdict be acted on before the frame has ended?"""
        return self.plan.latching

    @property
    def tokens(self) -> int:
        """Number of eligible tokens pushed in this frame."""
        return self._tokens

    def reset(self) -> None:
        """Forget the frame."""
        self._states: list[AggregateState] = [
            new_state(a, self.plan.signals) for a in self.plan.aggregates
        ]
        self._tokens = 0
        self._fired: int | None = None

    @property
    def fired(self) -> int | None:
        """Where in the frame a latching rule has become true, if it has."""
        return self._fired

    def push(self, tokens: Sequence[TokenSignals]) -> None:
        """Take the next eligible tokens of the frame; KeyError if a signal's value is missing."""
        for token in tokens:
            self.push_run(token, 1)

    def push_run(self, token: TokenSignals, n: int) -> None:
        """Take `n` eligible tokens that are all alike: the same as n times `push`."""
        values = [
            token.values[name] if signal.resolved else None
            for name, signal in zip(self._names, self.plan.signals, strict=True)
        ]
        if not self.latching or self._fired is not None:
            self._add(token.role, values, n)
        elif n == 1:
            self._add(token.role, values, 1)
            if self._judge(self.plan.root).truth:
                self._fired = self._tokens - 1
        else:
            before = self.snapshot()
            self._add(token.role, values, n)
            if self._judge(self.plan.root).truth:  # somewhere in the run: look for the token
                self.restore(before)
                for _ in range(n):
                    self.push_run(token, 1)

    def _add(self, role: Role, values: Sequence[int | None], n: int) -> None:
        for aggregate, state in zip(self.plan.aggregates, self._states, strict=True):
            if aggregate.sees(role):
                state.add(values, n)
        self._tokens += n

    def verdict(self) -> Verdict:
        """What the frame comes to if it ends after the tokens pushed so far."""
        judged = self._judge(self.plan.root)
        if judged.truth is None:
            return Verdict(truth=Truth.UNKNOWN, reason=REASONS[judged.rank])
        if not judged.truth:
            return Verdict(truth=Truth.FALSE)
        return Verdict(truth=Truth.TRUE, at=self._fired if self.latching else self._tokens - 1)

    def finish(self) -> Verdict:
        """The verdict on the whole frame."""
        return self.verdict()

    def score(self) -> Measure:
        """The statistic that `calibrated` is compared with, else the first comparison's."""
        held = self._states[self.plan.score].held()
        if held.low is None or held.low != held.high:
            return NotMeasured(REASONS[held.rank].value)
        return Measured(value=held.low / (held.share * SCALE), n=self._tokens)

    def snapshot(self) -> StreamSnapshot:
        """The state between two tokens, to come back to."""
        return StreamSnapshot(
            states=tuple(s.save() for s in self._states), tokens=self._tokens, fired=self._fired
        )

    def restore(self, snapshot: StreamSnapshot) -> None:
        """Go back to a snapshot of this rule's evaluator (of any instance)."""
        for state, saved in zip(self._states, snapshot.states, strict=True):
            state.load(saved)
        self._tokens, self._fired = snapshot.tokens, snapshot.fired

    def held(self, aggregate: int) -> Held:
        """What is known so far of one of the plan's aggregates."""
        return self._states[aggregate].held()

    def judge_with(self, forced: bool) -> Verdict:
        """The frame's verdict if the comparison with `calibrated` came out as `forced`."""
        judged = self._judge(self.plan.root, forced)
        if judged.truth is None:
            return Verdict(truth=Truth.UNKNOWN, reason=REASONS[judged.rank])
        return Verdict(truth=Truth.TRUE if judged.truth else Truth.FALSE)

    def _judge(self, node: FrameNode, forced: bool | None = None) -> Judged:
        match node:
            case FrameCut(aggregate=number, cut=cut):
                if forced is not None and cut.calibrated:
                    return Judged(forced)
                held = self._states[number].held()
                return decide(cut, held)
            case FrameNot(operand=operand):
                return negate(self._judge(operand, forced))
            case FrameAtLeast(k=k, operands=operands):
                return at_least(k, [self._judge(o, forced) for o in operands])
