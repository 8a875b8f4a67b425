"""Schemas in the words of the reference."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.server.openapi.schema_text import FieldText, describe_field, describe_objects

SCHEMAS = {
    "Leaf": {"type": "object", "description": "A leaf.", "properties": {"size": {"type": "integer"}}, "required": ["size"]},
    "Other": {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}},
    "Tree": {"type": "object", "properties": {"branches": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}},
}
LEAF, OTHER, TREE = ({"$ref": f"#/components/schemas/{name}"} for name in SCHEMAS)
SHORT = {"type": "string", "maxLength": 9}
BIAS = {"type": "number", "minimum": -100, "maximum": 100}


def describe(schema: dict[str, Any]) -> FieldText:
    return describe_field("it", schema, SCHEMAS, required=False)


@pytest.mark.parametrize(
    ("schema", "kind", "limits"),
    [
        ({"type": "string"}, "string", ""),
        ({"type": "string", "minLength": 1, "maxLength": 64}, "string", "1 to 64 characters"),
        ({"type": "string", "maxLength": 1}, "string", "at most 1 character"),
        ({"type": "string", "format": "date-time"}, "time (RFC 3339)", ""),
        ({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}, "time (RFC 3339) or date", ""),
        ({"type": "integer", "minimum": 0}, "integer", "at least 0"),
        ({"type": "number", "minimum": -2, "maximum": 2}, "number", "−2 to 2"),
        ({"type": "number", "exclusiveMinimum": 0}, "number", "above 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 600}, "number", "above 0, at most 600"),
        ({"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 2**63}, "integer", "−2⁶³ to below 2⁶³"),
        ({"type": "integer", "maximum": 1_000_000}, "integer", "at most 1,000,000"),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 3}]}, "integer or null", "at most 3"),
        ({"enum": ["all", "first"]}, "`all` or `first`", ""),
        ({"const": "list"}, "`list`", ""),
        ({}, "any value", ""),
        ({"type": "array", "items": SHORT, "maxItems": 4}, "list of string", "at most 4 items; each at most 9 characters"),
        ({"type": "array", "items": {"anyOf": [SHORT, LEAF]}}, "list of string or object", "each at most 9 characters"),
        ({"type": "array", "items": LEAF, "minItems": 1}, "list of object", "at least 1 item"),
        ({"type": "object", "additionalProperties": BIAS}, "object of number", "−100 to 100"),
        (LEAF, "object", ""),
    ],
)
def test_a_field_has_its_type_and_range_in_words(schema: dict[str, Any], kind: str, limits: str) -> None:
    found = describe(schema)

    assert (found.type, found.limits) == (kind, limits)


def test_nested_objects_are_described_wherever_a_schema_allows_them() -> None:
    schema = {"anyOf": [LEAF, {"type": "array", "items": {"anyOf": [LEAF, OTHER]}}, {"type": "null"}]}

    leaf, other = describe(schema).objects

    assert (leaf.name, leaf.description, [inner.name for inner in leaf.fields]) == ("Leaf", "A leaf.", ["size"])
    assert (other.name, [inner.type for inner in other.fields]) == ("Other", ["`red` or `green`"])


def test_an_object_that_holds_itself_is_described_once() -> None:
    (tree,) = describe_objects(TREE, SCHEMAS)

    assert [(inner.name, inner.type, inner.objects) for inner in tree.fields] == [("branches", "list of object", ())]
