"""Requests and answers of OpenAI's Responses format: conversations as items, and what a model put out.

Source: openai 3.51.0, `types/responses`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from fanout.core.json_text import JsonObject
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Answer, FinishReason
from fanout.core.usage import Usage
from fanout.providers.mapping.completions import Finish, build_usage, make_tool_call
from fanout.providers.mapping.json_fields import as_count, as_name, as_object, as_objects, as_text, find_count
from fanout.providers.mapping.messages import CACHE_CONTROL
from fanout.providers.mapping.openai_usage import CACHED, REASONING, WRITTEN
from fanout.providers.mapping.priced_content import OTHER_ITEMS

LOGPROBS = "message.output_text.logprobs"
"""What `include` names to have log probabilities."""
CUTS: Mapping[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
CALLS = ("function_call", "custom_tool_call")
READ_PARTS = frozenset({"output_text", "text", "refusal"})


def convert_fields(sent: Mapping[str, object]) -> JsonObject:
    """Return the fields of a request, of those that chat completions have."""
    fields: JsonObject = {"store": False, **sent}  # whatever a caller wants kept, Fanout keeps
    fields.pop("stream_options", None)  # usage always comes
    if isinstance(tools := fields.get("tools"), list):
        fields["tools"] = [_flatten(tool) for tool in map(drop_cache_mark, tools)]
    if isinstance(choice := fields.get("tool_choice"), dict):
        fields["tool_choice"] = _flatten(choice)
    text = {**as_object(fields.get("text"))}
    if response_format := fields.pop("response_format", None):
        text["format"] = _flatten(response_format)
    if verbosity := fields.pop("verbosity", None):
        text["verbosity"] = verbosity
    if text:
        fields["text"] = text
    if effort := fields.pop("reasoning_effort", None):
        fields["reasoning"] = {**as_object(fields.get("reasoning")), "effort": effort}
    return fields


def drop_cache_mark(tool: object) -> object:
    """Return a tool without the mark of the cache, which the format lacks; the very same tool where it has none."""
    function = as_object(as_object(tool).get("function"))
    if not isinstance(tool, dict) or CACHE_CONTROL not in {*tool, *function}:
        return tool
    bare = {name: value for name, value in tool.items() if name != CACHE_CONTROL}
    if CACHE_CONTROL in function:
        bare["function"] = {name: value for name, value in function.items() if name != CACHE_CONTROL}
    return bare


def _flatten(value: object) -> object:
    """Return an object of chat's with the fields of its inner one beside its type: `{"type": "function", "name": …}`."""
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    inner = value.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, dict):
        return value
    flat = {"type": kind, **inner}
    return {**flat, "format": _flatten(inner["format"])} if kind == "custom" and "format" in inner else flat


def convert_messages(messages: tuple[Message, ...]) -> list[JsonObject]:
    """Return a conversation as items: an assistant's tool calls are items of their own."""
    # What a tool returned has no type of its own: only the call with its id tells which it is.
    custom = {call.get("id") for message in messages for call in _list_calls(message) if call.get("type") == "custom"}
    return [item for message in messages for item in _convert_message(message, custom)]


def _list_calls(message: Message) -> list[JsonObject]:
    return as_objects(message.extra.get("tool_calls"))


def _convert_message(message: Message, custom: Container[object]) -> Iterator[JsonObject]:
    """Yield the items of a message.

    Args:
        message: of the conversation.
        custom: ids of the conversation's calls of tools that are no functions.
    """
    content = message.content
    kind = "output_text" if message.role == "assistant" else "input_text"
    converted = [_convert_part(part, kind) for part in content] if isinstance(content, tuple) else content
    if message.role == "tool":
        call_id = message.extra.get("tool_call_id")
        kind = "custom_tool_call_output" if call_id in custom else "function_call_output"
        yield {"type": kind, "call_id": call_id, "output": converted or ""}
        return
    if converted or message.role != "assistant":
        yield {"role": message.role, "content": converted or ""}
    for call in _list_calls(message):
        if call.get("id") in custom:
            payload = as_object(call.get("custom"))
            named = {"type": "custom_tool_call", "name": payload.get("name"), "input": payload.get("input")}
        else:
            function = as_object(call.get("function"))
            named = {"type": "function_call", "name": function.get("name"), "arguments": function.get("arguments")}
        yield {"call_id": call.get("id"), **named}


def _convert_part(part: TextPart | ImagePart | OtherPart, kind: str) -> JsonObject:
    if isinstance(part, TextPart):
        return {"type": kind, "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
    file = part.raw.get("file")
    return {"type": "input_file", **file} if part.raw.get("type") == "file" and isinstance(file, dict) else part.raw


def parse_answer(body: Mapping[str, object]) -> Answer:
    """Return the message that the items of an answer are."""
    texts, thoughts, refusals, calls = [], [], [], []
    extra: JsonObject = {}
    for item in as_objects(body.get("output")):
        match item.get("type"):
            case "message":
                texts += [as_text(part.get("text")) for part in as_objects(item.get("content"))]
                refusals += [as_text(part.get("refusal")) for part in as_objects(item.get("content"))]
            case "reasoning":
                thoughts.append(read_reasoning(item))
            case "function_call":
                calls.append(make_tool_call(item.get("name"), item.get("arguments"), item.get("call_id")))
            case "custom_tool_call":
                calls.append(make_custom_call(item))
        for name, values in pick_beside(item).items():
            extra[name] = [*extra.get(name, ()), *values]
    return Answer("".join(texts), "".join(thoughts) or None, "".join(refusals) or None, tuple(calls), extra)


def make_custom_call(item: Mapping[str, object]) -> JsonObject:
    """Return the call of a tool that is no function, as chat completions write it."""
    payload = {"name": as_text(item.get("name")), "input": as_text(item.get("input"))}
    return {"id": item.get("call_id"), "type": "custom", "custom": payload}


def read_reasoning(item: Mapping[str, object]) -> str:
    """Return the thoughts of an item of reasoning, or else their summary."""
    parts = as_objects(item.get("content")) or as_objects(item.get("summary"))
    return "".join(as_text(part.get("text")) for part in parts)


def pick_beside(item: JsonObject) -> JsonObject:
    """Return what an item holds beside text, thoughts and tool calls."""
    kind = item.get("type")
    if kind == "reasoning" or kind in CALLS:
        return {}
    if kind != "message":
        return {OTHER_ITEMS: [item]}
    parts = as_objects(item.get("content"))
    notes = [_nest_annotation(note) for part in parts for note in as_objects(part.get("annotations"))]
    # Kept as they are: a kind of part that is new today must not vanish from the comparison.
    others = [part for part in parts if as_text(part.get("type")) not in READ_PARTS]
    beside = {"annotations": notes, "content_parts": others}
    return {name: values for name, values in beside.items() if values}


def _nest_annotation(note: JsonObject) -> JsonObject:
    """Return a source as chat completions write it."""
    kind = note.get("type")
    return {"type": kind, str(kind): {name: value for name, value in note.items() if name != "type"}}


def read_end(body: Mapping[str, object], *, has_calls: bool) -> Finish:
    """Return the end of an answer."""
    if body.get("status") != "incomplete":
        return "tool_calls" if has_calls else "stop", None
    reason = as_text(as_object(body.get("incomplete_details")).get("reason"))
    return CUTS.get(reason), None if reason in CUTS else as_name(reason)


def parse_usage(raw: object, service_tier: object = None) -> Usage | None:
    """Return tokens as this project counts them."""
    if not isinstance(raw, dict):
        return None
    heard, spoken = as_object(raw.get("input_tokens_details")), as_object(raw.get("output_tokens_details"))
    return build_usage(
        as_count(raw.get("input_tokens")),
        as_count(raw.get("output_tokens")),
        find_count((heard,), CACHED),
        find_count((heard,), WRITTEN),
        find_count((spoken,), REASONING),
        service_tier=service_tier,
        raw=raw,
    )
