"""Every bound of a request's field in the document is the server's: values at it are accepted, values beyond it refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from fanout.config.catalogue import Catalogue
from fanout.config.settings import load_settings
from fanout.core.errors import RequestError
from fanout.requests.bodies import validate_body
from fanout.server.endpoints import ENDPOINTS
from fanout.server.openapi.document import make_document

BODIES = list(dict.fromkeys(endpoint.body for endpoint in ENDPOINTS if endpoint.body))
OTHER_TYPES: list[Any] = ["x", "", 1, 1.5, True, None, [], {}, [None], [[]], "5"]
BY_MEANING = {
    "deadline": "a time is in the future",
    "template": "a template has a variable",
    "scorers": "a scorer is known",
    "input_file_id": "one of three fields",
    "fork_of": "one of three fields",
    "items": "an item is a row",
    "resumable": "only a stream is",
    "input": "an item has the fields of its type",
}
"""Fields of which a validator requires more than a schema can say, which their descriptions or errors do."""


@cache
def get_document() -> dict[str, Any]:
    return make_document(ENDPOINTS, description="")


@cache
def get_context() -> dict[str, Any]:
    return {"max_timeout_s": 600, "catalogue": Catalogue(load_settings(None, {"HOME": "/dev/null"}))}


def find_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all within it, references followed once."""
    if isinstance(schema, dict):
        yield schema
        for name, inner in schema.items():
            if name in ("anyOf", "oneOf", "allOf"):
                for member in inner:
                    yield from find_schemas(member)


def list_edges(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the values at and beyond each bound of a schema."""
    for part in find_schemas(schema):
        kind = part.get("type")
        step = 1 if kind == "integer" else 0.25
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if bound in part:
                yield from (part[bound] - step, part[bound], part[bound] + step)
                yield from [float(part[bound])] if abs(part[bound]) < 2**50 else []
        for bound in ("minLength", "maxLength"):
            if kind == "string" and bound in part:
                yield from ("é" * count for count in range(max(0, part[bound] - 1), part[bound] + 2))
        if kind == "array":
            items = [item for item in [*list_edges(part.get("items", {})), *OTHER_TYPES] if not isinstance(item, list)]
            yield from ([item] for item in items)
            good = next((item for item in items if is_valid(part.get("items", {}), item)), None)
            for bound in ("minItems", "maxItems"):
                if bound in part:
                    yield from ([good] * count for count in range(max(0, part[bound] - 1), part[bound] + 2))
        yield from part.get("enum", ())


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    whole = {**schema, "components": get_document()["components"]}
    return Draft202012Validator(whole).is_valid(value)


def find_fault(body: type[BaseModel], field: str, value: Any) -> str | None:
    """Return why a body is refused for this field, if it is."""
    try:
        validate_body(json.dumps({field: value}).encode(), body, get_context())
    except RequestError as error:
        return next((str(fault) for fault in error.faults if fault.path.partition("[")[0].partition(".")[0] == field), None)
    return None


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_value_is_refused_exactly_where_the_schema_refuses_it(body: type[BaseModel]) -> None:
    wrong = []
    for field, schema in get_document()["components"]["schemas"][body.__name__]["properties"].items():
        if schema.keys() == {"description"}:  # the path replaces it
            continue
        for value in [*list_edges(schema), *OTHER_TYPES]:
            allowed, fault = is_valid(schema, value), find_fault(body, field, value)
            # A field that is required in one of several forms is missing when it is null.
            is_missing = value is None and "required" in (fault or "")
            if allowed != (fault is None) and not is_missing and not (allowed and field in BY_MEANING):
                wrong.append((field, str(value)[:60], f"allowed: {allowed}", fault))

    assert not wrong, "\n".join(map(str, wrong))


def test_no_field_is_required_that_may_be_left_out() -> None:
    schemas = get_document()["components"]["schemas"]
    for body in BODIES:
        try:
            validate_body(b"{}", body, get_context())
            missing = []
        except RequestError as error:
            missing = [fault.path for fault in error.faults if fault.kind == "missing_required_parameter"]
        assert set(schemas[body.__name__].get("required", ())) <= set(missing), body


def test_the_document_uses_no_word_that_json_schema_lacks() -> None:
    def find_strange(value: Any, *path: str) -> Iterator[str]:
        if isinstance(value, dict):
            if {"type", "anyOf", "$ref"} & value.keys() and "properties" not in path[-1:]:
                yield from (f"{'/'.join(path)}: {name}" for name in value.keys() & {"le", "ge", "lt", "gt", "min_length"})
            for name, inner in value.items():
                yield from find_strange(inner, *path, name)

    assert list(find_strange(get_document()["components"]["schemas"])) == []
