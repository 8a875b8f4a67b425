"""Descriptions of the fields of models: the docstrings below them, as JSON schemas give them.

They are read from the source when a schema is made. pydantic's `use_attribute_docstrings` reads them whenever a model is
imported, which costs every start 0.1 s.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema


class DescribedJsonSchema(GenerateJsonSchema):
    """JSON schemas of models whose fields are described by the docstrings below them."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """Return the schema of a model, each field with its docstring."""
        made = super().model_schema(schema)
        model: Any = schema["cls"]
        for name, field in model.model_fields.items():
            shown = made.get("properties", {}).get(field.validation_alias if self.by_alias and field.alias else name)
            description = field.description or find_attribute_doc(model, name)
            if shown is not None and description:
                shown.setdefault("description", description)
        return made


def find_attribute_doc(model: type, name: str) -> str | None:
    """Return the docstring below a field, where the field was last declared."""
    owner = next((base for base in model.__mro__ if name in vars(base).get("__annotations__", {})), None)
    return _read_docs(owner).get(name) if owner else None


@cache
def _read_docs(owner: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef), "it is the source of a class"
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
