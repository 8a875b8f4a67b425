"""Ollama's own format: `/api/chat`, and `/api/generate` for text. Its OpenAI path takes less (`top_k`, `num_ctx`, images).

Quirks (evidence: Ollama's `docs/api.md` and `server/routes.go`, ollama-python 0.6.3):
- Streams unless told not to, and as lines of JSON; the last one has `done: true`, the reason and the counts.
- Parameters stand in `options`; unknown ones are silently left out, so only known ones are sent.
- Text is sent `raw`, past the model's chat template; but `suffix` works by that template, so then it is not.
- Images are base64 beside the text: an address is fetched first. What stands between texts and images is lost.
- Tool calls have no ids, and their arguments are objects; a tool's answer names the tool, not the call.
- An error is a bare sentence: `{"error": "model 'x' not found"}`; in a stream it is a line, the status being 200 by then.
- `prompt_eval_count` is missing where the prompt was cached: unknown, not 0.
- `done_reason` is `load` where there was nothing to answer: an empty prompt only loads the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    FinishReason,
    Fitted,
    ImagePart,
    Message,
    OtherPart,
    Query,
    Target,
)
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, is_error, refusal
from fanout.providers.mapping.images import Network, decode_data_url
from fanout.providers.mapping.messages import list_messages, refuse, refuse_part, report_left_out
from fanout.providers.mapping.openai_answers import build_completion, parse_logprobs
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import FIELDS, Toolbox, WrittenFields, convert_tools, make_tool_call, parse_tool_calls
from fanout.providers.parameter_tables import OLLAMA_CHAT, OLLAMA_TEXT
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.http import AnswerReader, HttpRequest
from fanout.providers.transport.native import InliningProvider, as_count, as_object, as_objects, as_text
from fanout.providers.transport.ndjson import NdjsonDecoder

# Source: https://github.com/ollama/ollama/blob/main/docs/api.md for every wire field.
TOP_LEVEL = frozenset({"tools", "format", "think", "keep_alive", "logprobs", "top_logprobs", "suffix"})
"""What stands beside `options`, not in them."""
PASSTHROUGH = FIELDS | {"format", "response_format", "think", "keep_alive", "options"}

FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


def create(settings: ProviderSettings, session: aiohttp.ClientSession) -> Ollama:
    """The provider of one row; see `providers.create`."""
    return Ollama(settings, session)


class Ollama(InliningProvider):
    """One Ollama server; see `InliningProvider`."""

    key_header = hdrs.AUTHORIZATION
    key_prefix = "Bearer "

    def __init__(
        self, settings: ProviderSettings, session: aiohttp.ClientSession, *, allowed: Collection[Network] = ()
    ) -> None:
        super().__init__(settings, session, allowed=allowed)
        self._chat_url, self._text_url = self.build_url("/api/chat"), self.build_url("/api/generate")
        row = settings.row.parameters
        self._chat, self._text = accept(OLLAMA_CHAT, row, PASSTHROUGH), accept(OLLAMA_TEXT, row, PASSTHROUGH - FIELDS)

    def fit(self, target: Target, query: Query) -> Fitted:
        if query.messages is None:
            return _with_format(fit(query, self._text))
        return report_left_out(_with_format(convert_tools(fit(query, self._chat), _written_tools)), query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """The request; images must be data: URLs by now."""
        query, origin = call.query, self._origin
        url = self._text_url if query.messages is None else self._chat_url
        if url is None:
            raise ProviderError(Failure("not_configured", f"`{self.name}` has no address", code="not_configured"))
        fields: dict[str, Any] = {"model": call.target.model, "stream": stream}
        options = dict(as_object(call.fitted.sent.get("options")))
        for name, value in call.fitted.sent.items():
            if name != "options":
                (fields if name in TOP_LEVEL else options)[name] = value
        if options:
            fields["options"] = options
        messages = list_messages(origin, query)
        if query.messages is None:
            fields |= {"prompt": query.prompt or ""} if "suffix" in fields else {"prompt": query.prompt or "", "raw": True}
        else:
            fields["messages"] = _messages(origin, messages)
        return HttpRequest(url, self.build_headers(call), dump(fields))

    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        _check(origin, headers, body)
        message, said, thought = _said(body)
        if message is None and "response" not in body:
            raise origin.malformed("sent an answer without a message", "no_choices")
        calls = tuple(_call(call, place) for place, call in enumerate(as_objects(as_object(message).get("tool_calls"))))
        finish, native = _finish(body, bool(calls))
        choice = Choice(Answer(said, thought or None, None, calls), finish, native, _logprobs(body))
        return build_completion(origin, headers, body, (choice,), _usage(body))

    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        return refusal(origin, status, headers, find_error(body) or body)

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> AnswerReader:
        return OllamaEvents(self.origin(call), call.index, headers, self.settings.max_answer_bytes)


def _written_tools(box: Toolbox) -> WrittenFields:
    """Ollama takes OpenAI's tools, but no word on which to choose; without them none is."""
    lost = (
        *(["tool_choice"] if box.choice in ("required", "function") else []),
        *([] if box.parallel else ["parallel_tool_calls"]),
    )
    if box.choice == "none":
        return {}, lost
    functions = [
        {"name": one.name, "parameters": one.parameters, **({"description": one.description} if one.description else {})}
        for one in box.functions
    ]
    return {"tools": [{"type": "function", "function": function} for function in functions]}, lost


def _with_format(fitted: Fitted) -> Fitted:
    """`fitted` with `response_format` as Ollama's `format`: the word `json`, or a schema."""
    if "response_format" not in fitted.sent:
        return fitted
    sent = dict(fitted.sent)
    wanted = as_object(sent.pop("response_format"))
    schema = as_object(as_object(wanted.get("json_schema")).get("schema"))
    if wanted.get("type") == "json_object":
        sent.setdefault("format", "json")
    elif schema:
        sent.setdefault("format", schema)
    elif wanted.get("type") != "text":
        return replace(fitted, sent=sent, ignored=(*fitted.ignored, "response_format"))
    return replace(fitted, sent=sent)


def _messages(origin: Origin, messages: Sequence[Message]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    tools: dict[str, str] = {}
    for message in messages:
        one = {"role": "system" if message.role == "developer" else message.role, **_content(origin, message)}
        if called := parse_tool_calls(origin, message):
            tools |= {call.id: call.name for call in called}
            one["tool_calls"] = [{"function": {"name": call.name, "arguments": call.arguments}} for call in called]
        if message.role == "tool" and (name := tools.get(as_text(message.extra.get("tool_call_id")))):
            one["tool_name"] = name
        made.append(one)
    return made


def _content(origin: Origin, message: Message) -> dict[str, Any]:
    if not isinstance(message.content, tuple):
        return {"content": message.content or ""}
    texts, images = "", []
    for part in message.content:
        if isinstance(part, OtherPart):
            refuse_part(origin, part)
        elif isinstance(part, ImagePart):
            if message.role != "user":
                refuse(origin, "takes images only in the user's messages")
            images.append(decode_data_url(part.url).base64)
        else:
            texts += part.text
    return {"content": texts, "images": images} if images else {"content": texts}


def _check(origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> None:
    """An error may come with status 200.

    Raises:
        ProviderError: it is one.
    """
    if is_error(body):
        raise refusal(origin, None, headers, find_error(body))


def _said(body: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str, str]:
    """The message, where it is a chat's; text; what was thought."""
    message = body.get("message")
    if isinstance(message, dict):
        return message, as_text(message.get("content")), as_text(message.get("thinking"))
    return None, as_text(body.get("response")), as_text(body.get("thinking"))


def _call(raw: dict[str, Any], place: int) -> dict[str, Any]:
    """A tool call as all our answers have it; it has no id, but the caller's answer to it needs one."""
    function = as_object(raw.get("function"))
    return make_tool_call(function.get("name"), function.get("arguments"), as_text(raw.get("id")) or f"call_{place}")


def _finish(body: Mapping[str, Any], called: bool) -> tuple[FinishReason | None, str | None]:
    """Ollama says `stop` behind tool calls, too."""
    word = as_text(body.get("done_reason"))[:100]
    finish = FINISH.get(word)
    if finish == "stop" and called:
        finish = "tool_calls"
    return finish, word if word and word != finish else None


def _logprobs(body: Mapping[str, Any]) -> Any:
    found = body.get("logprobs")
    return parse_logprobs({"content": found}) if isinstance(found, list) and found else None


def _usage(body: Mapping[str, Any]) -> Usage | None:
    given, answered = as_count(body.get("prompt_eval_count")), as_count(body.get("eval_count"))
    if given is None and answered is None:
        return None
    raw = {name: value for name, value in body.items() if name.endswith(("_count", "_duration"))}
    return Usage(given, answered, raw=raw)


class OllamaEvents(StreamReader):
    """A streamed answer: lines in, deltas out."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._decoder = NdjsonDecoder()
        self._calls = 0
        self._last: dict[str, Any] = {}

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        _check(self._origin, self._headers, chunk)
        message, said, thought = _said(chunk)
        if said and not thought and not as_object(message).get("tool_calls") and not chunk.get("logprobs"):
            deltas.append(self._said(0, said))
        else:
            calls = [{**_call(call, self._calls + place), "index": self._calls + place} for place, call in _numbered(message)]
            self._calls += len(calls)
            logprobs = _logprobs(chunk)
            delta = self._added(0, size, text=said, reasoning=thought, calls=calls, logprobs=logprobs)
            deltas += [delta] if delta else []
        if chunk.get("done") is True:
            self._last, self.ended = chunk, True
            finish, native = _finish(chunk, self._calls > 0)
            self._finished(0, finish, native or "")
            self._growing(0).native = native

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._headers, self._last, choices, _usage(self._last))


def _numbered(message: dict[str, Any] | None) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(as_objects(as_object(message).get("tool_calls"))))
