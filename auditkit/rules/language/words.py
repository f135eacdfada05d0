"""Conditions in plain English."""

from __future__ import annotations

from auditkit.rules.language import ast
from auditkit.rules.language.render import render_number

_OPS = {
    ast.Op.GE: "at least",
    ast.Op.GT: "above",
    ast.Op.LE: "at most",
    ast.Op.LT: "below",
    ast.Op.EQ: "exactly",
    ast.Op.NE: "other than",
}
_STATISTICS = {"max": "the largest value", "mean": "the mean", "sum": "the sum"}


def in_words(node: ast.Expr) -> str:
    """Say what an expression claims about a frame."""
    match node:
        case ast.And(operands=operands):
            return ", and ".join(_part(o) for o in operands)
        case ast.Or(operands=operands):
            return ", or ".join(_part(o) for o in operands)
        case ast.Not(operand=operand):
            return f"it is not so that {_part(operand)}"
        case ast.Of(k=k, operands=operands):
            listed = "; ".join(in_words(o) for o in operands)
            return f"{_count(k)} of these: {listed}"
        case ast.OfNames(k=k, pattern="them"):
            return f"{_count(k)} of the expressions under let"
        case ast.OfNames(k=k, pattern=pattern):
            return f"{_count(k)} of the expressions under let named “{pattern}”"
        case ast.LetRef(name=name):
            return f"“{name}” holds"
        case ast.Quantified(quantifier=quantifier, test=test):
            which = "some token has" if quantifier == "any" else "every token has"
            return f"{which} {_token(test)}"
        case ast.Compare(statistic=statistic, op=op, quantity=quantity):
            return f"{_statistic(statistic)} is {_OPS[op]} {_quantity(quantity)}"
        case ast.InRange(statistic=statistic, low=low, high=high):
            ends = f"at least {_quantity(low)} and at most {_quantity(high)}"
            return f"{_statistic(statistic)} is {ends}"
        case ast.Window(size=size, operand=operand):
            return f"on some {size} neighbouring tokens {_part(operand)}"
        case ast.Then(first=first, second=second, within=within):
            near = "the next token" if within == 1 else f"one of the next {within} tokens"
            return f"some token has {_token(first)}, and {near} has {_token(second)}"
        case ast.Defined(name=name):
            return f"“{name}” could be resolved for this model"


def _part(node: ast.Expr) -> str:
    text = in_words(node)
    return f"({text})" if isinstance(node, ast.And | ast.Or | ast.Of) else text


def _count(k: ast.Count) -> str:
    if isinstance(k, str):
        return {"any": "at least one", "all": "every one", "none": "none"}[k]
    return f"at least {k}"


def _statistic(node: ast.Statistic) -> str:
    match node:
        case ast.SignalStatistic():
            return _of_signal(node)
        case ast.TokenStatistic(function="count", test=test):
            return f"the number of tokens with {_token(test)}"
        case ast.TokenStatistic(function="frac", test=test):
            return f"the share of tokens with {_token(test)}"
        case ast.TokenStatistic(function="run", test=test):
            return f"the longest run of tokens with {_token(test)}"
        case ast.TokenStatistic(function=function, test=test):
            return f"the place (from 0) of the {function} token with {_token(test)}"
        case ast.Difference(aggregate=aggregate):
            return f"{_statistic(aggregate)}, less that of the twin's message,"


def _of_signal(node: ast.SignalStatistic) -> str:
    number = "?" if node.argument is None else render_number(node.argument)
    match node.function:
        case "quantile":
            words = f"the {number} quantile"
        case "topk_mean":
            words = f"the mean of the {number} largest values"
        case "rolling_mean_max":
            words = f"the largest mean over {number} neighbouring tokens"
        case function:
            words = _STATISTICS[function]
    return f"{words} of {_signal(node.signal)}"


def _signal(ref: ast.SignalRef) -> str:
    if not ref.roles:
        return f"“{ref.name}”"
    return f"“{ref.name}” on {' and '.join(r.value for r in ref.roles)} tokens"


def _token(node: ast.TokenTest) -> str:
    match node:
        case ast.TokenCompare(signal=signal, op=op, quantity=quantity):
            return f"{_signal(signal)} {_OPS[op]} {_quantity(quantity)}"
        case ast.TokenNot(operand=operand):
            return f"not ({_token(operand)})"
        case ast.TokenAnd(operands=operands):
            return " and ".join(f"({_token(o)})" for o in operands)
        case ast.TokenOr(operands=operands):
            return " or ".join(f"({_token(o)})" for o in operands)
        case ast.TokenOf(k=k, operands=operands):
            return f"{_count(k)} of ({'; '.join(_token(o) for o in operands)})"


def _quantity(node: ast.Quantity) -> str:
    match node:
        case ast.Calibrated():
            return "the calibrated threshold"
        case ast.Number(value=value, unit=unit):
            return render_number(value) + (f" {unit}" if unit else "")
        case ast.Percentile(signal=signal, percent=percent):
            return f"the {render_number(percent)}th percentile of “{signal}”"
