"""What a rule's frame allows its conditions: twins only in pairs, nothing per token certified."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.locks import Frame
from auditkit.core.source_map import Path
from auditkit.rules.checking.check import Problem
from auditkit.rules.checking.report import Reporter
from auditkit.rules.checking.rule_conditions import Trees, reached_nodes
from auditkit.rules.documents.rule_documents import RuleDocument
from auditkit.rules.language import ast
from auditkit.rules.language.render import render_condition

_PAIRED = f"frame: {Frame.PAIRED_MESSAGE.value}"


def check_frame(rule: RuleDocument, number: int, trees: Trees, reporter: Reporter) -> None:
    """Report what does not fit a rule's frame."""
    for at, (text, tree) in trees.items():
        for problem in (*_windows(tree, trees), *_problems(rule, tree)):
            reporter.add_inside(problem, at, text)
    differences = _differences(trees)
    at = ("rules", number, "frame")
    if trees and rule.frame is Frame.PAIRED_MESSAGE and not differences:
        message = f"{_PAIRED}, and nothing is compared with the twin: no diff(…)"
        reporter.add("AK029", message, at, help="frame: message")


def _differences(trees: Trees) -> list[tuple[Path, ast.Difference]]:
    return [
        (at, node)
        for at, (_, tree) in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Difference)
    ]


def _windows(tree: ast.Expr, trees: Trees) -> Iterator[Problem]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Window):
            continue
        if any(isinstance(n, ast.Difference) for n in reached_nodes(node.operand, trees)):
            message = "diff(…) compares whole messages, and stands inside a window"
            help = "a window of its own beside it: window N (…) and diff(…) …"
            yield Problem(code="AK029", message=message, place=node.place, help=help)


def _problems(rule: RuleDocument, tree: ast.Expr) -> Iterator[Problem]:
    for node in ast.walk(tree):
        match node:
            case ast.Difference() if rule.frame is not Frame.PAIRED_MESSAGE:
                message = f"diff(…) compares a message with its twin's, in {_PAIRED}"
                help = f"{_PAIRED}, over a suite whose twins bear the same tag pair:…"
                yield Problem(code="AK029", message=message, place=node.place, help=help)
            case ast.Then() if rule.frame is Frame.TOKEN:
                text = render_condition(node)
                message = f"'{text}' is always false: nothing follows in a frame of one token"
                help = f"frame: {Frame.MESSAGE.value}"
                yield Problem(code="AK033", message=message, place=node.place, help=help)
            case ast.Calibrated() if rule.frame is Frame.TOKEN:
                message = "'calibrated' in frame: token, and no rate is certified per token"
                help = "frame: message: max(…) >= calibrated fires on the same tokens"
                yield Problem(code="AK065", message=message, place=node.place, help=help)
            case _:
                pass
