"""Cohere's chat format, version 2.

Quirks (evidence: recorded traffic, cohere 7.3.1, docs.cohere.com):
- `top_p` is `p` and lies within 0.01 and 0.99, `top_k` is `k`; of the two penalties only one may be sent.
- Log probabilities come without alternatives, and an item may be several tokens.
- It counts tokens twice: what the model saw (`tokens`) and what is billed (`billed_units`), which is often far less.
- Errors are flat, `{"id", "message"}`; a stream says them in `message-end`, as `delta.error`.
- 498 means a token that is not valid; a 429 may be the month's end of a trial key.
- A stream ends with `message-end`; some clients also expect `[DONE]`.

Source: https://docs.cohere.com/reference/chat and cohere-openapi.yaml for every wire field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp
from aiohttp import hdrs

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import dump
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    Delta,
    Failure,
    FailureKind,
    FinishReason,
    Fitted,
    ImagePart,
    Message,
    OtherPart,
    Query,
    Target,
    TextPart,
    TokenLogprob,
)
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, refusal
from fanout.providers.mapping.messages import SYSTEM_ROLES, list_messages, refuse_part, report_left_out, to_text
from fanout.providers.mapping.openai_answers import build_completion
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import (
    FIELDS,
    FORMAT,
    Toolbox,
    WrittenFields,
    convert_response_format,
    convert_tools,
    make_tool_call,
    parse_tool_calls,
    require_call_id,
)
from fanout.providers.parameter_tables import COHERE
from fanout.providers.parameters import accept, either, fit
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import NativeProvider, as_count, as_object, as_objects, as_text

FINISH: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
BROKEN_OFF: Mapping[str, FailureKind] = {"ERROR": "server", "TIMEOUT": "timeout"}
"""Finish reasons of answers that failed."""
STATUSES: Mapping[int, FailureKind] = {498: "auth", 499: "server"}
"""Where its statuses mean something of their own: an invalid token; a request that was cancelled."""
SPENT = re.compile(r"\bmonth|\A(?!.*\bminute).*\btrial key", re.IGNORECASE | re.DOTALL)
"""Words of a 429 that no waiting helps; there is no code. A trial key's limit for each minute passes."""


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Cohere:
    """The provider of one row; see `providers.create`."""
    return Cohere(settings, session)


class Cohere(NativeProvider):
    """A host that speaks Cohere's format at `/v2/chat` below its base address."""

    key_header = hdrs.AUTHORIZATION
    key_prefix = "Bearer "

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._url = self.build_url(f"{self.build_prefix('v2')}/chat")
        self._accepted = accept(COHERE, settings.row.parameters, FIELDS | {FORMAT})

    def fit(self, target: Target, query: Query) -> Fitted:
        fitted = either(fit(query, self._accepted), query, self._accepted, "frequency_penalty", "presence_penalty")
        return report_left_out(
            convert_tools(convert_response_format(fitted, _written_format), _written_tools), query.messages, details=True
        )

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        if self._url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        messages = [_message(self._origin, message) for message in list_messages(self._origin, call.query)]
        fields: dict[str, Any] = {**call.fitted.sent, "model": call.target.model, "messages": messages, "stream": stream}
        return HttpRequest(self._url, self.build_headers(call), dump(fields))

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        message = body.get("message")
        if body.get("error") or isinstance(message, str):
            raise self.parse_refusal(origin, None, headers, body)
        if not isinstance(message, dict):
            raise origin.malformed("sent an answer without a message", "no_choices")
        word = _checked(origin, headers, body)
        choice = Choice(_answer(message), FINISH.get(word), word[:100] or None, _logprobs(body.get("logprobs")))
        return build_completion(origin, headers, body, (choice,), _usage(body.get("usage")))

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        error = find_error(body)
        kind = STATUSES.get(status or 0)
        if status == 429 and SPENT.search(as_text(error.get("message"))[:2000]):
            kind = "quota"
        return refusal(origin, status, headers, error, kind=kind, request=body.get("id"))

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return CohereEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def _written_format(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Source: https://docs.cohere.com/docs/structured-outputs"""
    return {FORMAT: {"type": "json_object", **({"json_schema": schema} if schema else {})}}


def _written_tools(box: Toolbox) -> WrittenFields:
    functions = [function._asdict() for function in box.functions]
    tools = [
        {
            "type": "function",
            "function": {name: value for name, value in item.items() if name != "strict" and value is not None},
        }
        for item in functions
    ]
    fields: dict[str, Any] = {"tools": tools}
    if box.choice in ("none", "required"):
        fields["tool_choice"] = box.choice.upper()
    lost = {"tool_choice": box.name is not None, "parallel_tool_calls": not box.parallel}
    return fields, tuple(name for name, is_lost in lost.items() if is_lost)


def _message(origin: Origin, message: Message) -> dict[str, Any]:
    if message.role in SYSTEM_ROLES:
        return {"role": "system", "content": to_text(origin, message.content)}
    if message.role == "tool":
        call_id, said = require_call_id(origin, message), to_text(origin, message.content)
        return {"role": "tool", "tool_call_id": call_id, "content": said}
    content: Any = message.content
    if isinstance(content, tuple):
        content = [_part(origin, part) for part in content]
    if calls := parse_tool_calls(origin, message):
        again = [make_tool_call(call.name, call.arguments, call.id) for call in calls]
        return {"role": message.role, "tool_calls": again, **({"content": content} if content else {})}
    return {"role": message.role, "content": content if content is not None else ""}


def _part(origin: Origin, part: TextPart | ImagePart | OtherPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, OtherPart):
        refuse_part(origin, part)
    return {"type": "image_url", "image_url": {"url": part.url, **({"detail": part.detail} if part.detail else {})}}


def _checked(origin: Origin, headers: Mapping[str, str], ended: Mapping[str, Any]) -> str:
    """The finish reason.

    Raises:
        ProviderError: it says that the answer failed, or an error stands beside it.
    """
    word, error = as_text(ended.get("finish_reason")), as_text(ended.get("error"))
    if error or word in BROKEN_OFF:
        said = {"message": error or f"`{origin.name}` broke off its answer: `{word}`", "code": word}
        raise refusal(origin, None, headers, said, kind=BROKEN_OFF.get(word, "server"))
    return word


def _answer(message: Mapping[str, Any]) -> Answer:
    content = message.get("content")
    blocks = as_objects(content)
    said = content if isinstance(content, str) else "".join(as_text(block.get("text")) for block in blocks)
    thought = as_text(message.get("tool_plan")) + "".join(as_text(block.get("thinking")) for block in blocks)
    return Answer(said, thought or None, None, tuple(map(_tool_call, as_objects(message.get("tool_calls")))))


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = as_object(call.get("function"))
    return make_tool_call(function.get("name"), function.get("arguments"), call.get("id"))


def _logprobs(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """An item is a piece of text with the log probabilities of its tokens: together, their sum."""
    tokens: list[TokenLogprob] = []
    for item in as_objects(raw):
        numbers = item.get("logprobs")
        known = [value for value in numbers if isinstance(value, int | float)] if isinstance(numbers, list) else []
        total = math.fsum(known) if known else None
        tokens.append(TokenLogprob(as_text(item.get("text")), total if total is not None and math.isfinite(total) else None))
    return tuple(tokens) or None


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    seen = as_object(raw.get("tokens"))
    units = as_object(raw.get("billed_units"))
    billed = {name: value for name, value in units.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    given, answered = as_count(seen.get("input_tokens")), as_count(seen.get("output_tokens"))
    if given is None and answered is None and not billed:
        return None
    return Usage(given, answered, as_count(raw.get("cached_tokens")), billed=billed or None, raw=raw)


class CohereEvents(StreamReader):
    """A streamed answer: pieces of content, of a plan and of tool calls."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._head: Mapping[str, Any] = {}
        self._usage: Any = None
        self._calls = 0

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        kind, delta = chunk.get("type"), as_object(chunk.get("delta"))
        message = as_object(delta.get("message"))
        if kind in ("content-delta", "content-start"):
            said = as_object(message.get("content"))
            piece, logprobs = said.get("text"), chunk.get("logprobs")
            if type(piece) is str and piece and not logprobs:
                deltas.append(self._said(0, piece))
            else:
                found = _logprobs([logprobs]) if logprobs else None
                self._append(
                    deltas, self._added(0, size, text=as_text(piece), reasoning=as_text(said.get("thinking")), logprobs=found)
                )
        elif kind == "message-end":
            self._usage = delta.get("usage")
            self._ended(_checked(self._origin, self._headers, delta))
        elif kind == "message-start":
            self._head = chunk
            self._growing()
        elif kind in ("tool-plan-delta", "tool-call-start", "tool-call-delta"):
            self._append(deltas, self._tool(kind, message, size))
        elif chunk.get("error") or isinstance(chunk.get("message"), str):
            self._called_error(chunk)

    def _called_error(self, chunk: dict[str, Any]) -> NoReturn:
        raise refusal(self._origin, None, self._headers, find_error(chunk), request=chunk.get("id"))

    def _append(self, deltas: list[Delta], delta: Delta | None) -> None:
        if delta:
            deltas.append(delta)

    def _tool(self, kind: str, message: Mapping[str, Any], size: int) -> Delta | None:
        if kind == "tool-plan-delta":
            return self._added(0, size, reasoning=as_text(message.get("tool_plan")))
        call = as_object(message.get("tool_calls"))
        if kind == "tool-call-start":
            self._calls += 1
            return self._added(0, size, calls=[{"index": self._calls - 1, **_begun(call)}])
        arguments = as_text(as_object(call.get("function")).get("arguments"))
        if not self._calls or not arguments:
            return None
        return self._added(0, size, calls=[{"index": self._calls - 1, "function": {"arguments": arguments}}])

    def _ended(self, word: str) -> None:
        self.ended = True
        self._growing()
        if word:
            self._finished(0, FINISH.get(word), word)

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, self._head, choices, _usage(self._usage))


def _begun(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose arguments are still to come."""
    function = as_object(call.get("function"))
    return make_tool_call(function.get("name"), as_text(function.get("arguments")), call.get("id"))
