"""Cohere's chat format, version 2.

Quirks (evidence: recorded traffic, cohere 7.3.1, docs.cohere.com):
- `top_p` is `p` and lies within 0.01 and 0.99, `top_k` is `k`; of the two penalties only one may be sent.
- Log probabilities come without alternatives, and an item may be several tokens.
- It counts tokens twice: what the model saw (`tokens`) and what is billed (`billed_units`), which is often far less.
- Errors are flat, `{"id", "message"}`; a stream has them in `message-end`, as `delta.error`.
- 498 means a token that is not valid; a 429 may be the month's end of a trial key.
- A stream ends with `message-end`; some clients also expect `[DONE]`.

Source: https://docs.cohere.com/reference/chat and cohere-openapi.yaml for every wire field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    FailureKind,
    FinishReason,
    FittedParameters,
    Query,
    Target,
    TokenLogprob,
)
from fanout.core.usage import Usage
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import (
    Finish,
    begin_tool_call,
    build_completion,
    build_usage,
    make_tool_call,
    read_finish,
)
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_number, as_object, as_objects, as_text
from fanout.providers.mapping.messages import SYSTEM_ROLES, list_messages, part_error, report_left_out, to_text
from fanout.providers.mapping.other_content import pick_extras
from fanout.providers.mapping.tool_calls import to_arguments
from fanout.providers.mapping.tools import (
    RESPONSE_FORMAT,
    TOOL_FIELDS,
    Toolbox,
    ToolFields,
    convert_response_format,
    convert_tools,
    parse_tool_calls,
    parse_tool_result,
)
from fanout.providers.parameter_tables import COHERE
from fanout.providers.parameters import accept, drop_conflicting, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

FINISH: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
BROKEN_OFF: Mapping[str, FailureKind] = {"ERROR": "server", "TIMEOUT": "timeout"}
"""Finish reasons of answers that failed."""
STATUSES: Mapping[int, FailureKind] = {498: "auth"}
"""Where its statuses mean something of their own: an invalid token."""
SPENT = re.compile(r"\bmonth|\A(?!.*\bminute).*\btrial key", re.IGNORECASE | re.DOTALL)
"""Matches the message of a 429 that no waiting helps; there is no code. A trial key's limit for each minute passes."""


class CohereReader(AnswerReader):
    """A streamed answer: pieces of content, of a plan and of tool calls."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._head: JsonObject = {}
        self._usage: object = None
        self._calls = 0

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        message = body.get("message")
        # An error is flat: its `message` is a sentence.
        if body.get("error") or isinstance(message, str):
            raise CohereReader.parse_error(origin, body)
        if not isinstance(message, dict):
            raise origin.no_answer_error("a message", body)
        finish = _read_finish(origin, body)
        choice = Choice(_parse_message(message), *finish, _parse_logprobs(body.get("logprobs")))
        return build_completion(origin, body, (choice,), _parse_usage(body.get("usage")))

    @staticmethod
    def parse_error(origin: Origin, body: JsonObject) -> ProviderError:
        error = find_error(body)
        kind = STATUSES.get(origin.status or 0)
        if origin.status == 429 and SPENT.search(as_text(error.get("message"))[:2000]):
            kind = "quota"
        return origin.upstream_error(error, kind=kind, request_id=body.get("id"))

    def _read_event(self, event: JsonObject, size: int) -> None:
        kind, delta = event.get("type"), as_object(event.get("delta"))
        message = as_object(delta.get("message"))
        if kind in ("content-delta", "content-start"):
            self._read_content(as_object(message.get("content")), event.get("logprobs"), size)
        elif kind == "message-end":
            self._usage = delta.get("usage")
            # An answer may end without a reason; it is whole all the same.
            finish = _read_finish(self._origin, delta)
            self._choice()
            if finish != (None, None):
                self._finish(finish)
            self.is_ended = True
        elif kind == "message-start":
            self._head = event
            self._choice()
        elif kind == "citation-start":
            self._add(size, extra=_pick_citations(message))
        elif kind == "tool-plan-delta":
            self._add(size, reasoning=as_text(message.get("tool_plan")))
        elif kind in ("tool-call-start", "tool-call-delta"):
            self._read_call(as_object(message.get("tool_calls")), size, is_start=kind == "tool-call-start")
        elif event.get("error") or isinstance(event.get("message"), str):
            raise self.parse_error(self._origin, event)

    def _read_content(self, content: JsonObject, logprobs: object, size: int) -> None:
        text = as_text(content.get("text"))
        if text and not logprobs:
            self._add_text(text)
        else:
            tokens = _parse_logprobs([logprobs]) if logprobs else None
            extra = pick_extras({"content": [content]})
            self._add(size, text=text, reasoning=as_text(content.get("thinking")), logprobs=tokens, extra=extra)

    def _read_call(self, call: JsonObject, size: int, *, is_start: bool) -> None:
        function = as_object(call.get("function"))
        arguments = to_arguments(function.get("arguments"))
        if is_start:
            self._calls += 1
            piece = begin_tool_call(function.get("name"), arguments, call.get("id"))
        elif self._calls and arguments:
            piece = {"function": {"arguments": arguments}}
        else:
            return
        self._add(size, calls=[{"index": self._calls - 1, **piece}])

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._head, choices, _parse_usage(self._usage))


class Cohere(JsonProvider):
    """A host that speaks Cohere's format at `/v2/chat` below its base address."""

    reader_class = CohereReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._url = self.build_url(f"{self.build_prefix('v2')}/chat")
        self._accepted = accept(COHERE, settings.row.parameters, TOOL_FIELDS | {RESPONSE_FORMAT})

    def fit(self, target: Target, query: Query) -> FittedParameters:
        fitted = drop_conflicting(fit(query, self._accepted), query, self._accepted, "frequency_penalty", "presence_penalty")
        fitted = convert_tools(convert_response_format(fitted, _convert_schema), _convert_toolbox)
        return report_left_out(fitted, query.messages, has_details=True)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        url = self.require_url(self._url)
        messages = [_convert_message(self._origin, message) for message in list_messages(self._origin, call.query)]
        fields: JsonObject = {**call.fitted.sent, "model": call.target.model, "messages": messages, "stream": stream}
        return HttpRequest(url, self.build_headers(call), write_body(fields, call))


def _convert_schema(schema: JsonObject | None) -> JsonObject:
    """Source: https://docs.cohere.com/docs/structured-outputs."""
    return {RESPONSE_FORMAT: {"type": "json_object", **({"json_schema": schema} if schema else {})}}


def _convert_toolbox(toolbox: Toolbox) -> ToolFields:
    functions = [function.describe(parameters=function.parameters) for function in toolbox.functions]
    fields: JsonObject = {"tools": [{"type": "function", "function": function} for function in functions]}
    if toolbox.choice in ("none", "required"):
        # No field names one function: then all are open, and that is reported.
        fields["tool_choice"] = toolbox.choice.upper()
    lost = {"tool_choice": toolbox.name is not None, "parallel_tool_calls": not toolbox.is_parallel}
    return ToolFields(fields, tuple(name for name, is_lost in lost.items() if is_lost))


def _convert_message(origin: Origin, message: Message) -> JsonObject:
    if message.role in SYSTEM_ROLES:
        return {"role": "system", "content": to_text(origin, message.content)}
    if message.role == "tool":
        call_id, text = parse_tool_result(origin, message)
        return {"role": "tool", "tool_call_id": call_id, "content": text}
    content = message.content
    converted = [_convert_part(origin, part) for part in content] if isinstance(content, tuple) else content
    if calls := parse_tool_calls(origin, message):
        tool_calls = [make_tool_call(call.name, call.arguments, call.id) for call in calls]
        return {"role": message.role, "tool_calls": tool_calls, **({"content": converted} if converted else {})}
    return {"role": message.role, "content": converted if converted is not None else ""}


def _convert_part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> JsonObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, OtherPart):
        raise part_error(origin, part)
    return {"type": "image_url", "image_url": {"url": part.url, **({"detail": part.detail} if part.detail else {})}}


def _read_finish(origin: Origin, end: JsonObject) -> Finish:
    """Return the end of an answer.

    Raises:
        ProviderError: the answer failed, by its finish reason or by an error beside it.
    """
    word, message = as_text(end.get("finish_reason")), as_text(end.get("error"))
    if message or word in BROKEN_OFF:
        raise origin.finish_error(word, message, BROKEN_OFF.get(word, "server"))
    return read_finish(word, FINISH)


def _parse_message(message: JsonObject) -> Answer:
    content = message.get("content")
    blocks = as_objects(content)
    text = content if isinstance(content, str) else "".join(as_text(block.get("text")) for block in blocks)
    # The plan before tool calls is reasoning under another name.
    thoughts = as_text(message.get("tool_plan")) + "".join(as_text(block.get("thinking")) for block in blocks)
    calls = tuple(map(_parse_call, as_objects(message.get("tool_calls"))))
    return Answer(text, thoughts or None, None, calls, {**pick_extras({"content": content}), **_pick_citations(message)})


def _pick_citations(message: JsonObject) -> JsonObject:
    """Return the citations of a message: a list; in a stream one citation."""
    raw = message.get("citations")
    citations = [raw] if isinstance(raw, dict) and raw else as_objects(raw)
    return {"citations": citations} if citations else {}


def _parse_call(call: JsonObject) -> JsonObject:
    function = as_object(call.get("function"))
    return make_tool_call(function.get("name"), function.get("arguments"), call.get("id"))


def _parse_logprobs(raw: object) -> tuple[TokenLogprob, ...] | None:
    """Return the tokens: an item is a piece of text with the log probabilities of its tokens; together, their sum."""
    tokens: list[TokenLogprob] = []
    for item in as_objects(raw):
        numbers = item.get("logprobs")
        known = [number for value in numbers if (number := as_number(value)) is not None] if isinstance(numbers, list) else []
        total = as_number(math.fsum(known)) if known else None
        tokens.append(TokenLogprob(as_text(item.get("text")), total))
    return tuple(tokens) or None


def _parse_usage(raw: object) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    # What is billed is often far less than what the model saw.
    tokens, units = as_object(raw.get("tokens")), as_object(raw.get("billed_units"))
    billed = {name: number for name, value in units.items() if (number := as_number(value)) is not None and number >= 0}
    input_tokens, output_tokens = as_count(tokens.get("input_tokens")), as_count(tokens.get("output_tokens"))
    return build_usage(input_tokens, output_tokens, as_count(raw.get("cached_tokens")), billed=billed, raw=raw)
