"""Schemas of request bodies and answers, made by pydantic from the models and `TypedDict`s that declare them.

A `TypedDict` named `ModelJson` becomes the component `Model`; its attribute docstrings become descriptions.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import TypedDictSchema
from typing_extensions import get_original_bases, is_typeddict

from fanout.core.json_text import JsonObject
from fanout.server.openapi.endpoint import Content, Endpoint, Events, Shape

REFERENCE = "#/components/schemas/"
SHAPE_SUFFIX = "Json"


class ComponentSchema(GenerateJsonSchema):
    """JSON schemas without the titles that pydantic derives from names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a title would only repeat the name."""
        return False

    def typed_dict_schema(self, schema: TypedDictSchema) -> JsonSchemaValue:
        """Return the schema of a `TypedDict`, with its fields' docstrings as descriptions."""
        made = super().typed_dict_schema(schema)
        descriptions = read_field_docstrings(schema["cls"]) if "cls" in schema else {}
        for name, field in made["properties"].items():
            if name in descriptions:
                field["description"] = descriptions[name]
        return made


def make_components(endpoints: Iterable[Endpoint]) -> dict[str, JsonObject]:
    """Return the schemas of all that the endpoints take and answer, by component name."""
    shapes: dict[Shape, None] = {}
    for endpoint in endpoints:
        contents = (content for answer in endpoint.answers.values() for content in answer.content.values())
        for shape in (
            *([endpoint.body] if endpoint.body else []),
            *(shape for found in contents for shape in list_shapes(found)),
        ):
            shapes |= dict.fromkeys((shape, *_find_hidden_models(shape)))
    # One adapter for all: each would make the schemas of its parts anew.
    adapter = TypeAdapter(tuple[*shapes])  # type: ignore[valid-type]
    _, whole = TypeAdapter.json_schemas(
        [("all", "validation", adapter)], ref_template=f"{REFERENCE}{{model}}", schema_generator=ComponentSchema
    )
    schemas = {name_component(name): strip_noise(schema) for name, schema in whole["$defs"].items()}
    return dict(sorted(schemas.items()))


def name_component(name: str) -> str:
    """Return the name of a class's component."""
    return name.removesuffix(SHAPE_SUFFIX)


def list_shapes(content: Content) -> tuple[Shape, ...]:
    """Return the shapes that a content may have."""
    if isinstance(content, Events):
        return list_shapes(content.data)
    return content if isinstance(content, tuple) else () if isinstance(content, dict) else (content,)


def strip_noise(schema: Any) -> Any:
    """Return a schema without titles of models and without null defaults, and with its references by component name."""
    if isinstance(schema, list):
        return [strip_noise(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    noise = {"title"} if isinstance(schema.get("title"), str) else set()
    if schema.get("default", ...) is None:
        noise |= {"default"}
    plain = {name: strip_noise(value) for name, value in schema.items() if name not in noise}
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = name_component(plain["$ref"])
    return plain


def read_field_docstrings(shape: type) -> dict[str, str]:
    """Return the docstrings of the fields of a `TypedDict`, inherited ones among them.

    pydantic can do so too, but it leaves inherited fields out, and parses a whole module for every class: two seconds in all.
    """
    found: dict[str, str] = {}
    for base in get_original_bases(shape):
        if is_typeddict(base):
            found |= read_field_docstrings(base)
    return found | _read_module_docstrings(shape.__module__).get(shape.__name__, {})


@cache
def _read_module_docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of all fields of a module's classes, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            pairs = pairwise(node.body)
            found[node.name] = {
                field.target.id: inspect.cleandoc(text.value.value)
                for field, text in pairs
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return found


def _find_hidden_models(shape: Shape) -> Iterator[Shape]:
    """Yield the models that a body names only within a schema written by hand, where pydantic does not follow them."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        for info in shape.model_fields.values():
            yield from _find_models(info.annotation)


def _find_models(annotation: Any) -> Iterator[Shape]:
    for member in get_args(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member
        else:
            yield from _find_models(member)
