"""OpenAI's Responses format, at `/responses`: some models are served there alone.

Quirks (evidence: openai 3.51.0, llama.cpp's server):
- `max_output_tokens` is at least 16 at OpenAI; there are no stop sequences, samples, seeds or penalties.
- A failure is an answer of status 200 whose `status` is `failed`; in a stream an event of that name, or `error`.
- Tool calls grow by `output_index`; their id is `call_id`, and `id` that of the item.
- Requests ask not to be stored, unless their caller wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.schema import Call, Choice, Completion, FittedParameters, Query, Target, TokenLogprob
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import build_completion
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object, as_objects, as_text
from fanout.providers.mapping.messages import CACHE_CONTROL, report_left_out
from fanout.providers.mapping.openai_answers import parse_logprobs
from fanout.providers.openai.adapter import OWN_HOSTS
from fanout.providers.openai.response_items import (
    CALLS,
    convert_fields,
    convert_messages,
    drop_cache_mark,
    make_custom_call,
    parse_answer,
    parse_usage,
    pick_beside,
    read_end,
)
from fanout.providers.parameter_tables import OPENAI_RESPONSES_FAMILIES, find_openai_family
from fanout.providers.parameters import accept, fit
from fanout.providers.transport.json_provider import JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
REASONING = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})


class ResponseReader(AnswerReader):
    """A streamed answer: events of items, and at the end the whole answer again."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._body: JsonObject = {}
        self._calls: dict[object, int] = {}
        """Number of each call of a function, by the place of its item."""
        self._begun: set[object] = set()
        """Places of the items of which text, thoughts or arguments have come."""

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        _check(origin, body)
        answer = parse_answer(body)
        choice = Choice(answer, *read_end(body, has_calls=bool(answer.tool_calls)), _parse_logprobs(body))
        return build_completion(origin, body, (choice,), parse_usage(body.get("usage"), body.get("service_tier")))

    def _read_event(self, event: JsonObject, size: int) -> None:
        kind, place = as_text(event.get("type")), _find_place(event)
        delta = as_text(event.get("delta"))
        if delta:
            self._begun.add(place)
        if kind == "response.output_text.delta":
            if tokens := parse_logprobs({"content": event.get("logprobs") or None}):
                self._add(size, text=delta, logprobs=tokens)
            elif delta:
                self._add_text(delta)
        elif kind in REASONING:
            self._add(size, reasoning=delta)
        elif kind == "response.refusal.delta":
            self._add(size, refusal=delta)
        elif kind == "response.function_call_arguments.delta":
            self._add_call(place, {"function": {"arguments": delta}}, size)
        elif kind == "response.custom_tool_call_input.delta":
            self._add_call(place, {"custom": {"input": delta}}, size)
        elif kind == "response.output_item.added":
            self._begin_item(place, as_object(event.get("item")), size)
        elif kind == "response.output_item.done":
            self._end_item(place, as_object(event.get("item")), size)
        elif kind in ENDS:
            self._end(as_object(event.get("response")), size)
        elif kind == "error" or event.get("error"):
            raise self.parse_error(self._origin, event if event.get("error") else {"error": event})
        elif not self._body:
            self._body = as_object(event.get("response"))

    def _begin_item(self, place: object, item: JsonObject, size: int) -> None:
        self._choice()
        if item.get("type") == "function_call":
            self._calls[place] = len(self._calls)
            function = {"name": item.get("name"), "arguments": as_text(item.get("arguments"))}
            if function["arguments"]:
                self._begun.add(place)
            self._add_call(place, {"id": item.get("call_id"), "type": "function", "function": function}, size)
        elif item.get("type") == "custom_tool_call":
            self._calls[place] = len(self._calls)
            if item.get("input"):
                self._begun.add(place)
            self._add_call(place, make_custom_call(item), size)

    def _end_item(self, place: object, item: JsonObject, size: int) -> None:
        """Take what has not come in pieces, as some servers send none."""
        if item.get("type") in CALLS:
            if place not in self._calls:
                self._begin_item(place, item, size)
            elif place not in self._begun and item.get("type") == "function_call":
                self._add_call(place, {"function": {"arguments": as_text(item.get("arguments"))}}, size)
            elif place not in self._begun:
                self._add_call(place, {"custom": {"input": as_text(item.get("input"))}}, size)
        elif place in self._begun:
            self._add(size, extra=pick_beside(item))
        else:
            self._add_whole({"output": [item]}, size)
        self._begun.add(place)

    def _end(self, body: JsonObject, size: int) -> None:
        self._body = body or self._body
        _check(self._origin, self._body)
        if not self._begun:  # nothing came before the end
            self._add_whole(self._body, size)
        has_calls = bool(self._calls) or any(item.get("type") in CALLS for item in as_objects(self._body["output"]))
        self._finish(read_end(self._body, has_calls=has_calls))
        self.is_ended = True

    def _add_whole(self, body: JsonObject, size: int) -> None:
        """Add all that some items hold."""
        answer = parse_answer(body)
        self._add(
            size,
            text=answer.text,
            reasoning=answer.reasoning or "",
            refusal=answer.refusal or "",
            calls=[{"index": number, **call} for number, call in enumerate(answer.tool_calls)],
            logprobs=_parse_logprobs(body),
            extra=answer.extra,
        )

    def _add_call(self, place: object, piece: JsonObject, size: int) -> None:
        # Arguments without an item before them have no name: a call that no client could run.
        if place in self._calls:
            self._add(size, calls=[{"index": self._calls[place], **piece}])

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        usage = parse_usage(self._body.get("usage"), self._body.get("service_tier"))
        return build_completion(self._origin, self._body, choices, usage)


class Responses(JsonProvider):
    """A host that speaks OpenAI's Responses format at `/responses` below its base address."""

    reader_class = ResponseReader

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._url = self.build_url("/responses")
        row = settings.row.parameters
        self._families = {family: accept(table, row, passthrough=None) for family, table in OPENAI_RESPONSES_FAMILIES.items()}
        self._is_openai = f".{self._url.host if self._url else None}".endswith(OWN_HOSTS)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        effort = query.passthrough.get("reasoning_effort")
        family = find_openai_family(target.model or "", effort) if self._is_openai else "elsewhere"
        fitted = report_left_out(fit(query, self._families[family]), query.messages, has_details=True)
        # The marks of tools are no fields of messages, which `report_left_out` looks at.
        tools = fitted.sent.get("tools")
        if isinstance(tools, list) and any(drop_cache_mark(tool) is not tool for tool in tools):
            fitted = replace(fitted, ignored=tuple(dict.fromkeys((*fitted.ignored, CACHE_CONTROL))))
        return replace(fitted, sent=convert_fields(fitted.sent))

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        fields = {**self.build_body(call), "stream": stream}
        return HttpRequest(self.require_url(self._url), self.build_headers(call), write_body(fields, call))

    def build_body(self, call: Call) -> JsonObject:
        """Return the body of a request, but for the form of its answer."""
        query = call.query
        if query.messages is None and query.prompt is None:
            raise self.origin(call).request_error("takes text, not the ids of tokens")
        messages = query.messages if query.messages is not None else (Message("user", query.prompt),)
        return {**call.fitted.sent, "model": call.target.model, "input": convert_messages(messages)}


def _find_place(event: JsonObject) -> object:
    """Return what tells an item from the others: its position, or its id where a server names none, as llama.cpp does."""
    place, item = event.get("output_index"), as_object(event.get("item"))
    if type(place) is int:
        return place
    return next((id_ for id_ in map(as_text, (event.get("item_id"), item.get("id"), item.get("call_id"))) if id_), None)


def _check(origin: Origin, body: Mapping[str, object]) -> None:
    """Raise the failure that an answer is."""
    if body.get("error") or body.get("status") in ("failed", "cancelled"):
        error = as_object(body.get("error")) or {"message": f"the response is `{body.get('status')}`"}
        raise origin.upstream_error(find_error({"error": error}))
    if not isinstance(body.get("output"), list):
        raise origin.no_answer_error("items", body)


def _parse_logprobs(body: Mapping[str, object]) -> tuple[TokenLogprob, ...] | None:
    parts = [part for item in as_objects(body.get("output")) for part in as_objects(item.get("content"))]
    return (
        parse_logprobs({"content": tokens})
        if (tokens := [t for part in parts for t in as_objects(part.get("logprobs"))])
        else None
    )
