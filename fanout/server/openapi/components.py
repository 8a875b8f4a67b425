"""Schemas of request bodies and answers, made by pydantic from the models and `TypedDict`s that declare them.

A `TypedDict` named `ModelJson` becomes the component `Model`; the `Doc`s of its fields become descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import TypedDictSchema
from typing_extensions import Doc, get_type_hints

from fanout.core.attribute_docs import DescribedJsonSchema
from fanout.core.json_text import JsonObject
from fanout.server.openapi.endpoint import Content, Endpoint, Events, Shape

REFERENCE = "#/components/schemas/"
SHAPE_SUFFIX = "Json"


class ComponentSchema(DescribedJsonSchema):
    """JSON schemas without the titles that pydantic derives from names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a title would only repeat the name."""
        return False

    def typed_dict_schema(self, schema: TypedDictSchema) -> JsonSchemaValue:
        """Return the schema of a `TypedDict`, each field with its `Doc`; a constant needs none."""
        made = super().typed_dict_schema(schema)
        hints = get_type_hints(schema["cls"], include_extras=True) if "cls" in schema else {}
        for name, field in made["properties"].items():
            notes = [note for note in getattr(hints.get(name), "__metadata__", ()) if isinstance(note, Doc)]
            if notes:
                field["description"] = notes[0].documentation
            elif "const" in field:
                field["description"] = f"Always `{field['const']}`."
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
            # A dict for its order: a set's would change the document from start to start.
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
    # "Default: null" reads as if null were sent; it only means that the field may be absent.
    if schema.get("default", ...) is None:
        noise |= {"default"}
    plain = {name: strip_noise(value) for name, value in schema.items() if name not in noise}
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = name_component(plain["$ref"])
    return plain


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
