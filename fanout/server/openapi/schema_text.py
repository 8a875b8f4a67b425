"""A JSON Schema as people read it: a field's type in words, its range, what is in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
Schemas = Mapping[str, Schema]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object, or one parameter."""

    name: str
    type: str
    """`string or list of string`."""
    limits: str
    """`0 to 2`, `at most 4 items`."""
    default: Any
    required: bool
    description: str
    inside: tuple[Fields, ...]
    """What is in it, once for every kind of object it may be or hold."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one kind of object."""

    name: str
    description: str
    fields: tuple[Field, ...]


def fields_of(schema: Schema, schemas: Schemas, above: tuple[str, ...] = ()) -> tuple[Fields, ...]:
    """What is in the objects that a schema allows, itself or as items of its lists.

    Args:
        schemas: by name, for references.
        above: names that this stands inside: they are not written out again.
    """
    found = []
    for name, member in _objects(schema, schemas):
        if name not in above:
            inner = (*above, name) if name else above
            found.append(Fields(name, member.get("description", ""), tuple(_fields(member, schemas, inner))))
    return tuple(fields for fields in found if fields.fields)


def field_of(name: str, schema: Schema, schemas: Schemas, *, required: bool, above: tuple[str, ...] = ()) -> Field:
    """One field, in words."""
    members = _members(schema, schemas)
    return Field(
        name=name,
        type=" or ".join(dict.fromkeys(_type(member, schemas) for member in members)),
        limits=", ".join(dict.fromkeys(text for member in members if (text := _limits(member, schemas)))),
        default=schema.get("default"),
        required=required,
        description=schema.get("description", ""),
        inside=fields_of(schema, schemas, above),
    )


def _fields(schema: Schema, schemas: Schemas, above: tuple[str, ...]) -> Iterator[Field]:
    needed = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        yield field_of(name, inner, schemas, required=name in needed, above=above)


def _resolved(schema: Schema, schemas: Schemas) -> tuple[str, Schema]:
    """A schema behind its reference, and the name it has there."""
    if "$ref" not in schema:
        return "", schema
    name = schema["$ref"].rpartition("/")[2]
    return name, schemas[name]


def _members(schema: Schema, schemas: Schemas) -> list[Schema]:
    """The alternatives, each with what holds for all; what may be null, last."""
    if "anyOf" not in schema:
        return [schema]
    common = {name: value for name, value in schema.items() if name in ("type", "pattern")}
    members = [{**common, **member} for outer in schema["anyOf"] for member in _members(outer, schemas)]
    return sorted(members, key=lambda member: member.get("type") == "null")


def _objects(schema: Schema, schemas: Schemas) -> Iterator[tuple[str, Schema]]:
    seen = set()
    for member in _members(schema, schemas):
        name, resolved = _resolved(member, schemas)
        if resolved.get("type") == "array":
            found = list(_objects(resolved.get("items", {}), schemas))
        elif isinstance(resolved.get("additionalProperties"), dict) and "properties" not in resolved:
            found = list(_objects(resolved["additionalProperties"], schemas))
        else:
            found = [(name, resolved)] if "properties" in resolved else []
        for inner in found:
            if inner[0] not in seen:
                seen.add(inner[0])
                yield inner


def _type(schema: Schema, schemas: Schemas) -> str:
    _, resolved = _resolved(schema, schemas)
    if "const" in resolved or "enum" in resolved:
        values = [resolved["const"]] if "const" in resolved else resolved["enum"]
        return " or ".join(f"`{value}`" for value in values)
    kind = str(resolved.get("type", "any value"))
    if kind == "array":
        items = [_type(member, schemas) for member in _members(resolved.get("items", {}), schemas)]
        return f"list of {' or '.join(dict.fromkeys(items))}"
    if kind == "object" and isinstance(resolved.get("additionalProperties"), dict):
        values = [_type(member, schemas) for member in _members(resolved["additionalProperties"], schemas)]
        return f"object of {' or '.join(dict.fromkeys(values))}"
    return {"date-time": "time (RFC 3339)", "date": "date"}.get(resolved.get("format", ""), kind)


def _limits(schema: Schema, schemas: Schemas) -> str:
    _, resolved = _resolved(schema, schemas)
    kind = resolved.get("type")
    if kind in ("integer", "number"):
        return _numbers(resolved)
    if kind == "string":
        return _range(resolved.get("minLength"), resolved.get("maxLength"), "character")
    if kind == "array":
        own = _range(resolved.get("minItems"), resolved.get("maxItems"), "item")
        items = (_limits(member, schemas) for member in _members(resolved.get("items", {}), schemas))
        return "; ".join(dict.fromkeys(text for text in (own, *(f"each {text}" for text in items if text)) if text))
    if kind == "object" and isinstance(resolved.get("additionalProperties"), dict):
        return _limits(resolved["additionalProperties"], schemas)
    return ""


def _numbers(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{_shown(low)} to {_shown(high)}"
    if low is not None and below is not None:
        return f"{_shown(low)} to below {_shown(below)}"
    words = (("at least", low), ("above", above), ("at most", high), ("below", below))
    return ", ".join(f"{word} {_shown(bound)}" for word, bound in words if bound is not None)


def _shown(number: float) -> str:
    """Powers of two that nobody can read as what they are."""
    if isinstance(number, int) and abs(number) == 2**63:
        return "−2⁶³" if number < 0 else "2⁶³"
    return f"{number:g}".replace("-", "−") if abs(number) < 10**6 else f"{number:,}"


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is not None and high is not None:
        return f"{low} to {high} {unit}s"
    if high is not None:
        return f"at most {high} {unit}{'s' if high != 1 else ''}"
    return f"at least {low} {unit}{'s' if low != 1 else ''}" if low else ""
