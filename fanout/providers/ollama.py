"""Ollama's own format: `/api/chat`, and `/api/generate` for text. Its OpenAI path takes less (`top_k`, `num_ctx`, images).

Quirks (evidence: Ollama's `docs/api.md` and `server/routes.go`, ollama-python 0.6.3):
- Streams unless `stream` is false, and as lines of JSON; the last one has `done: true`, the reason and the counts.
- Parameters stand in `options`; unknown ones are silently left out, so only known ones are sent.
- Text is sent `raw`, past the model's chat template; but `suffix` works by that template, so then it is not.
- Images are base64 beside the text: an address is fetched first. What stands between texts and images is lost.
- Tool calls have no ids, and their arguments are objects; a tool's answer names the tool, not the call.
- An error is a bare sentence: `{"error": "model 'x' not found"}`; in a stream it is a line, the status being 200 by then.
- `prompt_eval_count` is missing where the prompt was cached: unknown, not 0.
- `done_reason` is `load` where there was nothing to answer: an empty prompt only loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.messages import ImagePart, Message, OtherPart
from fanout.core.schema import Answer, Call, Choice, Completion, FinishReason, FittedParameters, Query, Target, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.mapping.answer_reader import MAX_ENVELOPE_BYTES, AnswerReader
from fanout.providers.mapping.completions import build_completion, build_usage, make_tool_call, read_finish
from fanout.providers.mapping.data_urls import decode_data_url
from fanout.providers.mapping.error_objects import is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects, as_text
from fanout.providers.mapping.messages import get_prompt, part_error, report_left_out
from fanout.providers.mapping.openai_answers import parse_logprobs
from fanout.providers.mapping.other_content import make_image
from fanout.providers.mapping.tools import RESPONSE_FORMAT, TOOL_FIELDS, Toolbox, ToolFields, convert_tools, parse_tool_calls
from fanout.providers.parameter_tables import OLLAMA_CHAT, OLLAMA_TEXT
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.json_provider import InliningProvider
from fanout.providers.transport.ndjson import NdjsonDecoder
from fanout.providers.transport.request import HttpRequest, write_body

# Source: https://github.com/ollama/ollama/blob/main/docs/api.md for every wire field.
TOP_LEVEL = frozenset({"tools", "format", "think", "keep_alive", "logprobs", "top_logprobs", "suffix"})
"""Fields of the request itself; every other parameter belongs to `options`."""
PASSTHROUGH = TOOL_FIELDS | {RESPONSE_FORMAT, "format", "think", "keep_alive", "options"}

IMAGES = frozenset({"image", "images"})
FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


class LineReader(AnswerReader):
    """A streamed answer: lines of JSON, each with what is new in it."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._decoder = NdjsonDecoder(max_bytes + MAX_ENVELOPE_BYTES)
        self._calls = 0
        self._last: JsonObject = {}

    @staticmethod
    def is_stream(head: bytes) -> bool | None:
        """Return whether these are lines of JSON; a whole answer may be one of them, or an object on many lines."""
        first, is_whole, _ = head.lstrip().partition(b"\n")
        return first.strip() not in (b"{", b"[") if is_whole or len(first) > 1 else None

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if is_error(body):
            raise LineReader.parse_error(origin, body)
        if not isinstance(body.get("message"), dict) and "response" not in body:
            raise origin.no_answer_error("a message", body)
        answer = _parse_answer(body)
        finish = read_finish(body.get("done_reason"), FINISH, has_calls=bool(answer.tool_calls))
        return build_completion(origin, body, (Choice(answer, *finish, _parse_logprobs(body)),), _parse_usage(body))

    def _read_event(self, event: JsonObject, size: int) -> None:
        if is_error(event):
            raise self.parse_error(self._origin, event)
        if (text := _find_plain_text(event)) is not None:
            self._add_text(text)
        else:
            answer = _parse_answer(event, self._calls)
            calls = [{**call, "index": place} for place, call in enumerate(answer.tool_calls, self._calls)]
            self._calls += len(calls)
            reasoning, logprobs = answer.reasoning or "", _parse_logprobs(event)
            self._add(size, text=answer.text, reasoning=reasoning, calls=calls, logprobs=logprobs, extra=answer.extra)
        if event.get("done") is True:
            self._last, self.is_ended = event, True
            self._finish(read_finish(event.get("done_reason"), FINISH, has_calls=self._calls > 0))

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._last, choices, _parse_usage(self._last))


class Ollama(InliningProvider):
    """One Ollama server; see `InliningProvider`."""

    reader_class = LineReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._chat_url, self._text_url = self.build_url("/api/chat"), self.build_url("/api/generate")
        row = settings.row.parameters
        self._chat, self._text = accept(OLLAMA_CHAT, row, PASSTHROUGH), accept(OLLAMA_TEXT, row, PASSTHROUGH - TOOL_FIELDS)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        if query.messages is None:
            return _convert_response_format(fit(query, self._text))
        fitted = _convert_response_format(convert_tools(fit(query, self._chat), _convert_toolbox))
        return report_left_out(fitted, query.messages)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """Encode a call whose images are data: URLs by now."""
        query = call.query
        url = self.require_url(self._text_url if query.messages is None else self._chat_url)
        fields: JsonObject = {"model": call.target.model, "stream": stream}
        options = dict(as_object(call.fitted.sent.get("options")))
        for name, value in call.fitted.sent.items():
            if name != "options":
                # Unknown fields are silently ignored, so each must stand in its place.
                (fields if name in TOP_LEVEL else options)[name] = value
        if options:
            fields["options"] = options
        if query.messages is not None:
            fields["messages"] = _convert_messages(self._origin, query.messages)
        else:
            fields["prompt"] = get_prompt(self._origin, query)
            if "suffix" not in fields:  # `suffix` works by the chat template, which `raw` skips
                fields["raw"] = True
        return HttpRequest(url, self.build_headers(call), write_body(fields, call))


def _convert_toolbox(toolbox: Toolbox) -> ToolFields:
    """Convert tools. Ollama takes OpenAI's, but no field that chooses one; where none may be called, none is sent."""
    lost = {"tool_choice": toolbox.choice in ("required", "function"), "parallel_tool_calls": not toolbox.is_parallel}
    ignored = tuple(name for name, is_lost in lost.items() if is_lost)
    if toolbox.choice == "none":
        return ToolFields({}, ignored)
    functions = [function.describe(parameters=function.parameters) for function in toolbox.functions]
    return ToolFields({"tools": [{"type": "function", "function": function} for function in functions]}, ignored)


def _convert_response_format(fitted: FittedParameters) -> FittedParameters:
    """Return `fitted` with `response_format` as Ollama's `format`: the word `json`, or a schema."""
    if RESPONSE_FORMAT not in fitted.sent:
        return fitted
    sent = dict(fitted.sent)
    response_format = as_object(sent.pop(RESPONSE_FORMAT))
    schema = as_object(as_object(response_format.get("json_schema")).get("schema"))
    if response_format.get("type") == "json_object":
        sent.setdefault("format", "json")
    elif schema:
        sent.setdefault("format", schema)
    elif response_format.get("type") != "text":
        return replace(fitted, sent=sent, ignored=(*fitted.ignored, RESPONSE_FORMAT))
    return replace(fitted, sent=sent)


def _convert_messages(origin: Origin, messages: Sequence[Message]) -> list[JsonObject]:
    converted: list[JsonObject] = []
    names: dict[str, str] = {}
    for message in messages:
        # Ollama has no role `developer`
        fields: JsonObject = {"role": "system" if message.role == "developer" else message.role}
        fields |= _convert_content(origin, message)
        if calls := parse_tool_calls(origin, message):
            names |= {call.id: call.name for call in calls}
            fields["tool_calls"] = [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls]
        if message.role == "tool" and (name := names.get(as_text(message.extra.get("tool_call_id")))):
            fields["tool_name"] = name  # Ollama names the tool, not the call
        converted.append(fields)
    return converted


def _convert_content(origin: Origin, message: Message) -> JsonObject:
    if not isinstance(message.content, tuple):
        return {"content": message.content or ""}
    text, images = "", []
    for part in message.content:
        if isinstance(part, OtherPart):
            raise part_error(origin, part)
        if isinstance(part, ImagePart):
            if message.role != "user":
                raise origin.request_error("takes images only in the user's messages")
            images.append(decode_data_url(part.url).base64)
        else:
            text += part.text
    return {"content": text, "images": images} if images else {"content": text}


def _find_plain_text(line: JsonObject) -> str | None:
    """Return the text of a line that adds nothing else: nearly every line."""
    message = line.get("message")
    fields = message if isinstance(message, dict) else line
    text = fields.get("content" if fields is message else "response")
    has_more = fields.get("thinking") or fields.get("tool_calls") or line.get("logprobs") or not IMAGES.isdisjoint(fields)
    return text if isinstance(text, str) and text and not has_more else None


def _parse_answer(body: JsonObject, calls_before: int = 0) -> Answer:
    """Return the message of a chat, or the text of `/api/generate`.

    Args:
        body: an answer, or a line of one.
        calls_before: number of the answer's tool calls in the lines before: a call has no id, but the caller's answer to it
            needs one.
    """
    message = body.get("message")
    fields = as_object(message)
    text = fields.get("content") if isinstance(message, dict) else body.get("response")
    thoughts = as_text((fields if isinstance(message, dict) else body).get("thinking"))
    calls = enumerate(as_objects(fields.get("tool_calls")), calls_before)
    tool_calls = tuple(_parse_call(call, place) for place, call in calls)
    images = _pick_images(fields if isinstance(message, dict) else body)
    return Answer(as_text(text), thoughts or None, None, tool_calls, images)


def _pick_images(fields: JsonObject) -> JsonObject:
    """Return the images that a model made: base64 without a type."""
    images = fields.get("images")
    found = [fields.get("image"), *(images if isinstance(images, list) else ())]
    made = [make_image("image/png", image) for image in found if isinstance(image, str) and image]
    return {"images": made} if made else {}


def _parse_call(call: JsonObject, place: int) -> JsonObject:
    function = as_object(call.get("function"))
    return make_tool_call(function.get("name"), function.get("arguments"), as_text(call.get("id")) or f"call_{place}")


def _parse_logprobs(body: JsonObject) -> tuple[TokenLogprob, ...] | None:
    return parse_logprobs({"content": logprobs}) or None if (logprobs := body.get("logprobs")) else None


def _parse_usage(body: JsonObject) -> Usage | None:
    # A count that is missing is unknown, not 0: a cached prompt has none.
    raw = {name: value for name, value in body.items() if name.endswith(("_count", "_duration"))}
    return build_usage(as_count(body.get("prompt_eval_count")), as_count(body.get("eval_count")), raw=raw)
