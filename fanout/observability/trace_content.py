"""Prompts and answers as spans hold them, where the operator has switched that on: in bounds, and without bytes of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from opentelemetry.util.genai.types import (
    GenericPart,
    InputMessage,
    MessagePart,
    Modality,
    OutputMessage,
    ReasoningPart,
    TextPart,
    ToolCallRequestPart,
    ToolCallResponsePart,
    UriPart,
)

from fanout.core.json_text import JsonObject
from fanout.core.messages import Content, ImagePart, Message
from fanout.core.messages import TextPart as MessageText
from fanout.core.schema import Completion, Failure, Query

MAX_CONTENT_CHARACTERS = 32 * 1024
"""Of a call's question, and of its answer: two thousand spans may wait for a collector that does not answer."""
MESSAGE_CHARACTERS = 64
"""Counted for each message and part beside its text, so that empty ones have a bound as well."""


def clean(text: str, max_characters: int) -> str:
    """Return a text that any encoder takes, cut to a length."""
    cut = text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"
    return cut.encode(errors="replace").decode()


class _Room:
    """The characters that are left."""

    def __init__(self) -> None:
        self.left = MAX_CONTENT_CHARACTERS

    def take(self, text: str) -> str:
        """Return as much of a text as there is room for."""
        text = clean(text, max(self.left, 1))
        self.left -= len(text) + MESSAGE_CHARACTERS
        return text


def render_query(query: Query) -> list[InputMessage]:
    """Return the messages of a question; of a long conversation the last."""
    room, found = _Room(), []
    if query.messages is None:
        prompt = query.prompt if query.prompt is not None else f"[{len(query.prompt_tokens or ()):,} token ids]"
        return [InputMessage("user", [TextPart(room.take(prompt))])]
    for message in reversed(query.messages):
        if room.left <= 0:
            break
        found.append(InputMessage(clean(message.role, MESSAGE_CHARACTERS), list(_render_message(message, room))))
    return found[::-1]


def render_answer(result: Completion | Failure) -> list[OutputMessage]:
    """Return the messages of an answer, or the text that came before a failure."""
    room = _Room()
    if isinstance(result, Failure):
        return [OutputMessage("assistant", [TextPart(room.take(result.partial))])] if result.partial else []
    messages = []
    for choice in result.choices:
        if room.left <= 0:
            break
        message = choice.message
        parts: list[MessagePart] = [TextPart(room.take(message.shown_text))] if message.shown_text else []
        if message.reasoning:
            parts.append(ReasoningPart(room.take(message.reasoning)))
        parts += _render_tool_calls(message.tool_calls, room)
        messages.append(OutputMessage("assistant", parts))
    return messages


def _render_message(message: Message, room: _Room) -> Iterator[MessagePart]:
    if message.role == "tool":
        given = message.extra.get("tool_call_id")
        text = "".join(_list_texts(message.content))
        yield ToolCallResponsePart(room.take(text), given if isinstance(given, str) else None)
        return
    yield from _render_content(message.content, room)
    calls = message.extra.get("tool_calls")
    yield from _render_tool_calls(calls if isinstance(calls, list) else (), room)


def _list_texts(content: Content | None) -> list[str]:
    parts = [MessageText(content)] if isinstance(content, str) else content or ()
    return [part.text for part in parts if isinstance(part, MessageText)]


def _render_content(content: Content | None, room: _Room) -> Iterator[MessagePart]:
    for part in [MessageText(content)] if isinstance(content, str) else content or ():
        if room.left <= 0:
            return
        if isinstance(part, MessageText):
            yield TextPart(room.take(part.text))
        elif isinstance(part, ImagePart):
            # An image within the request is named, not copied.
            address = f"{part.url.partition(',')[0]},…" if part.url.startswith("data:") else part.url
            yield UriPart(None, Modality.IMAGE, room.take(address))
        else:
            yield GenericPart(room.take(str(part.raw.get("type"))))


def _render_tool_calls(calls: Iterable[JsonObject], room: _Room) -> Iterator[MessagePart]:
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if room.left <= 0 or not isinstance(function, dict):
            return
        id_ = call.get("id")
        arguments, name = room.take(str(function.get("arguments"))), room.take(str(function.get("name")))
        yield ToolCallRequestPart(arguments, name, id_[:MESSAGE_CHARACTERS] if isinstance(id_, str) else None)
