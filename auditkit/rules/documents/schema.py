"""JSON Schema (draft-07) of rule files, for editors: it says what pydantic says."""

from __future__ import annotations

import json
from typing import Any

from auditkit.rules.documents.rule_documents import RulesDocument

SCHEMA_ID = "https://auditkit.dev/schema/rules.v1.json"


def rule_schema() -> dict[str, Any]:
    """The schema of `auditkit-rules/1`, exported from the documents' models.

    Tagged unions become if/then on the tag, so that an editor reports what is wrong with the
    member that was meant; `null` is no value of any key.
    """
    schema = RulesDocument.model_json_schema(ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    plain = _rewrite(schema)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "auditkit rules",
        **{k: v for k, v in plain.items() if k != "title"},
    }


def render_schema() -> str:
    """The schema as text, the same for the same models."""
    return json.dumps(rule_schema(), indent=2, ensure_ascii=False) + "\n"


def _rewrite(node: Any) -> Any:
    if isinstance(node, list):
        return [_rewrite(n) for n in node]
    if not isinstance(node, dict):
        return node
    made = {k: _rewrite(v) for k, v in node.items()}
    if "discriminator" in made:
        return _by_tag(made)
    if "patternProperties" in made:
        ((pattern, values),) = made.pop("patternProperties").items()
        made |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    if "anyOf" in made:
        made = _without_null(made)
    if made.get("default", ...) is None:
        del made["default"]
    if "$ref" in made and len(made) > 1:
        reference = {"$ref": made.pop("$ref")}
        made["allOf"] = [reference]
    return made


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    kept = [n for n in node["anyOf"] if n != {"type": "null"}]
    rest = {k: v for k, v in node.items() if k != "anyOf"}
    return {**kept[0], **rest} if len(kept) == 1 else {**rest, "anyOf": kept}


def _by_tag(node: dict[str, Any]) -> dict[str, Any]:
    """`oneOf` with a discriminator → the tag's values, and if/then for each."""
    tag = node["discriminator"]["propertyName"]
    mapping: dict[str, str] = node["discriminator"]["mapping"]
    branches = [
        {
            "if": {"properties": {tag: {"const": name}}, "required": [tag]},
            "then": {"$ref": reference},
        }
        for name, reference in mapping.items()
    ]
    return {
        "type": "object",
        "required": [tag],
        "properties": {tag: {"enum": list(mapping)}},
        "allOf": branches,
    }
