"""Syntax tree → condition text: one spelling for equal trees, which digests stand on."""

from __future__ import annotations

from auditkit.rules.language import ast


def render_condition(node: ast.Node) -> str:
    """Write a tree as text that parses back to an equal tree."""
    match node:
        case ast.Or() | ast.TokenOr():
            return " or ".join(_inner(o) for o in node.operands)
        case ast.And() | ast.TokenAnd():
            return " and ".join(_inner(o) for o in node.operands)
        case ast.Not() | ast.TokenNot():
            return f"not {_inner(node.operand)}"
        case ast.Of() | ast.TokenOf():
            return f"{node.k} of ({', '.join(render_condition(o) for o in node.operands)})"
        case ast.OfNames():
            return f"{node.k} of {node.pattern}"
        case ast.Compare():
            left, right = render_condition(node.statistic), render_condition(node.quantity)
            return f"{left} {node.op} {right}"
        case ast.TokenCompare():
            left, right = render_condition(node.signal), render_condition(node.quantity)
            return f"{left} {node.op} {right}"
        case ast.InRange():
            low, high = render_condition(node.low), render_condition(node.high)
            return f"{render_condition(node.statistic)} in [{low}, {high}]"
        case ast.Quantified():
            return f"{node.quantifier}({render_condition(node.test)})"
        case ast.Window():
            return f"window {node.size} ({render_condition(node.operand)})"
        case ast.Then():
            first, second = render_condition(node.first), render_condition(node.second)
            return f"({first}) then ({second}) within {node.within} tokens"
        case ast.Defined():
            return f"defined({node.name})"
        case ast.LetRef():
            return node.name
        case _:
            return _leaf(node)


def _leaf(node: ast.Node) -> str:
    match node:
        case ast.SignalStatistic():
            argument = "" if node.argument is None else f", {render_number(node.argument)}"
            return f"{node.function}({render_condition(node.signal)}{argument})"
        case ast.TokenStatistic():
            return f"{node.function}({render_condition(node.test)})"
        case ast.Difference():
            return f"diff({render_condition(node.aggregate)})"
        case ast.SignalRef():
            return node.name + "".join(f" @{role.value}" for role in node.roles)
        case ast.Number():
            unit = "" if node.unit is None else f" {node.unit}"
            return render_number(node.value) + unit
        case ast.Percentile():
            return f"{node.signal}.p{render_number(node.percent)}"
        case _:
            assert isinstance(node, ast.Calibrated)
            return "calibrated"


_LOOSE = (ast.Or, ast.And, ast.Not, ast.TokenOr, ast.TokenAnd, ast.TokenNot)


def _inner(node: ast.Node) -> str:
    text = render_condition(node)
    return f"({text})" if isinstance(node, _LOOSE) else text


def render_number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
