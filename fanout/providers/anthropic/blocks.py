"""What an answer in Anthropic's format says, whole or in events; it is made of blocks of content.

Source: https://platform.claude.com/docs/en/api/messages and …/build-with-claude/streaming for every wire field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from fanout.core.errors import ProviderError
from fanout.core.schema import Answer, Choice, Completion, Delta, FailureKind, FinishReason
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, refusal
from fanout.providers.mapping.openai_answers import build_completion
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import make_tool_call
from fanout.providers.transport.native import as_count, as_object, as_objects, as_text

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
"""By `error.type`, where no status says it: in streams. `_failures.TYPE_KINDS` has the rest."""


def answered(origin: Origin, headers: Mapping[str, str], body: Mapping[str, Any]) -> Completion:
    """A whole answer.

    Raises:
        ProviderError: it is an error, or has no content.
    """
    if body.get("error") or body.get("type") == "error":
        raise refused(origin, None, headers, body)
    content = body.get("content")
    if not isinstance(content, list):
        raise origin.malformed("sent an answer without content", "no_choices")
    word = as_text(body.get("stop_reason"))
    choice = Choice(_answer(as_objects(content), body), FINISH.get(word), word[:100] or None)
    return _completion(origin, headers, body, (choice,), as_object(body.get("usage")))


def _answer(blocks: list[dict[str, Any]], body: Mapping[str, Any]) -> Answer:
    said = "".join(as_text(block.get("text")) for block in blocks if block.get("type") == "text")
    thought = "".join(as_text(block.get("thinking")) for block in blocks if block.get("type") == "thinking")
    calls = (
        make_tool_call(use.get("name"), use.get("input"), use.get("id")) for use in blocks if use.get("type") == "tool_use"
    )
    return Answer(said, thought or None, _explanation(body), tuple(calls))


def _explanation(body: Mapping[str, Any]) -> str | None:
    """Why the model refused, where it says so."""
    return as_text(as_object(body.get("stop_details")).get("explanation")) or None


def _completion(
    origin: Origin, headers: Mapping[str, str], head: Mapping[str, Any], choices: tuple[Choice, ...], usage: Mapping[str, Any]
) -> Completion:
    return build_completion(origin, headers, head, choices, _usage(usage))


def _usage(raw: Mapping[str, Any]) -> Usage | None:
    """Input with what came from the cache and what went into it, which here stand beside it."""
    given, answered = as_count(raw.get("input_tokens")), as_count(raw.get("output_tokens"))
    if given is None and answered is None:
        return None
    cached, written = as_count(raw.get("cache_read_input_tokens")), as_count(raw.get("cache_creation_input_tokens"))
    reasoning = as_count(as_object(raw.get("output_tokens_details")).get("thinking_tokens"))
    whole = None if given is None else given + (cached or 0) + (written or 0)
    return Usage(whole, answered, cached, written, reasoning, raw=raw)


def refused(origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]) -> ProviderError:
    """The failure that an error's object means; `status` is `None` within an answer of status 200."""
    error = find_error(body)
    code, category = as_text(as_object(error.get("details")).get("error_code")), as_text(error.get("type"))
    kind = CODES.get(code) or ("quota" if code.endswith("_spend_limit_reached") else None)
    if kind is None and status is None:
        kind = TYPES.get(category)
    said = {"message": error.get("message"), "code": code or error.get("code"), "type": category}
    return refusal(origin, status, headers, said, kind=kind, request=body.get("request_id"))


class BlockEvents(StreamReader):
    """A streamed answer: blocks of content, each begun, added to and ended."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._head: Mapping[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._calls: dict[int | None, int] = {}
        self._silent: set[int] = set()
        """Calls whose arguments have not come."""

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        kind = chunk.get("type")
        if kind == "content_block_delta":
            piece = as_object(chunk.get("delta"))
            said = piece.get("text")
            delta = self._said(0, said) if type(said) is str and said else self._other_delta(chunk, piece, size)
            if delta:
                deltas.append(delta)
        elif kind == "content_block_start":
            if delta := self._block_started(chunk, as_object(chunk.get("content_block")), size):
                deltas.append(delta)
        elif kind == "content_block_stop":
            if (place := self._calls.get(_place(chunk))) in self._silent and (delta := self._arguments(place, "{}", size)):
                deltas.append(delta)
        elif kind == "message_delta":
            self._message_delta(as_object(chunk.get("delta")), as_object(chunk.get("usage")))
        elif kind == "message_start":
            self._head = as_object(chunk.get("message"))
            self._usage.update(as_object(self._head.get("usage")))
            self._growing()
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error" or chunk.get("error"):
            self._called_error(chunk)

    def _called_error(self, chunk: dict[str, Any]) -> NoReturn:
        raise refused(self._origin, None, self._headers, chunk)

    def _other_delta(self, chunk: Mapping[str, Any], piece: Mapping[str, Any], size: int) -> Delta | None:
        if thought := as_text(piece.get("thinking")):
            return self._added(0, size, reasoning=thought)
        arguments = as_text(piece.get("partial_json"))
        return self._arguments(self._calls.get(_place(chunk)), arguments, size) if arguments else None

    def _arguments(self, place: int | None, arguments: str, size: int) -> Delta | None:
        if place is None:
            return None
        self._silent.discard(place)
        return self._added(0, size, calls=[{"index": place, "function": {"arguments": arguments}}])

    def _block_started(self, chunk: Mapping[str, Any], block: Mapping[str, Any], size: int) -> Delta | None:
        if block.get("type") != "tool_use":
            return self._added(0, size, text=as_text(block.get("text")), reasoning=as_text(block.get("thinking")))
        place = self._calls[_place(chunk)] = len(self._calls)
        begun = block.get("input")  # empty, but whole where a host does not stream it
        if not (isinstance(begun, dict) and begun):
            begun = ""
            self._silent.add(place)
        call = make_tool_call(block.get("name"), begun, block.get("id"))
        return self._added(0, size, calls=[{"index": place, **call}])

    def _message_delta(self, delta: Mapping[str, Any], usage: Mapping[str, Any]) -> None:
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        if word := as_text(delta.get("stop_reason")):
            self._finished(0, FINISH.get(word), word)
            if explanation := _explanation(delta):
                self._growing().refusal.append(explanation)

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return _completion(self._origin, self._headers, self._head, choices, self._usage)


def _place(chunk: Mapping[str, Any]) -> int | None:
    """Which block an event is about."""
    index = chunk.get("index")
    return index if isinstance(index, int) else None
