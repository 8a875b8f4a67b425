"""Fusions in request bodies: an entry of `model` that names a model, or a fusion of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from fanout.core.fusion import MAX_MEMBERS
from fanout.core.long_lists import BoundedObject
from fanout.dispatch.entries import NESTED
from fanout.dispatch.fusing import MAX_TEMPLATE_CHARS, check_template

MAX_NAME_CHARS = 256
"""Limit of a model's name, and of a label."""


def _check_template(value: str | None) -> str | None:
    if value is not None and (problem := check_template(value)):
        raise ValueError(problem)
    return value


def _to_member_list(value: object) -> object:
    """Turn the names of a fusion's members into objects; refuse a fusion among them before it is looked at."""
    if not isinstance(value, list):
        raise ValueError("must be the list of a fusion's members")  # noqa: TRY004 - only this one is a wrong field to pydantic
    if any(isinstance(member, dict) and member.get("fusion") is not None for member in value):
        raise ValueError(NESTED)
    return [{"model": member} if isinstance(member, str) else member for member in value]


MEMBERS_SCHEMA = WithJsonSchema(
    {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_MEMBERS,
        "items": {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS},
                # Not the entry's own schema, which would contain itself.
                {"type": "object", "required": ["model"], "description": "An entry that is no fusion."},
            ]
        },
    }
)
ToMemberList = BeforeValidator(_to_member_list)
MemberCount = Field(min_length=1, max_length=MAX_MEMBERS)


class FusionFields(BoundedObject):
    """One answer made of the answers of several models."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    of: Any
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""
    by: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    """Model that makes one answer of the members' answers. The entry's own parameters are for its call."""
    template: Annotated[str | None, AfterValidator(_check_template)] = Field(None, max_length=MAX_TEMPLATE_CHARS)
    """Its task in your words, which follow the question: `{{answers}}` once, and as you like `{{count}}` and `{{mark}}`."""


class FusibleEntry(BoundedObject):
    """An entry of `model` written out: a model, or a fusion."""

    form = "a model's name, or a JSON object with `model` or `fusion`, and parameters of its own"

    fusion: Any = None
    """One answer made of the answers of several models; instead of `model`."""
    model: str | None = Field(None, min_length=1, max_length=MAX_NAME_CHARS, validate_default=True)
    """Name of a model or a set, an alias, or `<provider>/<id>`."""
    label: str | None = Field(None, min_length=1, max_length=MAX_NAME_CHARS)
    """Your name for this entry; by default the model's."""

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        # Absent where the fusion itself is wrong, which is reported already.
        if value is None and info.data.get("fusion", ...) is None:
            raise PydanticKnownError("missing")
        if value is not None and info.data.get("fusion") is not None:
            raise ValueError("stands beside `fusion`: an entry has one of the two")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the rule that an entry has one of the two."""
        made = handler.resolve_ref_schema(found := handler(schema))
        kinds = {"model": "string", "fusion": "object"}
        made["oneOf"] = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()]
        return found

    @property
    def members(self) -> Sequence[Any]:
        """The members of its fusion."""
        return self.fusion.of if self.fusion else ()
