"""Bodies of requests in Bedrock's Converse format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanout.core.json_text import JsonObject
from fanout.core.messages import Content, ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Query
from fanout.providers.mapping.data_urls import decode_data_url
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object, as_objects
from fanout.providers.mapping.messages import CACHE_CONTROL, find_last_mark, get_cache_mark, part_error, split_system
from fanout.providers.mapping.other_content import THINKING_BLOCKS
from fanout.providers.mapping.tools import Toolbox, ToolFields, get_tool_call_id, parse_tool_calls

# Source for every field below: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and botocore
# 1.44.5, `data/bedrock-runtime/2023-09-30/service-2.json`.
INFERENCE = ("maxTokens", "temperature", "topP", "stopSequences")
MODELS_OWN = "additionalModelRequestFields"
TOP_LEVEL = frozenset(
    {
        *("toolConfig", "additionalModelResponseFieldPaths", "guardrailConfig"),
        *("outputConfig", "performanceConfig", "requestMetadata", "serviceTier"),
    }
)
CACHE_POINT = "cachePoint"
TAKEN = frozenset({CACHE_CONTROL, THINKING_BLOCKS})
"""Fields of messages beyond OpenAI's."""
BLOCKS = frozenset({"document", "video", "audio", "cachePoint", "guardContent", "searchResult"})
"""Parts that a caller may write as Converse has them."""


def build_body(origin: Origin, sent: Mapping[str, Any], query: Query) -> JsonObject:
    """Return the request's body. What is sent beside Converse's own fields goes to the model as it is.

    Raises:
        ProviderError: the query holds what Converse cannot express.
    """
    system, messages = split_system(origin, query)
    body: JsonObject = {"messages": _convert_messages(origin, messages)}
    if system:
        body["system"] = [block for part in system for block in ({"text": part.text}, *_mark(get_cache_mark(part)))]
    if inference := {name: sent[name] for name in INFERENCE if name in sent}:
        body["inferenceConfig"] = inference
    models_own = dict(as_object(sent.get(MODELS_OWN)))
    for name, value in sent.items():
        if name in TOP_LEVEL:
            body[name] = value
        elif name not in INFERENCE and name != MODELS_OWN:  # `top_k`, `seed` and the like: each model's own
            models_own[name] = value
    if models_own:
        body[MODELS_OWN] = models_own
    return body


def _convert_messages(origin: Origin, messages: Sequence[Message]) -> list[JsonObject]:
    """Return user and assistant in turns, as Converse requires: neighbours of one role are put together."""
    turns: list[JsonObject] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_convert_message(origin, message))
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:  # a turn without content is refused
            turns.append({"role": role, "content": blocks})
    return turns


def _convert_message(origin: Origin, message: Message) -> Iterator[JsonObject]:
    if message.role == "tool":
        blocks = [block for block in _convert_content(origin, message.content) if CACHE_POINT not in block]
        # An empty text is refused, an empty list as well.
        yield {"toolResult": {"toolUseId": get_tool_call_id(origin, message), "content": blocks or [{"text": " "}]}}
        yield from _mark(find_last_mark(message))
        return
    yield from map(_convert_thoughts, as_objects(message.extra.get(THINKING_BLOCKS)))
    yield from _convert_content(origin, message.content)
    for call in parse_tool_calls(origin, message):
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}
    if message.content or message.extra.get("tool_calls"):  # a mark alone keeps nothing, and is refused
        yield from _mark(get_cache_mark(message))


def _convert_thoughts(block: JsonObject) -> JsonObject:
    if block.get("type") == "redacted_thinking":
        return {"reasoningContent": {"redactedContent": block.get("data")}}
    thoughts = {"text": block.get("thinking"), "signature": block.get("signature")}
    return {"reasoningContent": {"reasoningText": thoughts}}


def _mark(cache_control: JsonObject) -> list[JsonObject]:
    """Return the block that Converse has behind what is to be kept, where others mark what is to be kept itself."""
    lifetime = cache_control.get("ttl")
    return [{CACHE_POINT: {"type": "default", **({"ttl": lifetime} if lifetime else {})}}] if cache_control else []


def _convert_content(origin: Origin, content: Content | None) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"text": content}] if content else []  # an empty text is refused
    parts = [part for part in content or () if not isinstance(part, TextPart) or part.text]
    return [block for part in parts for block in (_convert_part(origin, part), *_mark(get_cache_mark(part)))]


def _convert_part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> JsonObject:
    if isinstance(part, OtherPart):
        if len(part.raw) != 1 or not BLOCKS.issuperset(part.raw):
            raise part_error(origin, part)
        # A block of Converse's own, as its callers know it.
        return dict(part.raw)
    if isinstance(part, TextPart):
        return {"text": part.text}
    image = decode_data_url(part.url)
    return {"image": {"format": image.kind, "source": {"bytes": image.base64}}}


def convert_toolbox(toolbox: Toolbox) -> ToolFields:
    """Return the tools as Converse has them. It knows no `none`: then none are sent."""
    ignored = () if toolbox.is_parallel else ("parallel_tool_calls",)
    if toolbox.choice == "none":
        return ToolFields({}, ignored)
    tools: list[JsonObject] = []
    for function in toolbox.functions:
        strict = {"strict": True} if function.is_strict else {}
        tools.append({"toolSpec": function.describe(inputSchema={"json": function.parameters}, **strict)})
        tools += _mark(function.cache_control)
    config: JsonObject = {"tools": tools}
    if toolbox.choice == "required":
        config["toolChoice"] = {"any": {}}
    elif toolbox.choice == "function":
        config["toolChoice"] = {"tool": {"name": toolbox.name}}
    return ToolFields({"toolConfig": config}, ignored)
