"""Answers in Anthropic's format, whole or in events; they are made of blocks of content.

Source: https://platform.claude.com/docs/en/api/messages and …/build-with-claude/streaming for every wire field.
"""

from __future__ import annotations

from collections.abc import Mapping

from fanout.core.errors import ProviderError
from fanout.core.extras import merge_extras
from fanout.core.json_text import JsonObject, parse
from fanout.core.schema import Answer, Choice, Completion, FailureKind, FinishReason
from fanout.core.usage import Usage, add_known
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import (
    add_cached_tokens,
    begin_tool_call,
    build_completion,
    build_usage,
    make_tool_call,
    read_finish,
)
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects, as_text
from fanout.providers.mapping.other_content import THINKING_BLOCKS
from fanout.providers.mapping.tool_calls import to_arguments

FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
CODES: Mapping[str, FailureKind] = {
    "enforced_spend_limit_reached": "quota",
    "contract_spend_limit_reached": "quota",
    "linked_organization_spend_limit_reached": "quota",
    "linked_organization_billing_unavailable": "quota",
    "organization_on_hold": "auth",
    "ramp_limit_exceeded": "rate_limit",
}
"""By `error.details.error_code`. Source: anthropic 2.11.0 `types/shared/*_error.py`."""
TYPES: Mapping[str, FailureKind] = {
    "billing_error": "quota",
    "request_too_large": "bad_request",
    "overloaded_error": "server",
    "api_error": "server",
}
"""By `error.type`, where there is no status: in streams. `mapping.failures.TYPE_KINDS` has the rest."""


class BlockReader(AnswerReader):
    """A streamed answer: blocks of content, each begun, added to and ended."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._head: JsonObject = {}
        self._usage: JsonObject = {}
        self._calls: dict[int | None, int] = {}
        """Index of a block → place of its tool call."""
        self._open: dict[int | None, tuple[JsonObject, list[str]]] = {}
        """Index of a block that is passed on when it ends → its start, and the pieces of its thoughts or input."""

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if body.get("error") or body.get("type") == "error":
            raise BlockReader.parse_error(origin, body)
        content = body.get("content")
        if not isinstance(content, list):
            raise origin.no_answer_error("content", body)
        blocks = as_objects(content)
        extra = merge_extras(map(_pick_extra, blocks))
        text = "".join(as_text(block.get("text")) for block in blocks if block.get("type") == "text")
        reasoning = "".join(as_text(block.get("thinking")) for block in blocks if block.get("type") == "thinking")
        calls = tuple(_parse_use(block) for block in blocks if block.get("type") == "tool_use")
        answer = Answer(text, reasoning or None, _read_explanation(body), calls, extra)
        choice = Choice(answer, *read_finish(body.get("stop_reason"), FINISH))
        return build_completion(origin, body, (choice,), _parse_usage(as_object(body.get("usage"))))

    @staticmethod
    def parse_error(origin: Origin, body: JsonObject) -> ProviderError:
        error = find_error(body)
        code, category = as_text(as_object(error.get("details")).get("error_code")), as_text(error.get("type"))
        kind = CODES.get(code) or ("quota" if code.endswith("_spend_limit_reached") else None)
        if kind is None and origin.status is None:  # a status says more than these broad words
            kind = TYPES.get(category)
        error = {"message": error.get("message"), "code": code or error.get("code"), "type": category}
        return origin.upstream_error(error, kind=kind, request_id=body.get("request_id"))

    def _read_event(self, event: JsonObject, size: int) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = as_object(event.get("delta"))
            text = delta.get("text")
            if type(text) is str and text:  # nearly every event: no further call for it
                self._add_text(text)
            else:
                self._read_delta(delta, _block_index(event), size)
        elif kind == "content_block_start":
            self._start_block(_block_index(event), as_object(event.get("content_block")), size)
        elif kind == "content_block_stop":
            self._end_block(_block_index(event), size)
        elif kind == "message_delta":
            self._read_message_delta(as_object(event.get("delta")), as_object(event.get("usage")))
        elif kind == "message_start":
            self._head = as_object(event.get("message"))
            self._usage.update(as_object(self._head.get("usage")))
            self._choice()
        elif kind == "message_stop":
            self.is_ended = True
        elif kind == "error" or event.get("error"):
            raise self.parse_error(self._origin, event)

    def _read_delta(self, delta: JsonObject, index: int | None, size: int) -> None:
        kept = self._open.get(index)
        if reasoning := as_text(delta.get("thinking")):
            self._keep(kept, reasoning)
            self._add(size, reasoning=reasoning)
        elif kept and (signature := as_text(delta.get("signature"))):
            kept[0]["signature"] = signature
            self._held_bytes += size
        elif citation := as_object(delta.get("citation")):
            self._add(size, extra={"citations": [citation]})
        elif arguments := to_arguments(delta.get("partial_json")):
            self._keep(kept, arguments)
            self._add_arguments(self._calls.get(index), arguments, size)

    def _keep(self, block: tuple[JsonObject, list[str]] | None, piece: str) -> None:
        if block:
            block[1].append(piece)
            self._held_bytes += len(piece)

    def _add_arguments(self, place: int | None, arguments: str, size: int) -> None:
        if place is not None:  # a block of a kind we do not know
            self._add(size, calls=[{"index": place, "function": {"arguments": arguments}}])

    def _start_block(self, index: int | None, block: JsonObject, size: int) -> None:
        if block.get("type") != "tool_use":
            thoughts = as_text(block.get("thinking"))
            if block.get("type") != "text":
                self._open[index] = ({**block}, [thoughts])
                self._held_bytes += size
            self._add(size, text=as_text(block.get("text")), reasoning=thoughts)
            return
        place = self._calls[index] = len(self._calls)
        arguments = as_object(block.get("input"))  # empty, but whole where a host does not stream it
        call = begin_tool_call(block.get("name"), to_arguments(arguments or None), block.get("id"))
        self._add(size, calls=[{"index": place, **call}])

    def _end_block(self, index: int | None, size: int) -> None:
        """Pass on a block that is neither text nor a call, now that it is whole."""
        block, pieces = self._open.pop(index, ({}, []))
        whole = "".join(pieces)
        if block.get("type") == "thinking":
            block["thinking"] = whole
        elif whole:  # the input of a tool that the provider itself runs
            block["input"] = _parse_input(whole)
        if extra := _pick_extra(block):
            self._add(size, extra=extra)

    def _read_message_delta(self, delta: JsonObject, usage: JsonObject) -> None:
        # Cumulative: replaces the counts of `message_start`.
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        if word := as_text(delta.get("stop_reason")):
            self._finish(read_finish(word, FINISH))
            if explanation := _read_explanation(delta):
                self._add(0, refusal=explanation)

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._head, choices, _parse_usage(self._usage))


def _pick_extra(block: JsonObject) -> JsonObject:
    """Return what a block holds beside text, thoughts and calls: later turns need its signature."""
    match block.get("type"):
        case "thinking":
            return {THINKING_BLOCKS: [block]} if block.get("signature") else {}
        case "redacted_thinking":
            return {THINKING_BLOCKS: [block]}
        case "text":
            citations = as_objects(block.get("citations"))
            return {"citations": citations} if citations else {}
        case None | "tool_use":
            return {}
    return {"content_blocks": [block]}  # searches and other tools that the provider itself runs, and what they found


def _parse_input(text: str) -> object:
    try:
        return parse(text.encode(errors="replace"))
    except ValueError:
        return text


def _parse_use(block: JsonObject) -> JsonObject:
    return make_tool_call(block.get("name"), block.get("input"), block.get("id"))


def _read_explanation(body: JsonObject) -> str | None:
    """Return why the model refused, where it explains that."""
    return as_text(as_object(body.get("stop_details")).get("explanation")) or None


def _parse_usage(raw: JsonObject) -> Usage | None:
    cached, written = as_count(raw.get("cache_read_input_tokens")), as_count(raw.get("cache_creation_input_tokens"))
    by_lifetime = as_object(raw.get("cache_creation"))
    hourly = as_count(by_lifetime.get("ephemeral_1h_input_tokens"))
    if written is None:
        written = add_known(hourly, as_count(by_lifetime.get("ephemeral_5m_input_tokens")))
    input_tokens = add_cached_tokens(as_count(raw.get("input_tokens")), cached, written)
    output_tokens = as_count(raw.get("output_tokens"))
    reasoning = as_count(as_object(raw.get("output_tokens_details")).get("thinking_tokens"))
    apart = {
        "cache_write_1h_tokens": hourly,
        "web_searches": as_count(as_object(raw.get("server_tool_use")).get("web_search_requests")),
    }
    tier = "fast" if raw.get("speed") == "fast" else raw.get("service_tier")
    return build_usage(input_tokens, output_tokens, cached, written, reasoning, apart=apart, service_tier=tier, raw=raw)


def _block_index(event: JsonObject) -> int | None:
    index = event.get("index")
    return index if isinstance(index, int) else None
