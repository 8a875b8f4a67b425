"""Items of a response's `input`, and the messages that they stand for.

Source: openai 3.51.0, `types/responses/response_input_param.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator, model_validator

from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import Content, ImagePart, Message, OtherPart, TextPart, validate_content

TEXT_PARTS = ("input_text", "output_text", "text")
NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
}
"""Fields without which an item means nothing."""
NEEDED_OF_PARTS = {**dict.fromkeys(TEXT_PARTS, "text"), "refusal": "refusal", "input_image": "image_url"}


class ItemPart(BaseModel):
    """A part of an item's content."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["input_text", "output_text", "text", "refusal", "input_image", "input_file", "input_audio"]
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None

    @model_validator(mode="after")
    def _check_type_field(self) -> Self:
        name = NEEDED_OF_PARTS.get(self.type)
        if name and getattr(self, name) is None:
            raise ValueError(f"a part of type `{self.type}` needs `{name}`")
        # Passed on, the id would be looked for in the provider's own files, under the operator's key.
        if (self.model_extra or {}).get("file_id"):
            raise ValueError("`file_id` is not allowed: files uploaded elsewhere are not known here; send the content itself")
        return self

    def to_part(self) -> TextPart | ImagePart | OtherPart:
        """Return the part as chat completions write it."""
        extra = self.model_extra or {}
        if self.type in TEXT_PARTS:
            # What stood beside a model's own words is no part of the conversation.
            kept = {name: value for name, value in extra.items() if name not in ("annotations", "logprobs")}
            return TextPart(self.text or "", kept)
        if self.type == "input_image":
            # "original" is of responses alone: chat completions refuse it.
            return ImagePart(self.image_url or "", None if self.detail == "original" else self.detail)
        if self.type == "refusal":
            return OtherPart({"type": "refusal", "refusal": self.refusal})
        if self.type == "input_audio":
            return OtherPart({"type": self.type, **extra})
        return OtherPart({"type": "file", "file": extra})


ItemContent = Annotated[list[ItemPart], IN_STEPS, WrapValidator(validate_content, json_schema_input_type=str | list[ItemPart])]


class ItemBody(BaseModel):
    """An item: a message, a tool call, its output, or reasoning, which is left out."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal[
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"
    ] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    """Of a message."""
    content: ItemContent | None = None
    """Of a message: text, or parts."""
    call_id: str | None = None
    """Of a tool call and its output."""
    name: str | None = None
    """Of the tool."""
    arguments: str | None = None
    """JSON of a function's arguments."""
    input: str | None = None
    """Text for a tool that is no function."""
    output: ItemContent | None = None
    """Output of the tool: text, or parts."""

    @model_validator(mode="before")
    @classmethod
    def _drop_foreign_content(cls, value: object) -> object:
        # The content of reasoning has parts of its own, and none of it is used.
        if isinstance(value, dict) and value.get("type") == "reasoning":
            return {"type": "reasoning"}
        return value

    @model_validator(mode="after")
    def _check_type_fields(self) -> Self:
        for name in NEEDED.get(self.type, ()):
            if getattr(self, name) is None:
                raise ValueError(f"an item of type `{self.type}` needs `{name}`")
        return self

    def to_tool_call(self) -> JsonObject:
        """Return a tool call as chat completions write it."""
        if self.type == "custom_tool_call":
            return {"id": self.call_id, "type": "custom", "custom": {"name": self.name, "input": self.input}}
        return {"id": self.call_id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def _to_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Items = Annotated[
    list[ItemBody],
    Field(min_length=1),
    IN_STEPS,
    BeforeValidator(_to_items, json_schema_input_type=str | Annotated[list[ItemBody], Field(min_length=1)]),
]


def to_messages(items: Iterable[ItemBody]) -> tuple[Message, ...]:
    """Return the messages of a conversation; tool calls join the assistant's message before them."""
    messages: list[Message] = []
    for item in items:
        # Chat completions have one message with all calls of a turn; several in a row are refused by providers.
        if item.type in ("function_call", "custom_tool_call"):
            before = messages[-1] if messages and messages[-1].role == "assistant" else None
            if before:
                messages.pop()
            else:
                before = Message("assistant", None)
            calls = [*before.extra.get("tool_calls", ()), item.to_tool_call()]
            messages.append(replace(before, extra={**before.extra, "tool_calls": calls}))
        elif item.type in ("function_call_output", "custom_tool_call_output"):
            messages.append(Message("tool", _to_content(item.output), {"tool_call_id": item.call_id}))
        elif item.type == "message":
            messages.append(Message(item.role or "user", _to_content(item.content)))
    return tuple(messages)


def _to_content(content: object) -> Content:
    return content if isinstance(content, str) else tuple(part.to_part() for part in content)  # type: ignore[attr-defined]
