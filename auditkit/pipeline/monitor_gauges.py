"""How far each rule is from firing, token by token: what a live view of the monitor shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auditkit.core.fixed_point import lift, lower
from auditkit.core.locks import Lock, LockedRule, Severity, Unit
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason, Truth
from auditkit.monitor import Alert, TokenSeen
from auditkit.rules import Plan, RuleWatcher, lower_rule
from auditkit.rules.language.ast import Op
from auditkit.rules.lowered.plan import Cut, frame_cuts, token_cuts

Place = tuple[Role, int, int]
"""A token's role, message index and mask bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One rule in the frame now open: its score against its threshold, and what that comes to.

    `fill` is the score on a scale of 0 to 1 with the threshold at ½ (None: no score, or nothing to
    compare it with). `fired` says that the rule has fired in this conversation, in whichever frame.
    """

    rule_id: str
    title: str
    severity: Severity
    truth: Truth
    reason: Reason | None
    score: Measure
    threshold: float | None
    rising: bool
    fill: float | None
    fired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """How strongly one rule is alight at one token: above 0 beyond the threshold, at most 1."""

    rule_id: str
    value: float


class RuleGauge:
    """Follows one rule through a conversation.

    It counts tokens of high norm like any others, which the monitor leaves out: what it shows
    while a reply is being made is a close look, and `settle` puts the monitor's verdicts in its
    place.
    """

    def __init__(self, rule: LockedRule, lock: Lock) -> None:
        self.rule = rule
        self._plan = lower_rule(rule)
        self._score_cut, self._token_cut, self._signal = _cuts(self._plan)
        self._watcher = RuleWatcher(rule, lock.masked)
        self._masked = int(lock.masked)
        self._bare = all(s.unit in (Unit.BARE, Unit.Z) for s in rule.signals)
        self._fired = False
        self._open = False
        self._truth, self._reason = Truth.UNKNOWN, Reason.EMPTY_FRAME
        self._score: Measure = NotMeasured(Reason.EMPTY_FRAME.value)

    def push(self, place: Place, seen: TokenSeen) -> Heat | None:
        """Take a token; say how strongly the rule is alight at it (None: it looks elsewhere)."""
        role, message, mask = place
        signals = seen.signals.get(self.rule.id, {})
        values = {name: None if v is None else lower(v) for name, v in signals.items()}
        outcomes = self._watcher.push(role, message, mask, values)
        self._fired |= any(o.verdict.truth is Truth.TRUE for o in outcomes)
        self._fired |= self.rule.id in seen.fired
        looks = not self.rule.scope.roles or role in self.rule.scope.roles
        if mask & self._masked or not looks:
            return None
        verdict = self._watcher.evaluator.verdict()
        self._truth, self._reason = verdict.truth, verdict.reason
        self._score = self._watcher.evaluator.score()
        return self._heat(signals)

    def settle(self, verdicts: Sequence[Alert]) -> None:
        """Take the monitor's own verdicts, once the reply has ended; the last frame is shown."""
        own = [a for a in verdicts if a.rule_id == self.rule.id]
        if own:
            last = max(own, key=lambda a: a.frame)
            self._truth, self._reason, self._score = (
                last.verdict.truth,
                last.verdict.reason,
                last.score,
            )
        self._fired = any(a.fired for a in own)

    def gauge(self) -> Gauge:
        """Where the rule stands now."""
        threshold = _number(self._score_cut)
        score = None if isinstance(self._score, NotMeasured) else self._score.value
        fill = None
        if score is not None and threshold is not None:
            fill = 0.5 + 0.5 * self._scaled(score, threshold)
        return Gauge(
            rule_id=self.rule.id,
            title=self.rule.title,
            severity=self.rule.severity,
            truth=self._truth,
            reason=self._reason,
            score=self._score,
            threshold=threshold,
            rising=self._score_cut is None or self._score_cut.op not in (Op.LE, Op.LT),
            fill=fill,
            fired=self._fired,
        )

    def _heat(self, signals: Mapping[str, float | None]) -> Heat | None:
        threshold = _number(self._token_cut)
        value = None if self._signal is None else signals.get(self._signal)
        if value is None or threshold is None or self._token_cut is None:
            return None
        side = -1.0 if self._token_cut.op in (Op.LE, Op.LT) else 1.0
        return Heat(rule_id=self.rule.id, value=side * self._scaled(value, threshold))

    def _scaled(self, value: float, threshold: float) -> float:
        """−1…1, 0 at the threshold; fitted scores have no natural zero, so a unit is the least
        scale for them."""
        least = 1.0 if self._bare or threshold == 0 else 0.0
        return math.tanh((value - threshold) / max(abs(threshold), least))


def strongest(heats: Sequence[Heat], fired: frozenset[str]) -> Heat | None:
    """The heat to show at a token: of rules that fired if any is alight, else of any rule."""
    alight = [h for h in heats if h.value > 0]
    ours = [h for h in alight if h.rule_id in fired] or alight
    return max(ours, key=lambda h: h.value, default=None)


def _cuts(plan: Plan) -> tuple[Cut | None, Cut | None, str | None]:
    """The cut of the score, the cut that tells a token apart, and the signal that it is on.

    Where the score is a statistic of a signal (max, mean) both cuts are one; a sum's cut is no
    token's. Where it counts tokens that pass a test, the test's first comparison is the token's.
    A rule that compares inside windows has none of them.
    """
    if plan.score is None:
        return None, None, None
    aggregate = plan.aggregates[plan.score]
    found = [c.cut for c in frame_cuts(plan.root) if c.aggregate == plan.score]
    score = next((c for c in found if c.calibrated), found[0] if found else None)
    if aggregate.test is not None:
        leaf = next(token_cuts(aggregate.test))
        return score, leaf.cut, plan.signals[leaf.signal].name
    assert aggregate.signal is not None
    return score, score, plan.signals[aggregate.signal].name


def _number(cut: Cut | None) -> float | None:
    return None if cut is None or cut.threshold is None else lift(cut.threshold)
