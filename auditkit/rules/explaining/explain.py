"""What a rule means: in words, as a tree, with its thresholds and, once it is bound, its SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditkit.core.fixed_point import lift
from auditkit.core.locks import Calibration, Frame, LockedRule, NotCalibrated
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules.documents.rule_documents import RuleDocument
from auditkit.rules.documents.signals import draft_rule
from auditkit.rules.language import ast
from auditkit.rules.language.condition import parse_condition
from auditkit.rules.language.render import render_condition
from auditkit.rules.language.words import in_words
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import (
    SHARE_SCALE,
    Cut,
    Plan,
    PlanAggregate,
    Statistic,
    TokenAtLeast,
    TokenCut,
    TokenNode,
    TokenNot,
    frame_cuts,
)
from auditkit.rules.sql.statement import compile_sql

_FRAMES = {
    Frame.CONVERSATION: "in a whole conversation",
    Frame.EXCHANGE: "in one exchange (a user's message and what follows, up to the next)",
    Frame.MESSAGE: "in one message",
    Frame.TOKEN: "at one token",
    Frame.PAIRED_MESSAGE: "in one message, beside the same message of the prompt's twin",
}


def explain_rule(
    rule: RuleDocument | LockedRule, *, masked: TokenMask = TokenMask.NONE, sql: bool = True
) -> str:
    """Explain a rule document, or a locked rule with its thresholds, latents and SQL.

    Raises like `lower_rule` where a condition cannot be evaluated.
    """
    locked = rule if isinstance(rule, LockedRule) else draft_rule(rule)
    bound = isinstance(rule, LockedRule)
    plan = lower_rule(locked)
    sections = [
        ("", list(_heading(locked))),
        ("In words", list(_reading(locked))),
        ("Signals", list(_signals(locked, bound=bound))),
        ("Syntax tree", list(_trees(locked))),
        ("Thresholds", list(_thresholds(plan, locked))),
        ("When it fires", [_latch(plan)]),
    ]
    if bound and sql:
        compiled = compile_sql(plan, "«recording»", masked=masked)
        given = [f"-- ${i} = {p!r}" for i, p in enumerate(compiled.parameters, start=1)]
        sections.append(("SQL", [*compiled.text.splitlines(), *given]))
    return "\n\n".join(_section(title, lines) for title, lines in sections) + "\n"


def _section(title: str, lines: list[str]) -> str:
    if not title:
        return "\n".join(lines)
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _heading(rule: LockedRule) -> Iterator[str]:
    yield f"{rule.id} rev {rule.rev} ({rule.status.value}, {rule.severity.value})"
    yield rule.title
    if rule.description:
        yield rule.description.strip()
    yield f"digest {rule.digest}"


def _reading(rule: LockedRule) -> Iterator[str]:
    where = _FRAMES[rule.frame]
    yield f"Fires where, {where}, {in_words(parse_condition(rule.condition))}."
    for name, text in rule.let:
        yield f"“{name}”: {in_words(parse_condition(text))}."
    if rule.scope.roles:
        yield f"Looks only at {' and '.join(r.value for r in rule.scope.roles)} tokens."
    if rule.scope.skip_first:
        yield f"Leaves out the first {rule.scope.skip_first} eligible tokens."
    yield f"Known to be wrong on: {'; '.join(rule.false_positives)}."


def _signals(rule: LockedRule, *, bound: bool) -> Iterator[str]:
    for s in rule.signals:
        head = f"{s.name}: by {s.selector.value}, pooled by {s.pool.value}, unit {s.unit.value}"
        if not bound:
            yield head
        elif s.unresolved is not None:
            yield f"{head}; unresolved: {s.unresolved}"
        else:
            latents = ", ".join(f"{x.latent} (weight {x.weight:.4g})" for x in s.latents)
            yield f"{head}; latents {latents}"


def _trees(rule: LockedRule) -> Iterator[str]:
    for name, text in (*rule.let, ("condition", rule.condition)):
        yield f"{name}:"
        yield from (f"  {line}" for line in tree_lines(parse_condition(text)))


def tree_lines(node: ast.Node, depth: int = 0) -> Iterator[str]:
    """A syntax tree, one node a line, with its type."""
    kind = type(node).__name__
    yield f"{'  ' * depth}{kind}  {render_condition(node)}"
    for part in ast.operands(node):
        yield from tree_lines(part, depth + 1)


def _thresholds(plan: Plan, rule: LockedRule) -> Iterator[str]:
    for node in frame_cuts(plan.root):
        aggregate = plan.aggregates[node.aggregate]
        inside = f" in every {aggregate.window} neighbouring tokens" if aggregate.window else ""
        if aggregate.second is not None:
            yield f"{_pair(aggregate, plan)}{inside}"
            continue
        if aggregate.signal is not None:
            what = f"{aggregate.statistic.value}({plan.signals[aggregate.signal].name}"
        else:
            assert aggregate.test is not None
            what = f"{aggregate.statistic.value}({_test(aggregate.test, plan)}"
        scale = SHARE_SCALE if aggregate.statistic is Statistic.QUANTILE else 1
        argument = f", {aggregate.argument / scale:g}" if aggregate.argument else ""
        statistic = f"{what}{_at_roles(aggregate.roles)}{argument})"
        statistic = f"diff({statistic})" if node.paired else statistic
        yield f"{statistic} {_cut(node.cut)}{inside}"
    match rule.calibration:
        case Calibration() as found if found.frames:
            yield (
                f"calibrated on {found.suite}: {found.exceedances} of {found.frames} benign frames "
                f"at or above {found.threshold!r}; with confidence {found.confidence:g} at most "
                f"{found.bound:.4g} of such frames fire (target {found.target_fpr:g})"
            )
        case NotCalibrated() as missing:
            yield missing.said
        case _:
            pass


def _at_roles(roles: Sequence[Role]) -> str:
    return "".join(f" @{r.value}" for r in roles)


def _pair(pair: PlanAggregate, plan: Plan) -> str:
    first, second = (_test(t, plan) for t in pair.tests)
    return (
        f"({first}{_at_roles(pair.roles)}) then ({second}{_at_roles(pair.second_roles)}) "
        f"within {pair.argument} tokens"
    )


def _test(node: TokenNode, plan: Plan) -> str:
    match node:
        case TokenCut(signal=signal, cut=cut):
            return f"{plan.signals[signal].name} {_cut(cut)}"
        case TokenNot(operand=operand):
            return f"not ({_test(operand, plan)})"
        case TokenAtLeast(k=k, operands=operands):
            return f"{k} of ({', '.join(_test(o, plan) for o in operands)})"


def _cut(cut: Cut) -> str:
    if cut.threshold is None:
        what = (
            "calibrated, without a certificate" if cut.calibrated else "a percentile not measured"
        )
        return f"{cut.op.value} {what}"
    number = f"{lift(cut.threshold):.6g} ({cut.threshold} · 2⁻²⁰)"
    return f"{cut.op.value} {'calibrated ' if cut.calibrated else ''}{number}"


def _latch(plan: Plan) -> str:
    if plan.latching:
        return "Latching: once true it stays true, so a stream may act before the frame has ended."
    return (
        "At the end: more tokens can change the verdict, so it is given when the frame has ended."
    )
