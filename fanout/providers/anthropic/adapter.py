"""Anthropic's Messages format, version 2023-06-01: the last one that takes sampling parameters.

Quirks (evidence: recorded traffic, anthropic 0.125.0 and 2.11.0, platform.claude.com):
- `max_tokens` is required; what we send where the caller named none is reported as adjusted.
- Version 2026-10-21 refuses `temperature`, `top_p` and `top_k` from every model, this one only from newer models; from
  Opus 4.1 on it takes `temperature` or `top_p`, not both. Unknown fields are a 400.
- System messages stand outside the conversation; a stop sequence of nothing but white space is refused.
- `input_tokens` counts neither what was read from the cache nor what was written to it.
- A stream ends with `message_stop`, not `[DONE]`; its objects are padded with spaces; errors come as `event: error`.
- The usage of `message_delta` is cumulative: it replaces that of `message_start`.
- A spent budget is a 429 like any other: only `error.details.error_code` tells. Overload is 529.
- The request's id is in the header `request-id`, and in the body of errors.

Source: https://platform.claude.com/docs/en/api/messages for every wire field.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Call, FittedParameters, Query, Target
from fanout.providers.anthropic.blocks import BlockReader
from fanout.providers.mapping.data_urls import split_data_url
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_objects, as_text
from fanout.providers.mapping.messages import (
    CACHE_CONTROL,
    find_last_mark,
    get_cache_mark,
    part_error,
    report_left_out,
    split_system,
)
from fanout.providers.mapping.other_content import THINKING_BLOCKS, THINKING_TYPES
from fanout.providers.mapping.tools import TOOL_FIELDS, Toolbox, ToolFields, convert_tools, parse_tool_calls, parse_tool_result
from fanout.providers.parameter_tables import ANTHROPIC_FAMILIES, find_anthropic_family
from fanout.providers.parameters import AcceptedParameters, accept, add_default, drop_conflicting, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 8192
"""Every model that is still served gives so many, and without a stream they come within the time of one attempt."""
OLD_MAX_TOKENS = 4096
"""The most that models before Claude 3.5 give."""
TAKEN = frozenset({CACHE_CONTROL, THINKING_BLOCKS})
"""Fields of messages beyond OpenAI's."""
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class Anthropic(JsonProvider):
    """A host that speaks Anthropic's format at `/v1/messages` below its base address."""

    key_header = "x-api-key"
    key_prefix = ""
    reader_class = BlockReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._headers.setdefault("anthropic-version", VERSION)  # a row may name another version
        self._url = self.build_url(f"{self.build_prefix('v1')}/messages")
        row = settings.row.parameters
        passed_on = TOOL_FIELDS | {CACHE_CONTROL}
        self._accepted = {family: accept(table, row, passed_on) for family, table in ANTHROPIC_FAMILIES.items()}

    def fit(self, target: Target, query: Query) -> FittedParameters:
        model = target.model or ""
        family = find_anthropic_family(model)
        accepted = self._accepted[family]
        fitted = _drop_blank_stops(fit(query, accepted), query, accepted)
        if family == "either":  # newer models refuse both together
            fitted = drop_conflicting(fitted, query, accepted, "temperature", "top_p")
        most = OLD_MAX_TOKENS if model.startswith(("claude-3-", "claude-2", "claude-instant")) else DEFAULT_MAX_TOKENS
        fitted = add_default(fitted, accepted, "max_tokens", most)
        fitted = convert_tools(fitted, _convert_toolbox, has_cache_control=True)
        return report_left_out(fitted, query.messages, takes=TAKEN)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        fields = {**self.build_body(call), "stream": stream}
        return HttpRequest(self.require_url(self._url), self.build_headers(call), write_body(fields, call))

    def build_body(self, call: Call) -> JsonObject:
        """Return the body of a request, but for the form of its answer."""
        origin = self._origin
        system, messages = split_system(origin, call.query)
        fields: JsonObject = {
            **call.fitted.sent,
            "model": call.target.model,
            "messages": _convert_messages(origin, messages),
        }
        if system:
            is_plain = len(system) == 1 and not get_cache_mark(system[0])
            fields["system"] = system[0].text if is_plain else [_convert_part(origin, part) for part in system]
        return fields


def _drop_blank_stops(fitted: FittedParameters, query: Query, accepted: AcceptedParameters) -> FittedParameters:
    """Return `fitted` without sequences of white space alone, which are refused; reports what was left out."""
    stops = query.sampling.stop
    rule = accepted.rules.get("stop")
    if not stops or rule is None or rule.name not in fitted.sent or all(map(str.strip, stops)):
        return fitted
    kept = tuple(filter(str.strip, stops))
    sent = {name: value for name, value in fitted.sent.items() if name != rule.name}
    if not kept:  # an empty list is refused as well
        return FittedParameters(sent, (*fitted.ignored, "stop"), fitted.adjusted)
    return FittedParameters({**sent, rule.name: kept}, fitted.ignored, {**fitted.adjusted, "stop": (stops, kept)})


def _convert_toolbox(toolbox: Toolbox) -> ToolFields:
    tools = [
        function.describe(
            input_schema=function.parameters,
            **({"strict": True} if function.is_strict else {}),
            **_mark(function.cache_control),
        )
        for function in toolbox.functions
    ]
    choice: JsonObject = {"type": {None: "auto", "required": "any", "function": "tool"}.get(toolbox.choice, toolbox.choice)}
    if toolbox.name is not None:
        choice["name"] = toolbox.name
    if not toolbox.is_parallel and toolbox.choice != "none":  # `none` does not have the field
        choice["disable_parallel_tool_use"] = True
    # `auto` is the default, and left out
    return ToolFields({"tools": tools} if choice == {"type": "auto"} else {"tools": tools, "tool_choice": choice})


def _convert_messages(origin: Origin, messages: Sequence[Message]) -> list[JsonObject]:
    converted: list[JsonObject] = []
    results: list[JsonObject] = []
    for message in messages:
        if message.role == "tool":
            if not results:
                converted.append({"role": "user", "content": results})  # all results of a turn stand in one message
            call_id, text = parse_tool_result(origin, message)
            mark = find_last_mark(message)
            results.append({"type": "tool_result", "tool_use_id": call_id, "content": text, **_mark(mark)})
            continue
        results = []
        converted.append({"role": message.role, "content": _convert_content(origin, message)})
    return converted


def _convert_content(origin: Origin, message: Message) -> str | list[JsonObject]:
    content = message.content
    converted = content if isinstance(content, str) else [_convert_part(origin, part) for part in content or ()]
    calls = parse_tool_calls(origin, message)
    thoughts = [
        block for block in as_objects(message.extra.get(THINKING_BLOCKS)) if as_text(block.get("type")) in THINKING_TYPES
    ]
    mark = get_cache_mark(message)
    if not (calls or thoughts or mark):
        return converted
    # An empty text block is refused, so an empty text beside calls is left out.
    texts = ([{"type": "text", "text": converted}] if converted else []) if isinstance(converted, str) else converted
    uses = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in calls]
    blocks = [*thoughts, *texts, *uses]
    if mark and blocks:
        blocks[-1] = {**blocks[-1], **_mark(mark)}
    return blocks


def _mark(cache_control: JsonObject) -> JsonObject:
    return {CACHE_CONTROL: cache_control} if cache_control else {}


def _convert_part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> JsonObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, **_mark(get_cache_mark(part))}
    if isinstance(part, OtherPart):
        raise part_error(origin, part)
    return {"type": "image", "source": _convert_image(origin, part), **_mark(get_cache_mark(part))}


def _convert_image(origin: Origin, part: ImagePart) -> JsonObject:
    image = split_data_url(part.url)
    if image is None:
        return {"type": "url", "url": part.url}
    media_type, data = image
    if media_type not in IMAGE_TYPES:
        raise origin.request_error(f"takes JPEG, PNG, GIF and WebP images, not `{media_type[:40]}`")
    return {"type": "base64", "media_type": media_type, "data": data}
