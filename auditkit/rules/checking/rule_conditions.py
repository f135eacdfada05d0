"""The conditions of one rule together: its `let`, what refers to what, and what is never used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from auditkit.core.source_map import Path
from auditkit.rules.checking.check import Names, Problem, check_condition
from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.rule_documents import RuleDocument
from auditkit.rules.documents.signals import signal_facts
from auditkit.rules.language import ast
from auditkit.rules.language.condition import RESERVED, ConditionError, parse_condition
from auditkit.rules.lowered.lowering import names_like

Trees = dict[Path, tuple[str, ast.Expr]]


def check_conditions(rule: RuleDocument, number: int, reporter: Reporter) -> Trees:
    """Report every problem of a rule's conditions; return the trees that could be read."""
    texts: dict[Path, str] = {
        ("rules", number, "let", name): text for name, text in rule.let.items()
    }
    texts["rules", number, "condition"] = rule.condition
    trees = _parse(texts, reporter)
    facts = signal_facts(rule.signals)
    for at, (text, tree) in trees.items():
        whole = at[-1] == "condition" and len(at) == 3
        names = Names(
            signals=facts,
            lets=list(rule.let),
            roles=rule.scope.roles,
            frame=rule.frame,
            them=whole,
        )
        for problem in check_condition(tree, names):
            reporter.add_inside(problem, at, text)
    _check_names(rule, number, reporter)
    if len(trees) == len(texts):
        _check_use(rule, number, trees, reporter)
    return trees


def check_syntax(raw: Any, number: int, reporter: Reporter) -> None:
    """Report syntax errors of the conditions of a rule whose document is not sound."""
    if not isinstance(raw, dict):
        return
    lets: Any = raw.get("let")
    texts: dict[Path, str] = {}
    for name, text in lets.items() if isinstance(lets, dict) else ():
        if isinstance(text, str):
            texts["rules", number, "let", name] = text
    if isinstance(raw.get("condition"), str):
        texts["rules", number, "condition"] = raw["condition"]
    _parse(texts, reporter)


def _parse(texts: dict[Path, str], reporter: Reporter) -> Trees:
    trees: Trees = {}
    for at, text in texts.items():
        try:
            trees[at] = (text, parse_condition(text))
        except ConditionError as error:
            problem = Problem(
                code="AK020", message=error.message, place=error.place, help=error.help
            )
            reporter.add_inside(problem, at, text)
    return trees


def _check_names(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    for kind, names in (("signals", rule.signals), ("let", rule.let)):
        for name in names:
            at = ("rules", number, kind, name)
            if name in RESERVED:
                reporter.add("AK025", f"{name!r} is a word of the language", at, key=True)
            if kind == "let" and name in rule.signals:
                reporter.add("AK026", f"{name!r} is the name of a signal too", at, key=True)


def _check_use(rule: RuleDocument, number: int, trees: Trees, reporter: Reporter) -> None:
    lets = {at[-1]: tree for at, (_, tree) in trees.items() if len(at) == 4}
    condition = trees["rules", number, "condition"][1]
    used = _reachable(condition, lets, rule, number, reporter)
    for name in rule.let:
        if name not in used:
            at = ("rules", number, "let", name)
            reporter.add("AK031", f"{name!r} is never used", at, key=True)
    reached = [condition, *(tree for name, tree in lets.items() if name in used)]
    parts = [n for t in reached for n in ast.walk(t)]
    watched = {n.name for n in parts if isinstance(n, ast.SignalRef | ast.Defined)}
    watched |= {n.signal for n in parts if isinstance(n, ast.Percentile)}
    steered = {c.intervene.signal for c in rule.confirm}
    for name in rule.signals:
        if name not in watched | steered:
            at = ("rules", number, "signals", name)
            reporter.add("AK032", f"the signal {name!r} is never used", at, key=True)
    _check_calibrated_once(number, trees, reporter)
    _check_windows(number, trees, reporter)


def _check_windows(number: int, trees: Trees, reporter: Reporter) -> None:
    """Report windows inside windows, be it through a name under `let`."""
    for at, (text, tree) in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Window) and any(
                isinstance(n, ast.Window) for n in reached_nodes(node.operand, trees)
            ):
                problem = Problem(
                    code="AK028",
                    message="a window stands inside a window",
                    place=node.place,
                    help="ask both of the same tokens, or of the frame: window N (…) and …",
                )
                reporter.add_inside(problem, at, text)


def reached_nodes(tree: ast.Expr, trees: Trees) -> Iterator[ast.Node]:
    """All that an expression is made of, the expressions that it names under `let` included."""
    lets = {str(at[-1]): let for at, (_, let) in trees.items() if len(at) == 4}
    waiting, visited = [tree], set[str]()
    while waiting:
        for node in ast.walk(waiting.pop()):
            yield node
            named = [node.name] if isinstance(node, ast.LetRef) else []
            if isinstance(node, ast.OfNames):
                named = names_like(node.pattern, list(lets))
            new = [n for n in dict.fromkeys(named) if n in lets and n not in visited]
            visited.update(new)
            waiting += [lets[n] for n in new]


def _reachable(
    condition: ast.Expr,
    lets: dict[str | int, ast.Expr],
    rule: RuleDocument,
    number: int,
    reporter: Reporter,
) -> set[str]:
    """The names under `let` that the condition comes to; circles are reported once."""
    used: set[str] = set()
    open_names: list[str] = []
    reported: set[str] = set()

    def visit(tree: ast.Expr) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.OfNames):
                them = node.pattern == "them" and open_names
                names = [] if them else names_like(node.pattern, list(rule.let))
            else:
                names = [node.name] if isinstance(node, ast.LetRef) else []
            for name in names:
                enter(name)

    def enter(name: str) -> None:
        if name in open_names and name not in reported:
            circle = " → ".join([*open_names[open_names.index(name) :], name])
            reported.update(open_names)
            at = ("rules", number, "let", name)
            reporter.add("AK023", f"{name!r} is defined by itself: {circle}", at, key=True)
        if name in used or name not in lets:
            return
        used.add(name)
        open_names.append(name)
        visit(lets[name])
        open_names.pop()

    visit(condition)
    return used


def _check_calibrated_once(number: int, trees: Trees, reporter: Reporter) -> None:
    found = [
        (at, text, node)
        for at, (text, tree) in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Calibrated)
    ]
    for at, text, node in found[1:]:
        problem = Problem(
            code="AK047",
            message="'calibrated' stands in this rule more than once",
            place=node.place,
            help="one threshold is certified per rule: give the others as numbers",
        )
        reporter.add_inside(problem, at, text)
