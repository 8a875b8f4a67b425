"""Answers in Google's generateContent format, whole or in events; they hold candidates made of parts.

Source: https://ai.google.dev/api/generate-content for every wire field; numbers that are 0 are left out (proto3's JSON).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from fanout.core.errors import ProviderError
from fanout.core.extras import merge_extras
from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Choice, Completion, FailureKind, FinishReason, TokenLogprob
from fanout.providers.gemini.token_counts import parse_usage
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import Finish, build_completion, make_tool_call, read_finish, read_index
from fanout.providers.mapping.error_objects import find_error, is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_number, as_object, as_objects, as_text
from fanout.providers.mapping.openai_answers import rank_tokens
from fanout.providers.mapping.other_content import make_image, make_image_link

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
    "CANCELLED": "cancelled",
}
"""By google.rpc.Code, where there is no number."""

SOURCES = ("groundingMetadata", "citationMetadata", "urlContextMetadata")
"""Fields of a candidate that name what its text rests on."""
NOTHING_ALLOWED = re.compile(r"\blimit: 0\b(?!\.)")
"""Words of a 429 whose model this account may not use at all: no waiting helps."""
KEY_REFUSED = re.compile(r"API key (?:not valid|expired)", re.IGNORECASE)
MADE_UP_ID = "fanout_call_"
"""Begins the ids of calls that got none from the model; they are not sent back to it."""


class CandidateReader(AnswerReader):
    """A streamed answer: each event is an answer's object with what is new in it. Nothing marks the end."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._head: JsonObject = {}
        self._calls: dict[int, int] = {}
        """Index of a choice → tool calls so far."""

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if is_error(body):
            raise CandidateReader.parse_error(origin, body)
        candidates = as_objects(body.get("candidates"))
        if len(candidates) > 1:
            candidates.sort(key=read_index)
        choices = tuple(map(_parse_candidate, candidates))
        # A blocked prompt is an answer of the filter, not a failure of the call.
        if not choices and (finish := _read_block(body)):
            choices = (Choice(Answer("", None, _read_block_message(body)), *finish),)
        return _complete(origin, body, choices)

    @staticmethod
    def parse_error(origin: Origin, body: object) -> ProviderError:
        error = find_error(body)
        return origin.upstream_error(error, kind=_find_kind(origin.status, error))

    def _reject(self, value: object) -> ProviderError:
        return self.parse_error(self._origin, value) if is_error(value) else super()._reject(value)

    def _read_event(self, event: JsonObject, size: int) -> None:
        if event.get("error"):
            raise self.parse_error(self._origin, event)
        # Each event repeats them, the last usage being the whole.
        for name in ("modelVersion", "responseId", "usageMetadata"):
            if value := event.get(name):
                self._head[name] = value
        candidates = event.get("candidates")
        for place, candidate in enumerate(as_objects(candidates)):
            self._read_candidate(candidate, place, size)
        if not candidates and (finish := _read_block(event)):
            self._add(size, refusal=_read_block_message(event) or "")
            self._finish(finish)

    def _read_candidate(self, candidate: JsonObject, place: int, size: int) -> None:
        index = candidate.get("index")
        if type(index) is not int:  # proto3 leaves out an index of 0
            index = place
        parts, beside = _split_parts(candidate), _pick_beside(candidate)
        logprobs = _parse_logprobs(candidate.get("logprobsResult")) if "logprobsResult" in candidate else None
        finish = read_finish(candidate.get("finishReason"), FINISH, has_calls=bool(parts.calls) or index in self._calls)
        refusal = _read_finish_message(candidate, finish) or ""
        if parts.text and not (parts.thoughts or parts.calls or parts.others or logprobs or beside or refusal):
            self._add_text(parts.text, index)
        else:
            calls = [self._number_call(part, index) for part in parts.calls]
            extra = merge_extras((*parts.others, beside))
            texts = {"text": parts.text, "reasoning": parts.thoughts, "refusal": refusal}
            self._add(size, index, **texts, calls=calls, logprobs=logprobs, extra=extra)
        if as_text(candidate.get("finishReason")):
            self._finish(finish, index)

    def _number_call(self, part: JsonObject, index: int) -> JsonObject:
        place = self._calls.get(index, 0)
        self._calls[index] = place + 1
        return {"index": place, **_parse_call(part, place)}

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return _complete(self._origin, self._head, choices)


def _complete(origin: Origin, body: JsonObject, choices: tuple[Choice, ...]) -> Completion:
    head = {"model": body.get("modelVersion"), "id": body.get("responseId")}
    return build_completion(origin, head, choices, parse_usage(body.get("usageMetadata")))


def _read_block(body: JsonObject) -> Finish | None:
    """Return the end of a prompt that was not answered at all."""
    reason = as_text(as_object(body.get("promptFeedback")).get("blockReason"))
    return ("content_filter", reason[:100]) if reason else None


def _read_block_message(body: JsonObject) -> str | None:
    return as_text(as_object(body.get("promptFeedback")).get("blockReasonMessage")) or None


def _parse_candidate(candidate: JsonObject) -> Choice:
    parts = _split_parts(candidate)
    calls = tuple(_parse_call(call, place) for place, call in enumerate(parts.calls))
    # A model that calls a tool reports `STOP`, too.
    finish = read_finish(candidate.get("finishReason"), FINISH, has_calls=bool(calls))
    extra = merge_extras((*parts.others, _pick_beside(candidate)))
    answer = Answer(parts.text, parts.thoughts or None, _read_finish_message(candidate, finish), calls, extra)
    return Choice(answer, *finish, _parse_logprobs(candidate.get("logprobsResult")))


def _read_finish_message(candidate: JsonObject, finish: Finish) -> str | None:
    """Return why a filter ended an answer, where it explains that."""
    return as_text(candidate.get("finishMessage")) or None if finish[0] == "content_filter" else None


def _pick_beside(candidate: JsonObject) -> JsonObject:
    """Return the sources that a candidate names."""
    return {name: candidate[name] for name in SOURCES if candidate.get(name)}


class Parts(NamedTuple):
    """The parts of a candidate, by what they hold."""

    text: str
    thoughts: str
    calls: list[JsonObject]
    others: list[JsonObject]
    """Content beside the text, see `Answer.extra`."""


def _split_parts(candidate: JsonObject) -> Parts:
    """Return the parts of a candidate, whose content or parts may be missing."""
    text = thoughts = ""
    calls: list[JsonObject] = []
    others: list[JsonObject] = []
    for part in as_objects(as_object(candidate.get("content")).get("parts")):
        piece = part.get("text")
        if as_object(part.get("functionCall")):
            calls.append(part)
        elif type(piece) is not str:
            others.append(_convert_other(part))
        # Thoughts are ordinary text parts with a mark.
        elif part.get("thought") is True:
            thoughts += piece
        else:
            text += piece
    return Parts(text, thoughts, calls, others)


def _convert_other(part: JsonObject) -> JsonObject:
    """Return a part that is neither text nor a call: media as OpenAI's hosts have them, anything else as it is."""
    data, file = as_object(part.get("inlineData")), as_object(part.get("fileData"))
    media_type, base64, url = as_text(data.get("mimeType") or file.get("mimeType")), data.get("data"), file.get("fileUri")
    if not part.keys() - {"thought", "thoughtSignature", "functionCall"}:
        return {}  # an empty part that bears a signature
    if part.get("thought") is True:  # a sketch on the way to the image
        return {"content_parts": [part]}
    if media_type.startswith("image/") and isinstance(base64, str):
        return {"images": [make_image(media_type, base64)]}
    if media_type.startswith("image/") and isinstance(url, str):
        return {"images": [make_image_link(url)]}
    if media_type.startswith("audio/") and isinstance(base64, str):
        return {"audio": {"data": base64, "mime_type": media_type}}
    return {"content_parts": [part]}


def _parse_call(part: JsonObject, place: int) -> JsonObject:
    """Return a tool call. Its signature, without which Gemini 3 refuses it back, stands where Google's OpenAI path puts it."""
    function = part["functionCall"]
    # The caller needs an id to answer the call.
    call_id = as_text(function.get("id")) or f"{MADE_UP_ID}{place}"
    call = make_tool_call(function.get("name"), function.get("args"), call_id)
    if signature := as_text(part.get("thoughtSignature")):
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def _parse_logprobs(raw: object) -> tuple[TokenLogprob, ...] | None:
    """Return the chosen tokens, each beside the likeliest ones of its step."""
    if not isinstance(raw, dict):
        return None
    tops = as_objects(raw.get("topCandidates"))
    tokens: list[TokenLogprob] = []
    for step, item in enumerate(as_objects(raw.get("chosenCandidates"))):
        others = as_objects(tops[step].get("candidates")) if step < len(tops) else []
        pairs = [(as_text(other.get("token")), _read_logprob(other)) for other in others]
        tokens.append(TokenLogprob(as_text(item.get("token")), _read_logprob(item), rank_tokens(pairs)))
    return tuple(tokens) or None


def _read_logprob(item: JsonObject) -> float | None:
    return as_number(item.get("logProbability", 0))


def _find_kind(status: int | None, error: JsonObject) -> FailureKind | None:
    """Return the kind that the details name beyond the status."""
    details, message = as_objects(error.get("details")), as_text(error.get("message"))[:4000]
    for detail in details:
        if kind := REASONS.get(as_text(detail.get("reason"))):
            return kind
    number = status or as_count(error.get("code"))
    if number == 429:
        return _find_exhaustion(details, message)
    if number == 400 and KEY_REFUSED.match(message):  # the Gemini API answers a wrong key with 400, not 401
        return "auth"
    # With a number the shared table of statuses decides.
    return STATUSES.get(as_text(error.get("status"))) if number is None else None


def _find_exhaustion(details: list[JsonObject], message: str) -> FailureKind | None:
    """Return the kind of a 429: a day's quota is used up however soon the answer invites back, a minute's fills again."""
    violations = [item for detail in details for item in as_objects(detail.get("violations"))]
    if NOTHING_ALLOWED.search(message) or any(
        str(item.get("quotaValue")) == "0" or "PerDay" in as_text(item.get("quotaId")) for item in violations
    ):
        return "quota"
    return "rate_limit" if violations else None
