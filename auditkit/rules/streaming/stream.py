"""The streaming evaluator: a rule's verdict on a frame, token by token.

Memory does not grow with the frame, except for a quantile: it counts the values that it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.fixed_point import SCALE
from auditkit.core.locks import LockedRule
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.rules.lowered.difference import PLACES, subtract
from auditkit.rules.lowered.kleene import KNOWN, Held, Judged, decide, judge_frame
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import (
    FAR,
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameWindow,
    Plan,
    frame_windows,
)
from auditkit.rules.streaming.running import AggregateState, Snapshot
from auditkit.rules.streaming.running_states import new_state
from auditkit.rules.streaming.running_window import Windows

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
    windows: tuple[Snapshot, ...]
    tokens: int
    fired: int | None
    twin: tuple[Snapshot, ...] | None = None


class StreamEvaluator:
    """Evaluates one rule on one frame; `reset` begins the next frame, `compare_with` its twin.

    `push` takes the frame's eligible tokens in order, in chunks of any size. `verdict` is the
    verdict on the tokens so far; for a latching rule a true verdict is final.
    """

    def __init__(self, rule: LockedRule | Plan) -> None:
        self.plan = lower_rule(rule)
        self._names = tuple(s.name for s in self.plan.signals)
        self._sizes = sorted({w.size for w in frame_windows(self.plan.root)})
        self._outside = [
            (number, a) for number, a in enumerate(self.plan.aggregates) if not a.window
        ]
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
        """Forget the frame and its twin."""
        self._states = self._new_states()
        self._twin: list[AggregateState] | None = None
        self._windows = {size: Windows(self.plan, size) for size in self._sizes}
        self._tokens = 0
        self._fired: int | None = None

    def _new_states(self) -> list[AggregateState]:
        return [new_state(a, self.plan.signals) for a in self.plan.aggregates]

    def compare_with(self, twin: Sequence[TokenSignals]) -> None:
        """Take the eligible tokens of the whole frame that this one is compared with."""
        self._twin = self._new_states()
        for token in twin:
            values = self._values(token)
            for number, aggregate in self._outside:
                if aggregate.sees(token.role):
                    self._twin[number].add(token.role, values)

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
        values = self._values(token)
        if not self.latching or self._fired is not None:
            self._add(token.role, values, n)
        elif n == 1:
            self._add(token.role, values, 1)
            if self._judge(ended=False).truth:
                self._fired = self._tokens - 1
        else:
            before = self.snapshot()
            self._add(token.role, values, n)
            if self._judge(ended=False).truth:  # somewhere in the run: look for the token
                self.restore(before)
                for _ in range(n):
                    self.push_run(token, 1)

    def _values(self, token: TokenSignals) -> list[int | None]:
        return [
            token.values[name] if signal.resolved else None
            for name, signal in zip(self._names, self.plan.signals, strict=True)
        ]

    def _add(self, role: Role, values: Sequence[int | None], n: int) -> None:
        for number, aggregate in self._outside:
            if aggregate.sees(role):
                self._states[number].add(role, values, n)
        for windows in self._windows.values():
            windows.add(role, values, n)
        self._tokens += n

    def verdict(self) -> Verdict:
        """What the frame comes to if it ends after the tokens pushed so far.

        True of a latching rule although it has not `fired`: the frame is shorter than a window.
        """
        judged = self._judge(ended=True)
        if judged.truth is None:
            return Verdict(truth=Truth.UNKNOWN, reason=REASONS[judged.rank])
        if not judged.truth:
            return Verdict(truth=Truth.FALSE)
        at = self._tokens - 1 if self._fired is None else self._fired
        return Verdict(truth=Truth.TRUE, at=at)

    def finish(self) -> Verdict:
        """The verdict on the whole frame."""
        return self.verdict()

    def score(self) -> Measure:
        """The statistic that `calibrated` is compared with, else the first comparison's."""
        if self.plan.score is None:
            return NotMeasured("it is compared inside a window")
        held = self.held(self.plan.score, paired=self.plan.score_paired)
        if held.rank == KNOWN and held.low is not None and abs(held.low) == FAR:
            return NotMeasured("no token satisfies the test")
        if held.low is None or held.low != held.high:
            return NotMeasured(REASONS[held.rank].value)
        return Measured(value=held.low / (held.share * SCALE), n=self._tokens)

    def snapshot(self) -> StreamSnapshot:
        """The state between two tokens, to come back to."""
        return StreamSnapshot(
            states=tuple(s.save() for s in self._states),
            windows=tuple(w.save() for w in self._windows.values()),
            tokens=self._tokens,
            fired=self._fired,
            twin=None if self._twin is None else tuple(s.save() for s in self._twin),
        )

    def restore(self, snapshot: StreamSnapshot) -> None:
        """Go back to a snapshot of this rule's evaluator (of any instance)."""
        for state, saved in zip(self._states, snapshot.states, strict=True):
            state.load(saved)
        for windows, saved in zip(self._windows.values(), snapshot.windows, strict=True):
            windows.load(saved)
        self._tokens, self._fired = snapshot.tokens, snapshot.fired
        self._twin = None if snapshot.twin is None else self._new_states()
        for state, saved in zip(self._twin or (), snapshot.twin or (), strict=True):
            state.load(saved)

    def held(self, aggregate: int, *, paired: bool = False) -> Held:
        """What is known so far of one of the plan's aggregates; `paired`: less the twin's."""
        own = self._states[aggregate].held()
        if not paired:
            return own
        twin = None if self._twin is None else self._twin[aggregate].held()
        return subtract(own, twin, place=self.plan.aggregates[aggregate].statistic in PLACES)

    def judge_with(self, forced: bool) -> Verdict:
        """The frame's verdict if the comparison with `calibrated` came out as `forced`."""
        judged = self._judge(ended=True, forced=forced)
        if judged.truth is None:
            return Verdict(truth=Truth.UNKNOWN, reason=REASONS[judged.rank])
        return Verdict(truth=Truth.TRUE if judged.truth else Truth.FALSE)

    def in_last_window(self, aggregate: int) -> Held:
        """What is known of an aggregate in the window that ends here (the tokens so far, if they
        are fewer)."""
        return self._windows[self.plan.aggregates[aggregate].window].states()[aggregate].held()

    def _judge(self, *, ended: bool, forced: bool | None = None) -> Judged:
        def leaf(node: FrameNode) -> Judged:
            if isinstance(node, FrameWindow):
                return self._windows[node.size].judged(node, ended=ended)
            if isinstance(node, FrameKnown):  # of no token nothing is said
                empty = Judged(None, Reason.EMPTY_FRAME.rank)
                return Judged(node.truth) if self._tokens else empty
            assert isinstance(node, FrameCut)
            if forced is not None and node.cut.calibrated:
                return Judged(forced)
            if node.paired:
                return decide(node.cut, self.held(node.aggregate, paired=True))
            state = self._states[node.aggregate]
            return decide(node.cut, state.held() if ended else state.held_early())

        return judge_frame(self.plan.root, leaf)
