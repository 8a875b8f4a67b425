"""A JSON Schema in words: types, ranges and nested fields. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fanout.core.json_text import JsonObject

Schemas = Mapping[str, JsonObject]
"""Schemas by name, for references."""


@dataclass(frozen=True, slots=True)
class FieldText:
    """One field of an object, or one parameter."""

    name: str
    type: str
    """`string or list of string`."""
    limits: str
    """`0 to 2`, `at most 4 items`."""
    default: object
    required: bool
    description: str
    objects: tuple[ObjectText, ...]
    """The kinds of objects that it may be or hold."""


@dataclass(frozen=True, slots=True)
class ObjectText:
    """The fields of one kind of object."""

    name: str
    description: str
    fields: tuple[FieldText, ...]


def describe_objects(schema: JsonObject, schemas: Schemas, above: tuple[str, ...] = ()) -> tuple[ObjectText, ...]:
    """Return the kinds of objects that a schema allows, itself or as items of its lists, but those named in `above`."""
    kinds = []
    for name, member in _list_objects(schema, schemas):
        # A JSON value may hold itself: without this, describing it would never end.
        if name not in above:
            inner = (*above, name) if name else above
            kinds.append(ObjectText(name, member.get("description", ""), tuple(_describe_fields(member, schemas, inner))))
    return tuple(kind for kind in kinds if kind.fields)


def describe_field(
    name: str, schema: JsonObject, schemas: Schemas, *, required: bool, above: tuple[str, ...] = ()
) -> FieldText:
    """Return one field in words; objects named in `above` stand around it, and are not described again."""
    members = _members(schema, schemas)
    return FieldText(
        name=name,
        type=" or ".join(dict.fromkeys(_describe_type(member, schemas) for member in members)),
        limits=", ".join(dict.fromkeys(text for member in members if (text := _describe_limits(member, schemas)))),
        default=schema.get("default"),
        required=required,
        description=schema.get("description", ""),
        objects=describe_objects(schema, schemas, above),
    )


def _describe_fields(schema: JsonObject, schemas: Schemas, above: tuple[str, ...]) -> Iterator[FieldText]:
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        yield describe_field(name, inner, schemas, required=name in required, above=above)


def _resolve(schema: JsonObject, schemas: Schemas) -> tuple[str, JsonObject]:
    """Return the name and the schema behind a reference; any other schema as it is."""
    if "$ref" not in schema:
        return "", schema
    name = schema["$ref"].rpartition("/")[2]
    return name, schemas[name]


def _members(schema: JsonObject, schemas: Schemas) -> list[JsonObject]:
    """Return the alternatives, each with the rules that hold for all of them; null comes last."""
    if "anyOf" not in schema:
        return [schema]
    # JSON Schema applies what stands beside `anyOf` to each alternative.
    common = {name: value for name, value in schema.items() if name in ("type", "pattern")}
    members = [{**common, **member} for outer in schema["anyOf"] for member in _members(outer, schemas)]
    return sorted(members, key=lambda member: member.get("type") == "null")


def _list_objects(schema: JsonObject, schemas: Schemas) -> Iterator[tuple[str, JsonObject]]:
    seen = set()
    for member in _members(schema, schemas):
        name, resolved = _resolve(member, schemas)
        if resolved.get("type") == "array":
            found = list(_list_objects(resolved.get("items", {}), schemas))
        # A mapping by names of the caller's: its values are what a reader must know.
        elif isinstance(resolved.get("additionalProperties"), dict) and "properties" not in resolved:
            found = list(_list_objects(resolved["additionalProperties"], schemas))
        else:
            found = [(name, resolved)] if "properties" in resolved else []
        for inner in found:
            # An object that may stand alone or in a list is described once.
            if inner[0] not in seen:
                seen.add(inner[0])
                yield inner


def _describe_type(schema: JsonObject, schemas: Schemas) -> str:
    _, resolved = _resolve(schema, schemas)
    if "const" in resolved or "enum" in resolved:
        values = [resolved["const"]] if "const" in resolved else resolved["enum"]
        return " or ".join(f"`{value}`" for value in values)
    kind = str(resolved.get("type", "any value"))
    if kind == "array":
        items = [_describe_type(member, schemas) for member in _members(resolved.get("items", {}), schemas)]
        return f"list of {' or '.join(dict.fromkeys(items))}"
    if kind == "object" and isinstance(resolved.get("additionalProperties"), dict):
        values = [_describe_type(member, schemas) for member in _members(resolved["additionalProperties"], schemas)]
        return f"object of {' or '.join(dict.fromkeys(values))}"
    return {"date-time": "time (RFC 3339)", "date": "date"}.get(resolved.get("format", ""), kind)


def _describe_limits(schema: JsonObject, schemas: Schemas) -> str:
    _, resolved = _resolve(schema, schemas)
    kind = resolved.get("type")
    if kind in ("integer", "number"):
        return _describe_numbers(resolved)
    if kind == "string":
        return _describe_range(resolved.get("minLength"), resolved.get("maxLength"), "character")
    if kind == "array":
        own = _describe_range(resolved.get("minItems"), resolved.get("maxItems"), "item")
        items = (_describe_limits(member, schemas) for member in _members(resolved.get("items", {}), schemas))
        return "; ".join(dict.fromkeys(text for text in (own, *(f"each {text}" for text in items if text)) if text))
    if kind == "object" and isinstance(resolved.get("additionalProperties"), dict):
        return _describe_limits(resolved["additionalProperties"], schemas)
    return ""


def _describe_numbers(schema: JsonObject) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{_format_number(low)} to {_format_number(high)}"
    if low is not None and below is not None:
        return f"{_format_number(low)} to below {_format_number(below)}"
    words = (("at least", low), ("above", above), ("at most", high), ("below", below))
    return ", ".join(f"{word} {_format_number(bound)}" for word, bound in words if bound is not None)


def _format_number(number: float) -> str:
    """Return a number for people: powers of two as such, and a true minus sign."""
    if isinstance(number, int) and abs(number) == 2**63:
        return "−2⁶³" if number < 0 else "2⁶³"
    return f"{number:g}".replace("-", "−") if abs(number) < 10**6 else f"{number:,}"


def _describe_range(low: int | None, high: int | None, unit: str) -> str:
    if low is not None and high is not None:
        return f"{low} to {high} {unit}s"
    if high is not None:
        return f"at most {high} {unit}{'s' if high != 1 else ''}"
    return f"at least {low} {unit}{'s' if low != 1 else ''}" if low else ""
