"""What an answer in Google's generateContent format says, whole or in events; it holds candidates made of parts.

Source: https://ai.google.dev/api/generate-content for every wire field; numbers that are 0 are left out (proto3's JSON).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from fanout.core.errors import ProviderError
from fanout.core.schema import Answer, Choice, Completion, Delta, FailureKind, FinishReason, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.mapping.failures import Origin, find_error, is_error, refusal
from fanout.providers.mapping.openai_answers import build_completion
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.mapping.tools import make_tool_call
from fanout.providers.transport.native import as_count, as_object, as_objects, as_text
from fanout.providers.transport.sse import MAX_EVENT_BYTES

FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
"""The others (`OTHER`, `MALFORMED_FUNCTION_CALL`, …) mean no more than themselves. Source: google-genai 3.3.0 `types.py`."""

REASONS: Mapping[str, FailureKind] = {
    "API_KEY_INVALID": "auth",
    "API_KEY_SERVICE_BLOCKED": "auth",
    "API_KEY_HTTP_REFERRER_BLOCKED": "auth",
    "API_KEY_IP_ADDRESS_BLOCKED": "auth",
    "ACCESS_TOKEN_EXPIRED": "auth",
    "BILLING_DISABLED": "quota",
    "RATE_LIMIT_EXCEEDED": "rate_limit",
}
"""By `reason` in google.rpc.ErrorInfo: a wrong key is a 400 like any other.

Source: https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
"""
STATUSES: Mapping[str, FailureKind] = {
    "INVALID_ARGUMENT": "bad_request",
    "FAILED_PRECONDITION": "bad_request",
    "OUT_OF_RANGE": "bad_request",
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "NOT_FOUND": "not_found",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "DEADLINE_EXCEEDED": "timeout",
}
"""By google.rpc.Code, where no number says it."""

NOTHING_ALLOWED = re.compile(r"\blimit: 0\b(?!\.)")
"""Words of a 429 whose model this account may not use at all: no waiting helps."""
KEY_REFUSED = re.compile(r"API key (?:not valid|expired)", re.IGNORECASE)


def answered(origin: Origin, headers: Mapping[str, str], body: Mapping[str, Any]) -> Completion:
    """A whole answer.

    Raises:
        ProviderError: it is an error, or holds no candidate although nothing was blocked.
    """
    if is_error(body):
        raise refused(origin, None, headers, body)
    found = as_objects(body.get("candidates"))
    if len(found) > 1:
        found.sort(key=lambda item: index if isinstance(index := item.get("index"), int) else 0)
    choices = tuple(map(_choice, found))
    if not choices and (reason := blocked(body)):
        choices = (Choice(Answer(""), "content_filter", reason[:100]),)
    return whole(origin, headers, body, choices)


def blocked(body: Mapping[str, Any]) -> str:
    """Why the prompt was not answered at all, in the provider's word; empty where it was."""
    return as_text(as_object(body.get("promptFeedback")).get("blockReason"))


def whole(origin: Origin, headers: Mapping[str, str], body: Mapping[str, Any], choices: tuple[Choice, ...]) -> Completion:
    head = {"model": body.get("modelVersion"), "id": body.get("responseId")}
    return build_completion(origin, headers, head, choices, _usage(body.get("usageMetadata")))


def _choice(candidate: Mapping[str, Any]) -> Choice:
    said, thought, calls = _parts(candidate)
    word = as_text(candidate.get("finishReason"))
    tools = tuple(_call(call, place) for place, call in enumerate(calls))
    answer = Answer(said, thought or None, None, tools)
    return Choice(
        answer, parse_finish_reason(word, called=bool(tools)), word[:100] or None, _logprobs(candidate.get("logprobsResult"))
    )


def parse_finish_reason(word: str, *, called: bool) -> FinishReason | None:
    """A model that calls a tool says `STOP`, too."""
    return "tool_calls" if called and word == "STOP" else FINISH.get(word)


def _parts(candidate: Mapping[str, Any]) -> tuple[str, str, list[Mapping[str, Any]]]:
    """Text, thoughts and function calls of a candidate, whose content or parts may be missing."""
    said = thought = ""
    calls: list[Mapping[str, Any]] = []
    for part in as_objects(as_object(candidate.get("content")).get("parts")):
        piece = part.get("text")
        if isinstance(part.get("functionCall"), dict):
            calls.append(part)
        elif type(piece) is not str:
            continue
        elif part.get("thought") is True:
            thought += piece
        else:
            said += piece
    return said, thought, calls


OWN_ID = "fanout_call_"
"""Begins the ids of calls that got none from the model; they are not sent back to it."""


def _call(part: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A tool call. Its signature, without which Gemini 3 refuses it back, stands where Google's OpenAI path puts it."""
    function = part["functionCall"]
    call = make_tool_call(function.get("name"), function.get("args"), as_text(function.get("id")) or f"{OWN_ID}{place}")
    if signature := as_text(part.get("thoughtSignature")):
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def _logprobs(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """The chosen tokens, each beside the likeliest ones of its step."""
    if not isinstance(raw, dict):
        return None
    tops = as_objects(raw.get("topCandidates"))
    tokens: list[TokenLogprob] = []
    for step, item in enumerate(as_objects(raw.get("chosenCandidates"))):
        others = as_objects(tops[step].get("candidates")) if step < len(tops) else []
        pairs = [(as_text(other.get("token")), _logprob(other)) for other in others]
        top = tuple(sorted(((token, value) for token, value in pairs if value is not None), key=lambda pair: -pair[1]))
        tokens.append(TokenLogprob(as_text(item.get("token")), _logprob(item), top))
    return tuple(tokens) or None


def _logprob(item: Mapping[str, Any]) -> float | None:
    value = item.get("logProbability", 0)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _usage(raw: Any) -> Usage | None:
    """Input with what came from the cache; output with thoughts, which stand beside `candidatesTokenCount`.

    Whatever is missing beside a known total is 0: proto3 leaves zeros out.
    """
    if not isinstance(raw, dict):
        return None
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    prompt, tools, said, thought = (as_count(raw.get(name)) for name in names)
    known = as_count(raw.get("totalTokenCount")) is not None
    given = (prompt or 0) + (tools or 0) if known or prompt is not None else None
    answered = (said or 0) + (thought or 0) if known or said is not None or thought is not None else None
    if given is None and answered is None:
        return None
    return Usage(given, answered, as_count(raw.get("cachedContentTokenCount")), None, thought, raw=raw)


def refused(origin: Origin, status: int | None, headers: Mapping[str, str], body: Any) -> ProviderError:
    """The failure that an error's object means; `status` is `None` within an answer of status 200."""
    error = find_error(body)
    return refusal(origin, status, headers, error, kind=_kind(status, error))


def _kind(status: int | None, error: Mapping[str, Any]) -> FailureKind | None:
    """What the details say beyond the status."""
    details, message = as_objects(error.get("details")), as_text(error.get("message"))[:4000]
    for detail in details:
        if kind := REASONS.get(as_text(detail.get("reason"))):
            return kind
    number = status or as_count(error.get("code"))
    if number == 429:
        return _exhausted(details, message)
    if number == 400 and KEY_REFUSED.match(message):
        return "auth"
    return STATUSES.get(as_text(error.get("status"))) if number is None else None


def _exhausted(details: list[dict[str, Any]], message: str) -> FailureKind | None:
    """A quota of the day is used up however soon the answer says to come again; one of the minute fills again."""
    violations = [item for detail in details for item in as_objects(detail.get("violations"))]
    if NOTHING_ALLOWED.search(message) or any(
        str(item.get("quotaValue")) == "0" or "PerDay" in as_text(item.get("quotaId")) for item in violations
    ):
        return "quota"
    return "rate_limit" if violations else None


class CandidateEvents(StreamReader):
    """A streamed answer: each event is an answer's object with what is new in it. Nothing says that it ends."""

    def __init__(self, origin: Origin, call_index: int, headers: Mapping[str, str], highest_bytes: int) -> None:
        super().__init__(origin, call_index, headers, highest_bytes)
        self._head: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self._bare: bytearray | None = None
        self._at_line = True

    def _bytes(self, data: bytes, deltas: list[Delta]) -> None:
        """Errors come between the events as bare JSON, on many lines without `data:`."""
        start = -1 if self._bare is not None else self._bare_start(data)
        if start >= 0:
            super()._bytes(data[:start], deltas)
            self._bare, data = bytearray(), data[start:]
        if self._bare is None:
            self._at_line = data[-1:] in (b"\n", b"\r") if data else self._at_line
            super()._bytes(data, deltas)
            return
        self._bare += data
        if len(self._bare) > MAX_EVENT_BYTES:
            raise self._origin.malformed("sent JSON without an end", "event_too_large")
        if b"}" in data or b"]" in data:
            self._judge(self._bare.decode("utf-8", "replace"))

    def _bare_start(self, data: bytes) -> int:
        if self._at_line and data[:1] in (b"{", b"["):
            return 0
        starts = [place + 1 for mark in (b"\n{", b"\n[", b"\r{", b"\r[") if (place := data.find(mark)) >= 0]
        return min(starts, default=-1)

    def _judge(self, shown: str) -> None:
        """Raises what the bare JSON means, once it is whole; what follows it is of no interest, so that no cut matters."""
        try:
            value, _ = json.JSONDecoder().raw_decode(shown)
        except RecursionError:
            raise self._origin.malformed("sent a chunk that is not JSON", "invalid_json") from None
        except ValueError:
            return
        self._odd(value)

    def _odd(self, chunk: Any) -> None:
        if is_error(chunk):
            raise refused(self._origin, None, self._headers, chunk)
        super()._odd(chunk)

    def _called_error(self, chunk: dict[str, Any]) -> NoReturn:
        raise refused(self._origin, None, self._headers, chunk)

    def _take(self, chunk: dict[str, Any], size: int, deltas: list[Delta]) -> None:
        if chunk.get("error"):
            self._called_error(chunk)
        for name in ("modelVersion", "responseId", "usageMetadata"):
            if value := chunk.get(name):
                self._head[name] = value
        found = chunk.get("candidates")
        for place, candidate in enumerate(as_objects(found)):
            if delta := self._candidate(candidate, place, size):
                deltas.append(delta)
        if not found and (reason := blocked(chunk)):
            self._finished(0, "content_filter", reason)

    def _candidate(self, candidate: dict[str, Any], place: int, size: int) -> Delta | None:
        index = candidate.get("index")
        if type(index) is not int:
            index = place
        said, thought, found = _parts(candidate)
        self._growing(index)
        logprobs = _logprobs(candidate.get("logprobsResult")) if "logprobsResult" in candidate else None
        calls = [{"index": self._next_call(index), **_call(part, self._calls[index])} for part in found]
        if said and not (thought or calls or logprobs):
            delta: Delta | None = self._said(index, said)
        else:
            delta = self._added(index, size, text=said, reasoning=thought, calls=calls, logprobs=logprobs)
        if word := as_text(candidate.get("finishReason")):
            self._finished(index, parse_finish_reason(word, called=index in self._calls), word)
        return delta

    def _next_call(self, index: int) -> int:
        self._calls[index] = self._calls.get(index, -1) + 1
        return self._calls[index]

    def _whole(self, choices: tuple[Choice, ...]) -> Completion:
        return whole(self._origin, self._headers, self._head, choices)
