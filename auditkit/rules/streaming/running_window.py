"""Windows over the tokens of a frame as they come: the last N are kept and looked at anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from auditkit.core.prompts import Role
from auditkit.rules.lowered.kleene import KNOWN, Judged, decide, judge_frame
from auditkit.rules.lowered.plan import (
    FrameCut,
    FrameKnown,
    FrameNode,
    FrameWindow,
    Plan,
    PlanAggregate,
    frame_cuts,
    frame_windows,
)
from auditkit.rules.streaming.running import AggregateState, Snapshot
from auditkit.rules.streaming.running_states import new_state
from auditkit.rules.streaming.token_tests import Values

States = Mapping[int, AggregateState]


class Windows:
    """All windows of one size of a plan."""

    def __init__(self, plan: Plan, size: int) -> None:
        self.plan, self.size = plan, size
        nodes = dict.fromkeys(n for n in frame_windows(plan.root) if n.size == size)
        self.numbers = {node: i for i, node in enumerate(nodes)}
        self.aggregates = [j for j, a in enumerate(plan.aggregates) if a.window == size]
        self.recent: deque[tuple[Role, Values]] = deque(maxlen=size)
        self.tokens = 0
        self.roles: frozenset[Role] = frozenset()
        self.found = [False] * len(nodes)
        self.ranks = [KNOWN] * len(nodes)

    def add(self, role: Role, values: Values, n: int = 1) -> None:
        """Take the frame's next `n` eligible tokens, all alike."""
        if role not in self.roles:
            self.roles |= {role}
        for _ in range(min(n, self.size)):  # then the last window holds nothing else
            self.recent.append((role, tuple(values)))
            self.tokens += 1
            if self.tokens >= self.size:
                self._look()
        self.tokens += max(0, n - self.size)

    def _look(self) -> None:
        states = self.states()
        for node, i in self.numbers.items():
            judged = self._inside(node, states)
            self.found[i] = self.found[i] or bool(judged.truth)
            if judged.truth is None:
                self.ranks[i] = min(self.ranks[i], judged.rank)

    def states(self) -> States:
        """The aggregates of the window that ends here."""
        states = {j: new_state(self.plan.aggregates[j], self.plan.signals) for j in self.aggregates}
        for role, values in self.recent:
            for j, state in states.items():
                if self.plan.aggregates[j].sees(role):
                    state.add(role, values)
        return states

    def _inside(self, window: FrameWindow, states: States) -> Judged:
        if any(states[c.aggregate].empty for c in frame_cuts(window.operand)):
            return Judged(False)

        def leaf(node: FrameNode) -> Judged:
            if isinstance(node, FrameKnown):
                return Judged(node.truth)
            assert isinstance(node, FrameCut)
            return decide(node.cut, states[node.aggregate].held())

        return judge_frame(window.operand, leaf)

    def judged(self, window: FrameWindow, *, ended: bool) -> Judged:
        """Does a window hold so far; if the frame has `ended` short of one, do its tokens?"""
        blind = [
            decide(c.cut, new_state(self.plan.aggregates[c.aggregate], self.plan.signals).held())
            for c in frame_cuts(window.operand)
            if self._sees_none(self.plan.aggregates[c.aggregate])
        ]
        if blind:
            return Judged(None, min(j.rank for j in blind))
        if ended and self.tokens < self.size:
            return self._inside(window, self.states())
        i = self.numbers[window]
        if self.found[i]:
            return Judged(True)
        return Judged(False) if self.ranks[i] == KNOWN else Judged(None, self.ranks[i])

    def _sees_none(self, aggregate: PlanAggregate) -> bool:
        sides = [aggregate.roles] + ([] if aggregate.second is None else [aggregate.second_roles])
        return any(not (self.roles & set(side) if side else self.roles) for side in sides)

    def save(self) -> Snapshot:
        """The state, to come back to."""
        roles = tuple(r for r in Role if r in self.roles)
        return (self.tokens, roles, tuple(self.recent), tuple(self.found), tuple(self.ranks))

    def load(self, saved: Snapshot) -> None:
        """Go back to a saved state."""
        self.tokens, roles, recent, found, ranks = saved
        self.roles, self.recent = frozenset(roles), deque(recent, maxlen=self.size)
        self.found, self.ranks = list(found), list(ranks)
