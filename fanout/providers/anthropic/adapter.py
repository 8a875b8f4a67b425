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

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump
from fanout.core.schema import Call, Completion, Failure, Fitted, ImagePart, Message, OtherPart, Query, Target, TextPart
from fanout.providers.anthropic.blocks import BlockEvents, answered, refused
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.messages import (
    SYSTEM_ROLES,
    list_messages,
    list_system_texts,
    parse_data_url,
    refuse,
    refuse_part,
    report_left_out,
    to_text,
)
from fanout.providers.mapping.tools import FIELDS, Toolbox, WrittenFields, convert_tools, parse_tool_calls, require_call_id
from fanout.providers.parameter_tables import ANTHROPIC_FAMILIES, find_anthropic_family
from fanout.providers.parameters import Accepted, accept, either, fit, required
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import NativeProvider

VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 8192
"""Every model that is still served gives so many, and without a stream they come within the time of one attempt."""
OLD_MAX_TOKENS = 4096
"""The most that models before Claude 3.5 give."""
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Anthropic:
    """The provider of one row; see `providers.create`."""
    return Anthropic(settings, session)


class Anthropic(NativeProvider):
    """A host that speaks Anthropic's format at `/v1/messages` below its base address."""

    key_header = "x-api-key"

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._headers.setdefault("anthropic-version", VERSION)
        self._url = self.build_url(f"{self.build_prefix('v1')}/messages")
        row = settings.row.parameters
        self._accepted = {family: accept(table, row, FIELDS) for family, table in ANTHROPIC_FAMILIES.items()}

    def fit(self, target: Target, query: Query) -> Fitted:
        model = target.model or ""
        family = find_anthropic_family(model)
        accepted = self._accepted[family]
        fitted = _without_blank_stops(fit(query, accepted), query, accepted)
        if family == "either":
            fitted = either(fitted, query, accepted, "temperature", "top_p")
        most = OLD_MAX_TOKENS if model.startswith(("claude-3-", "claude-2", "claude-instant")) else DEFAULT_MAX_TOKENS
        return report_left_out(convert_tools(required(fitted, accepted, "max_tokens", most), _written_tools), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        if self._url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        origin = self._origin
        messages = list_messages(origin, call.query)
        fields: dict[str, Any] = {**call.fitted.sent, "model": call.target.model, "messages": _messages(origin, messages)}
        if system := list_system_texts(origin, messages):
            fields["system"] = system[0] if len(system) == 1 else [{"type": "text", "text": said} for said in system]
        if stream:
            fields["stream"] = True
        return HttpRequest(self._url, self.build_headers(call), dump(fields))

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        return answered(origin, headers, body)

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        return refused(origin, status, headers, body)

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return BlockEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def _without_blank_stops(fitted: Fitted, query: Query, accepted: Accepted) -> Fitted:
    """Sequences of white space alone are refused, so they are left out and reported."""
    asked = query.sampling.stop
    rule = accepted.rules.get("stop")
    if not asked or rule is None or rule.name not in fitted.sent or all(map(str.strip, asked)):
        return fitted
    kept = tuple(filter(str.strip, asked))
    sent = {name: value for name, value in fitted.sent.items() if name != rule.name}
    if not kept:
        return Fitted(sent, (*fitted.ignored, "stop"), fitted.adjusted)
    return Fitted({**sent, rule.name: kept}, fitted.ignored, {**fitted.adjusted, "stop": (asked, kept)})


def _written_tools(box: Toolbox) -> WrittenFields:
    tools = [
        {
            "name": function.name,
            **({} if function.description is None else {"description": function.description}),
            "input_schema": function.parameters,
            **({"strict": True} if function.strict else {}),
        }
        for function in box.functions
    ]
    choice: dict[str, Any] = {"type": {None: "auto", "required": "any", "function": "tool"}.get(box.choice, box.choice)}
    if box.name is not None:
        choice["name"] = box.name
    if not box.parallel and box.choice != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools} if choice == {"type": "auto"} else {"tools": tools, "tool_choice": choice}, ()


def _messages(origin: Origin, messages: Sequence[Message]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for message in messages:
        if message.role in SYSTEM_ROLES:
            continue
        if message.role == "tool":
            if not results:
                written.append({"role": "user", "content": results})  # all results of a turn stand in one message
            said = to_text(origin, message.content)
            results.append({"type": "tool_result", "tool_use_id": require_call_id(origin, message), "content": said})
            continue
        results = []
        content: Any = message.content
        if not isinstance(content, str):
            content = [_block(origin, part) for part in content or ()]
        if calls := parse_tool_calls(origin, message):
            spoken = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
            uses = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in calls]
            content = [*spoken, *uses]
        written.append({"role": message.role, "content": content})
    return written


def _block(origin: Origin, part: TextPart | ImagePart | OtherPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, OtherPart):
        refuse_part(origin, part)
    data = parse_data_url(origin, part.url)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    if data[0] not in IMAGE_TYPES:
        refuse(origin, f"takes JPEG, PNG, GIF and WebP images, not `{data[0][:40]}`")
    return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}
