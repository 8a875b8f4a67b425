"""JSON Schemas within a time: a few lines of references take `jsonschema` years, and nothing stops its patterns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import wraps
from typing import Any

import jsonschema
import referencing

from fanout.evaluate.limits import check_time, search

Faults = Iterator[jsonschema.ValidationError]
Keyword = Callable[[Any, Any, object, Any], Faults | None]


def _check_pattern(validator: Any, pattern: str, value: object, schema: object) -> Faults:
    if isinstance(value, str) and not search(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _check_pattern_properties(validator: Any, patterns: Mapping[str, object], value: object, schema: object) -> Faults:
    for pattern, inner in patterns.items() if isinstance(value, dict) else ():
        for name, item in value.items():  # type: ignore[attr-defined]
            if search(pattern, name):
                yield from validator.descend(item, inner, path=name, schema_path=pattern)


def _check_additional_properties(validator: Any, allowed: object, value: object, schema: Mapping[str, Any]) -> Faults:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in value if name not in known and not any(search(pattern, name) for pattern in patterns)]
    if isinstance(allowed, dict):
        for name in extra:
            yield from validator.descend(value[name], allowed, path=name)
    elif not allowed and extra:
        names = ", ".join(repr(name) for name in extra)
        yield jsonschema.ValidationError(f"Additional properties are not allowed ({names})")


def _check_unique_items(validator: Any, is_unique: object, value: object, schema: object) -> Faults:
    # The package compares every item of a list with every other.
    if is_unique and isinstance(value, list) and len(set(map(_to_key, value))) < len(value):
        yield jsonschema.ValidationError(f"{value!r} has non-unique elements")


def _to_key(value: object) -> Hashable:
    """Return what is equal for equal JSON values: `1` and `1.0` are, `1` and `true` are not."""
    if isinstance(value, list):
        return ("list", *map(_to_key, value))
    if isinstance(value, dict):
        return frozenset((name, _to_key(inner)) for name, inner in value.items())
    return (type(value), value) if isinstance(value, bool) else value


def _within_time(check: Keyword) -> Keyword:
    @wraps(check)
    def check_within_time(validator: Any, keyword: Any, value: object, schema: Any) -> Faults | None:
        check_time()
        return check(validator, keyword, value, schema)

    return check_within_time


KEYWORDS = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional_properties,
    "uniqueItems": _check_unique_items,
}
"""Checks that take the places of the package's own."""


def make_validator(schema: Mapping[str, Any], formats: jsonschema.FormatChecker | None = None) -> Any:
    """Return the validator of a schema, which raises `TimeoutError`, see `limits`. Without `formats` none are checked."""
    # An empty registry: a reference to an address is an error, never a request that a schema makes this machine send.
    maker = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    keywords = {name: _within_time(check) for name, check in {**maker.VALIDATORS, **KEYWORDS}.items()}
    bounded = jsonschema.validators.extend(maker, keywords)  # type: ignore[no-untyped-call]
    return bounded(schema, registry=referencing.Registry(), format_checker=formats)


def has_both(schema: object, *names: str) -> bool:
    """Return whether a schema has all of some keywords, anywhere."""
    found: set[str] = set()
    rest = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            found |= value.keys() & set(names)
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return len(found) == len(names)
