"""YAML and JSON text → typed documents, every error with its place in the text.

ruamel.yaml composes nodes with marks (libyaml does where both read alike: core.quick_yaml). This
module refuses what YAML lets pass silently (tabs, duplicate keys, tags, unbounded aliases);
core.schema_errors carries pydantic's errors back to their places. It reads text that the caller has
loaded and touches no file.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import Scanner

from auditkit.core.diagnostics import Diagnostic, Level, Span
from auditkit.core.errors import DocumentError
from auditkit.core.quick_yaml import compose_quickly
from auditkit.core.schema_errors import schema_diagnostics
from auditkit.core.source_map import Path, SourceMap

MAX_DEPTH = 40
MAX_NODES = 400_000
MAX_ALIASED = 10_000
"""Nodes that aliases may repeat: a few short lines can stand for billions."""
TOO_DEEP = "the document is nested or aliased too deeply"
PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

M = TypeVar("M", bound=BaseModel)


class Document(BaseModel):
    """Base of every document that comes in from a file: no unknown keys, no coercion, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(slots=True)
class ParsedText:
    """Plain values of a text with the places they came from."""

    value: Any
    source: SourceMap
    diagnostics: list[Diagnostic]


def parse_yaml(text: str, path: str) -> ParsedText:
    """Parse YAML 1.2 (or JSON, its subset) into plain values with positions.

    Never raises for bad text: what is wrong is in `diagnostics` (AK00x).
    """
    source = SourceMap(path=path, lines=text.splitlines())
    found = list(_tabs(source))
    if found:
        return ParsedText(None, source, found)
    node = compose_quickly(text, max_depth=MAX_DEPTH)
    try:
        node = node or _compose(text)
    except MaxDepthExceededError as error:
        return ParsedText(None, source, [_too_deep(error, source)])
    except (YAMLError, ValueError, RecursionError) as error:
        return ParsedText(None, source, [_syntax_error(error, source)])
    if node is None:
        span = source.span(())
        return ParsedText(
            None,
            source,
            [Diagnostic(code="AK001", level=Level.ERROR, message="the file is empty", span=span)],
        )
    builder = _Builder(source)
    value = builder.build(node, (), 0)
    return ParsedText(value, source, builder.diagnostics)


def _compose(text: str) -> Node | None:
    """The document of any text, by the reader that has the last word."""
    yaml = YAML(typ="safe", pure=True)  # "rt" keeps comments, and fails on some of them
    yaml.max_depth = MAX_DEPTH + 1
    yaml.Scanner = _BoundedScanner
    yaml.composer.warn_double_anchors = False
    return yaml.compose(io.StringIO(text))


def parse_document(text: str, path: str, model: type[M]) -> tuple[M, SourceMap]:
    """Parse `text` into `model`; raise DocumentError with every diagnostic of the file."""
    parsed = parse_yaml(text, path)
    if parsed.diagnostics:
        raise DocumentError(parsed.diagnostics)
    return validate_document(parsed, model), parsed.source


def validate_document(parsed: ParsedText, model: type[M]) -> M:
    """Validate parsed values against `model`; raise DocumentError with positions (AK01x)."""
    try:
        return model.model_validate_json(json.dumps(parsed.value))
    except ValidationError as error:
        raise DocumentError(schema_diagnostics(error, model, parsed.value, parsed.source)) from None


def _tabs(source: SourceMap) -> Iterator[Diagnostic]:
    for number, line in enumerate(source.lines):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent and line.strip():
            span = Span(
                path=source.path, line=number + 1, column=indent.index("\t") + 1, source_line=line
            )
            yield Diagnostic(
                code="AK002",
                level=Level.ERROR,
                message="a tab in the indentation",
                span=span,
                help="YAML is indented with spaces",
            )


class _BoundedScanner(Scanner):
    """Stops at brackets nested too deeply: its time is quadratic in their depth, and it looks far
    ahead of what is composed."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if len(self.flow_context) > MAX_DEPTH:
            raise MaxDepthExceededError(None, None, TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


def _too_deep(error: MarkedYAMLError, source: SourceMap) -> Diagnostic:
    mark = error.problem_mark
    source.values[()] = (mark.line, mark.column, 1) if mark is not None else (0, 0, 1)
    return Diagnostic(code="AK004", level=Level.ERROR, message=TOO_DEEP, span=source.span(()))


def _syntax_error(error: Exception, source: SourceMap) -> Diagnostic:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    place = (mark.line, mark.column, 1) if mark is not None else (0, 0, 1)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    source.values[()] = place
    return Diagnostic(
        code="AK001", level=Level.ERROR, message=f"not valid YAML: {problem}", span=source.span(())
    )


class _Builder:
    """Walks composed nodes once, building plain values, places and diagnostics."""

    def __init__(self, source: SourceMap) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self.nodes = 0
        self.seen: set[int] = set()
        self.repeated = 0

    def build(self, node: Node, at: Path, depth: int) -> Any:
        self.nodes += 1
        self.source.values[at] = _place(node)
        self.repeated += id(node) in self.seen
        self.seen.add(id(node))
        if depth > MAX_DEPTH or self.nodes > MAX_NODES or self.repeated > MAX_ALIASED:
            if self.nodes <= MAX_NODES + 1:
                self.report("AK004", TOO_DEEP, at)
            self.nodes = MAX_NODES + 2
            return None
        if not isinstance(node, ScalarNode) and str(node.tag) not in PLAIN_TAGS:
            self.report("AK005", f"the tag {node.tag} is not allowed", at)
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, at, depth)
        if isinstance(node, SequenceNode):
            return [self.build(n, (*at, i), depth + 1) for i, n in enumerate(node.value)]
        return self.scalar(node, at)

    def mapping(self, node: MappingNode, at: Path, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.report("AK005", "a key must be plain text", at)
                continue
            key = str(key_node.value)
            here = (*at, key)
            if key in out:
                first = self.source.keys[here][0] + 1
                self.source.keys[here] = _place(key_node)
                self.report(
                    "AK003", f"duplicate key {key!r}, first on line {first}", here, key=True
                )
                continue
            self.source.keys[here] = _place(key_node)
            out[key] = self.build(value_node, here, depth + 1)
            if isinstance(value_node, ScalarNode) and not value_node.value:
                self.source.values[here] = self.source.keys[here]  # nothing to point at
        return out

    def scalar(self, node: Any, at: Path) -> Any:
        tag, text = str(node.tag).rsplit(":", 1)[-1], node.value
        if node.style == ">":
            text = text.replace("\a", "")  # ruamel marks folds with a bell
        if tag in ("str", "timestamp", "value"):
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        try:
            if tag == "int":
                return int(text.replace("_", ""), 0)
            if tag == "float":
                number = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
                if math.isfinite(number):
                    return number
                self.report("AK012", f"{text} is not a finite number", at)
                return None
        except ValueError:
            return text
        self.report("AK005", f"the tag {node.tag} is not allowed", at)
        return None

    def report(self, code: str, message: str, at: Path, *, key: bool = False) -> None:
        self.diagnostics.append(
            Diagnostic(
                code=code, level=Level.ERROR, message=message, span=self.source.span(at, key=key)
            )
        )


def _place(node: Node) -> tuple[int, int, int]:
    start, end = node.start_mark, node.end_mark
    size = end.column - start.column if end.line == start.line else 1
    return (start.line, start.column, max(1, size))
