"""Condition text → syntax tree; syntax errors with their place and what could have stood there."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib.resources import files

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Role
from auditkit.rules.language import ast
from auditkit.rules.language.ast import Place

MAX_LENGTH = 8_000
MAX_DEPTH = 40

OVER_SIGNALS = ("max", "mean", "sum", "quantile", "topk_mean", "rolling_mean_max")
OVER_TOKENS = ("count", "frac", "run", "first", "last")
QUANTIFIERS = ("any", "all", "none")
RESERVED = frozenset(
    {*OVER_SIGNALS, *OVER_TOKENS, *QUANTIFIERS, "them", "calibrated", "defined", "window", "then"}
    | {"within", "diff", "of", "in", "and", "or", "not", "raw", "fmax", "z", "tokens"}
)
"""Words that no signal and no `let` may be called."""


class ConditionError(InvalidInput):
    """A condition that cannot be read; `place` is where in its text."""

    def __init__(self, message: str, place: Place, *, help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.place = place


@lru_cache(maxsize=64)  # one rule's condition is asked for again and again
def parse_condition(text: str) -> ast.Expr:
    """Parse a condition of the rule language; raise ConditionError where it is not one."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(
            f"a condition of {len(text)} characters; at most {MAX_LENGTH} are read",
            Place(0, 1),
            help="name parts of it under let:",
        )
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    return _expr(_only(tree), 0)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    grammar = (files("auditkit.rules.language") / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _only(tree: Tree[Token]) -> Tree[Token]:
    child = tree.children[0]
    assert isinstance(child, Tree)
    return child


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [c for c in tree.children if isinstance(c, Tree)]


def _tokens(tree: Tree[Token]) -> list[Token]:
    return [c for c in tree.children if isinstance(c, Token)]


def _at(tree: Tree[Token]) -> Place:
    return Place(tree.meta.start_pos, tree.meta.end_pos)


def _check_depth(tree: Tree[Token], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConditionError(
            f"nested more than {MAX_DEPTH} deep", _at(tree), help="name parts of it under let:"
        )


def _expr(tree: Tree[Token], depth: int) -> ast.Expr:
    _check_depth(tree, depth)
    place, trees, tokens = _at(tree), _trees(tree), _tokens(tree)
    match tree.data:
        case "or_":
            return ast.Or(tuple(_expr(t, depth + 1) for t in trees), place)
        case "and_":
            return ast.And(tuple(_expr(t, depth + 1) for t in trees), place)
        case "not_":
            return ast.Not(_expr(trees[0], depth + 1), place)
        case "of":
            operands = tuple(_expr(t, depth + 1) for t in trees[1:])
            return ast.Of(_count(trees[0]), operands, place)
        case "of_names":
            return ast.OfNames(_count(trees[0]), str(tokens[0]), place)
        case "compare":
            return ast.Compare(_statistic(trees[0]), _op(tokens[0]), _quantity(trees[1]), place)
        case "in_range":
            low, high = _quantity(trees[1]), _quantity(trees[2])
            return ast.InRange(_statistic(trees[0]), low, high, place)
        case "quantified":
            quantifier = "any" if tokens[0] == "any" else "all"
            return ast.Quantified(quantifier, _token_test(trees[0], depth + 1), place)
        case "window":
            return ast.Window(_whole(tokens[0]), _expr(trees[0], depth + 1), place)
        case "then":
            first, second = (_token_test(t, depth + 1) for t in trees)
            return ast.Then(first, second, _whole(tokens[0]), place)
        case "defined":
            return ast.Defined(str(tokens[0]), place)
        case _:
            assert tree.data == "let_ref"
            return ast.LetRef(str(tokens[0]), place)


def _token_test(tree: Tree[Token], depth: int) -> ast.TokenTest:
    _check_depth(tree, depth)
    place, trees = _at(tree), _trees(tree)
    match tree.data:
        case "token_or":
            return ast.TokenOr(tuple(_token_test(t, depth + 1) for t in trees), place)
        case "token_and":
            return ast.TokenAnd(tuple(_token_test(t, depth + 1) for t in trees), place)
        case "token_not":
            return ast.TokenNot(_token_test(trees[0], depth + 1), place)
        case "token_of":
            operands = tuple(_token_test(t, depth + 1) for t in trees[1:])
            return ast.TokenOf(_count(trees[0]), operands, place)
        case _:
            assert tree.data == "token_compare"
            op = _op(_tokens(tree)[0])
            return ast.TokenCompare(_signal(trees[0]), op, _quantity(trees[1]), place)


def _statistic(tree: Tree[Token]) -> ast.Statistic:
    if tree.data == "diff":
        inner = _statistic(_only(tree))
        assert not isinstance(inner, ast.Difference)
        return ast.Difference(inner, _at(tree))
    tokens, trees = _tokens(tree), _trees(tree)
    if tree.data == "token_statistic":
        return ast.TokenStatistic(str(tokens[0]), _token_test(trees[0], 1), _at(tree))
    argument = float(tokens[1]) if len(tokens) > 1 else None
    return ast.SignalStatistic(str(tokens[0]), _signal(trees[0]), argument, _at(tree))


def _signal(tree: Tree[Token]) -> ast.SignalRef:
    name, *roles = _tokens(tree)
    return ast.SignalRef(str(name), tuple(Role(str(r)) for r in roles), _at(tree))


def _quantity(tree: Tree[Token]) -> ast.Quantity:
    place, tokens = _at(tree), _tokens(tree)
    if tree.data == "calibrated":
        return ast.Calibrated(place)
    if tree.data == "percentile":
        name, percent = str(tokens[0]).split(".p", 1)
        return ast.Percentile(name, float(percent), place)
    unit = str(tokens[1]) if len(tokens) > 1 else None
    return ast.Number(float(tokens[0]), unit, place)


def _op(token: Token) -> ast.Op:
    return ast.Op(str(token))


def _count(tree: Tree[Token]) -> ast.Count:
    token = _tokens(tree)[0]
    match str(token):
        case "any":
            return "any"
        case "all":
            return "all"
        case "none":
            return "none"
        case _:
            return _whole(token)


def _whole(token: Token) -> int:
    if not str(token).isdigit():
        start = token.start_pos or 0
        raise ConditionError(
            f"expected a whole number, not {token}", Place(start, start + len(token))
        )
    return int(token)


_NAMES = {
    "OP": "a comparison (>= <= > < == !=)",
    "NUMBER": "a number",
    "CALIBRATED": "calibrated",
    "PERCENTILE": "NAME.pN",
    "NAME": "a name",
    "ROLE": "a role (system, user, assistant, thinking, tool)",
    "UNIT": "a unit (raw, fmax, z, tokens)",
    "OVER_SIGNAL": "a statistic of a signal: max, mean, sum, … (…)",
    "OVER_TOKENS": "a statistic of tokens: count, frac, run, first, last (…)",
    "RPAR": "')'",
    "LPAR": "'('",
    "RSQB": "']'",
    "LSQB": "'['",
    "COMMA": "','",
    "AT": "'@'",
    "$END": "the end of the condition",
    "ANY": "any",
    "ALL": "all",
}
_RARE = frozenset({"GLOB", "THEM", "NONE", "WINDOW", "DIFF", "DEFINED", "THEN"})


def _syntax_error(error: UnexpectedInput, text: str) -> ConditionError:
    start = error.pos_in_stream if error.pos_in_stream is not None else len(text)
    start = max(0, min(start, len(text)))
    if isinstance(error, UnexpectedToken):
        expected, word = set(error.expected), str(error.token)
        at_end = error.token.type == "$END"
    else:
        expected = set(error.allowed or ()) if isinstance(error, UnexpectedCharacters) else set()
        word, at_end = text[start : start + 1], False
    if at_end:
        place = Place(len(text.rstrip()), len(text.rstrip()) + 1)
        problem = "the condition is empty" if not text.strip() else "the condition ends too early"
    else:
        place, problem = Place(start, start + max(1, len(word))), f"unexpected {word!r}"
    called = _word_before(text, start)
    if word == "(" and called:
        return _unknown_function(called, start)
    if word.startswith("=") or (word == ">" and text[start - 1 : start] == "="):
        return ConditionError(problem, place, help="comparisons are written >= <= > < == !=")
    names = sorted({_NAMES.get(e, e.lower()) for e in expected if e not in _RARE})
    return ConditionError(problem, place, help="expected " + ", ".join(names) if names else None)


def _word_before(text: str, end: int) -> str:
    stripped = text[:end].rstrip()
    size = len(stripped)
    while size and (stripped[size - 1].isalnum() or stripped[size - 1] == "_"):
        size -= 1
    return stripped[size:]


def _unknown_function(name: str, end: int) -> ConditionError:
    known = (*OVER_SIGNALS, *OVER_TOKENS, "any", "all")
    close = difflib.get_close_matches(name, known, n=1)
    help = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(known)
    return ConditionError(f"unknown function {name!r}", Place(end - len(name), end), help=help)
