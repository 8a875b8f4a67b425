"""Messages of a conversation and their parts, also as OpenAI's format writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part that is text."""

    text: str
    extra: JsonObject = field(default_factory=dict)
    """Further fields, unchanged: cache_control, …"""


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A part that is an image."""

    url: str
    """Address, http(s) or `data:`."""
    detail: str | None = None
    extra: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherPart:
    """A part that only some providers know (audio, a file), unchanged."""

    raw: JsonObject


Content = str | tuple[TextPart | ImagePart | OtherPart, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    role: str
    content: Content | None
    extra: JsonObject = field(default_factory=dict)
    """Further fields, unchanged: name, tool_calls, tool_call_id, …"""


def validate_content(value: object, parts: ValidatorFunctionWrapHandler) -> object:
    """Validate a message's content: text, or a list of parts. Pydantic's own union would report either fault twice."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("must be text, or a list of parts that is not empty")
    return parts(value)


class ImageUrl(BaseModel):
    """An image's address."""

    model_config = ConfigDict(extra="ignore", strict=True)

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class PartBody(BaseModel):
    """A part of a message: `text`, `image_url`, or one that only some providers know, which is passed on."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _check_type_field(self) -> Self:
        if self.type in ("text", "image_url") and getattr(self, self.type) is None:
            raise ValueError(f"a part of type `{self.type}` needs `{self.type}`")
        return self

    def to_part(self) -> TextPart | ImagePart | OtherPart:
        """Return the part as the rest of the package holds it."""
        if self.type == "text":
            return TextPart(self.text or "", self.model_extra or {})
        if self.type == "image_url" and self.image_url:
            return ImagePart(self.image_url.url, self.image_url.detail, self.model_extra or {})
        # Only the fields that the caller wrote: a provider may refuse our defaults as unknown fields.
        return OtherPart(self.model_dump(exclude_unset=True))


class MessageBody(BaseModel):
    """A message of the conversation; its other fields (`name`, `tool_calls`, …) are passed on."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        Annotated[list[PartBody], IN_STEPS, WrapValidator(validate_content, json_schema_input_type=str | list[PartBody])] | None
    ) = None
    """Text, or parts. Only an assistant's and a function's message may lack it."""

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        # OpenAI's clients send assistants' tool calls back with `content: null`.
        if self.content is None and self.role not in ("assistant", "function"):
            raise ValueError(f"a message of role `{self.role}` needs `content`")
        return self

    def to_message(self) -> Message:
        """Return the message as the rest of the package holds it."""
        given: object = self.content
        content: Content | None = given if isinstance(given, str) else None
        if isinstance(given, list):
            content = tuple(part.to_part() for part in given)
        # A null means absent; some servers refuse `"name": null`.
        extra = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        return Message(self.role, content, extra)
