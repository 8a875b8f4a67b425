"""Patterns of JSON Schemas, within a time: those of `jsonschema` itself cannot be stopped, and hold up the whole process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jsonschema
import referencing
import regex

DEADLINE: ContextVar[float] = ContextVar("deadline")
"""Until when (`time.monotonic`) the patterns of one validation may run; then they raise `TimeoutError`."""
Faults = Iterator[jsonschema.ValidationError]


def _search(pattern: str, text: str) -> bool:
    left_s = DEADLINE.get() - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return regex.search(pattern, text, timeout=left_s) is not None


def _check_pattern(validator: Any, pattern: str, value: object, schema: object) -> Faults:
    if isinstance(value, str) and not _search(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _check_pattern_properties(validator: Any, patterns: Mapping[str, object], value: object, schema: object) -> Faults:
    for pattern, inner in patterns.items() if isinstance(value, dict) else ():
        for name, item in value.items():  # type: ignore[attr-defined]
            if _search(pattern, name):
                yield from validator.descend(item, inner, path=name, schema_path=pattern)


def _check_additional_properties(validator: Any, allowed: object, value: object, schema: Mapping[str, Any]) -> Faults:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in value if name not in known and not any(_search(pattern, name) for pattern in patterns)]
    if isinstance(allowed, dict):
        for name in extra:
            yield from validator.descend(value[name], allowed, path=name)
    elif not allowed and extra:
        names = ", ".join(repr(name) for name in extra)
        yield jsonschema.ValidationError(f"Additional properties are not allowed ({names})")


KEYWORDS = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional_properties,
}
"""Checks that take the places of the package's own."""


def make_validator(schema: Mapping[str, Any], formats: jsonschema.FormatChecker | None = None) -> Any:
    """Return the validator of a schema; `DEADLINE` must be set for each validation. Without `formats` none are checked."""
    # An empty registry: a reference to an address is an error, never a request that a schema makes this machine send.
    maker = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    bounded = jsonschema.validators.extend(maker, KEYWORDS)  # type: ignore[no-untyped-call]
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
