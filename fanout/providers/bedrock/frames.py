"""Answers in Bedrock's Converse format, whole or in frames.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and botocore 1.44.5,
`data/bedrock-runtime/2023-09-30/service-2.json`, for every wire field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from multidict import istr

from fanout.core.errors import ProviderError
from fanout.core.extras import merge_extras
from fanout.core.json_text import JsonObject, parse
from fanout.core.schema import Answer, Choice, Completion, FailureKind, FinishReason
from fanout.core.usage import Usage, sum_known
from fanout.providers.bedrock.event_stream import FrameDecoder
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.completions import (
    Finish,
    add_cached_tokens,
    build_completion,
    build_usage,
    make_tool_call,
    read_finish,
)
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects, as_text
from fanout.providers.mapping.other_content import THINKING_BLOCKS, make_image
from fanout.providers.mapping.tool_calls import to_arguments

ERROR_TYPE = istr("x-amzn-errortype")

FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
BROKEN_OFF = frozenset({"malformed_model_output", "malformed_tool_use"})

# Source: the `httpStatusCode` of each exception in botocore 1.44.5, `bedrock-runtime`.
STATUSES: Mapping[str, int] = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""What stands for HTTP's status where an error comes inside a stream."""
KINDS: Mapping[str, FailureKind] = {
    "ServiceQuotaExceededException": "quota",
    "UnrecognizedClientException": "auth",
    "InvalidSignatureException": "auth",
    "ExpiredTokenException": "auth",
    "ThrottlingException": "rate_limit",
}
"""Where the type says more than its status. Source: AWS's common errors, …/APIReference/CommonErrors.html"""


class FrameReader(AnswerReader):
    """A streamed answer: frames, each with an event or an exception."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._frames = FrameDecoder(origin, max_bytes)
        self._usage: Usage | None = None
        self._thoughts: list[str] = []
        """Of the block whose signature has not come."""
        self._image_format = "png"

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        message = as_object(as_object(body.get("output")).get("message"))
        if not message:
            raise origin.no_answer_error("a message", body)
        text, thoughts, calls = "", "", []
        blocks = as_objects(message.get("content"))
        for block in blocks:
            # With citations a text stands inside them, not beside.
            cited = as_objects(as_object(block.get("citationsContent")).get("content"))
            text += as_text(block.get("text")) + "".join(as_text(part.get("text")) for part in cited)
            thoughts += _read_thoughts(block)
            if use := as_object(block.get("toolUse")):
                calls.append(make_tool_call(use.get("name"), use.get("input"), use.get("toolUseId")))
        answer = Answer(text, thoughts or None, None, tuple(calls), merge_extras(map(_pick_extra, blocks)))
        choice = Choice(answer, *_parse_finish(origin, body.get("stopReason")))
        return build_completion(origin, {}, (choice,), _parse_usage(body.get("usage"), body.get("serviceTier")))

    @staticmethod
    def parse_error(origin: Origin, body: JsonObject) -> ProviderError:
        error = find_error(body) or body  # what stands between AWS and us may have OpenAI's shape
        return _to_error(origin, error, origin.headers.get(ERROR_TYPE) or error.get("__type") or error.get("code"))

    @property
    def pending_bytes(self) -> int:
        return self._frames.pending_bytes

    def _read_bytes(self, data: bytes) -> None:
        for headers, payload in self._frames.feed(data):
            self._read_frame(headers, payload)
            if self.is_ended:
                return

    def _read_frame(self, headers: Mapping[str, object], payload: bytes) -> None:
        kind = headers.get(":message-type")
        if kind == "error":
            raise _to_error(self._origin, {"message": headers.get(":error-message")}, headers.get(":error-code"))
        try:
            body = parse(payload or b"{}")  # an exception may have no payload
        except ValueError:
            raise self._origin.answer_error("sent a message that is not JSON", "invalid_json") from None
        if kind == "exception":
            raise _to_error(self._origin, as_object(body), headers.get(":exception-type"))
        if type(body) is not dict:
            raise self._reject(body)
        if kind == "event":
            self._read_event({**body, "event": headers.get(":event-type")}, len(payload))

    def _read_event(self, event: JsonObject, size: int) -> None:
        match event.get("event"):  # kinds that are not known are of no interest
            case "contentBlockDelta" | "contentBlockStart":
                self._read_block(event, size)
            case "messageStop":
                self._finish(_parse_finish(self._origin, event.get("stopReason")))
            case "metadata":
                self._usage = _parse_usage(event.get("usage"), event.get("serviceTier"))
                # `metadata` is the last frame, behind `messageStop`
                self.is_ended = bool(self._choices) and self._choice().is_finished

    def _read_block(self, event: JsonObject, size: int) -> None:
        piece = as_object(event.get("delta") or event.get("start"))
        text, use = as_text(piece.get("text")), as_object(piece.get("toolUse"))
        if text and not use:
            self._add_text(text)
            return
        calls: list[JsonObject] = []
        if use:
            # Only the first piece of a call bears its id.
            fields = {"id": use["toolUseId"], "type": "function"} if as_text(use.get("toolUseId")) else {}
            function = {"name": as_text(use.get("name")), "arguments": to_arguments(use.get("input"))}
            calls = [{**fields, "index": event.get("contentBlockIndex"), "function": function}]
        self._add(size, text=text, reasoning=_read_thoughts(piece), calls=calls, extra=self._pick_news(piece))

    def _pick_news(self, piece: JsonObject) -> JsonObject:
        """Return what a piece of a block holds beside text, thoughts and calls."""
        if reasoning := as_object(piece.get("reasoningContent")):
            self._thoughts.append(as_text(reasoning.get("text")))
            self._held_bytes += len(self._thoughts[-1])
            if signature := reasoning.get("signature"):
                whole, self._thoughts = "".join(self._thoughts), []
                reasoning = {"reasoningText": {"text": whole, "signature": signature}}
            return _pick_extra({"reasoningContent": reasoning})
        if image := as_object(piece.get("image")):
            if not image.get("source"):  # its start
                self._image_format = as_text(image.get("format")) or self._image_format
                return {}
            return _pick_extra({"image": {"format": self._image_format, **image}})
        if citation := as_object(piece.get("citation")):
            return {"citations": [citation]}
        return _pick_extra(piece)

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, {}, choices, self._usage)


def _parse_finish(origin: Origin, reason: object) -> Finish:
    """Return the end that Converse's word means.

    Raises:
        ProviderError: the answer failed.
    """
    if (word := as_text(reason)) in BROKEN_OFF:
        raise origin.finish_error(word, kind="server")
    return read_finish(word, FINISH)


def _pick_extra(block: JsonObject) -> JsonObject:
    """Return what a block holds beside text, thoughts and calls; signatures as Anthropic has them, whose models make them."""
    if reasoning := as_object(block.get("reasoningContent")):
        shown = as_object(reasoning.get("reasoningText"))
        if redacted := reasoning.get("redactedContent"):
            return {THINKING_BLOCKS: [{"type": "redacted_thinking", "data": redacted}]}
        if signature := shown.get("signature"):
            thinking = {"type": "thinking", "thinking": as_text(shown.get("text")), "signature": signature}
            return {THINKING_BLOCKS: [thinking]}
        return {}
    if cited := as_object(block.get("citationsContent")):
        citations = as_objects(cited.get("citations"))
        return {"citations": citations} if citations else {}
    image, audio = as_object(block.get("image")), as_object(block.get("audio"))
    data = as_object((image or audio).get("source")).get("bytes")
    kind = as_text((image or audio).get("format"))
    if image and isinstance(data, str):
        return {"images": [make_image(f"image/{kind}", data)]}
    if audio and isinstance(data, str):
        return {"audio": {"data": data, "mime_type": f"audio/{kind}"}}
    return {} if not block or "text" in block or "toolUse" in block else {"content_parts": [block]}


def _read_thoughts(block: JsonObject) -> str:
    """Return a block's thoughts: whole in `reasoningText`, in a stream directly; encrypted ones are nothing to read."""
    reasoning = as_object(block.get("reasoningContent"))
    return as_text(as_object(reasoning.get("reasoningText", reasoning)).get("text"))


def _parse_usage(raw: object, tier: object) -> Usage | None:
    """Return tokens as this project counts them: Converse counts what came from or went to the cache beside the input."""
    figures, service_tier = as_object(raw), as_object(tier).get("type")
    given, output = as_count(figures.get("inputTokens")), as_count(figures.get("outputTokens"))
    cached, written = as_count(figures.get("cacheReadInputTokens")), as_count(figures.get("cacheWriteInputTokens"))
    hourly = [as_count(item.get("inputTokens")) for item in as_objects(figures.get("cacheDetails")) if item.get("ttl") == "1h"]
    apart = {"cache_write_1h_tokens": sum_known(hourly)}
    return build_usage(
        add_cached_tokens(given, cached, written), output, cached, written, apart=apart, service_tier=service_tier, raw=figures
    )


def _to_error(origin: Origin, error: JsonObject, error_type: object) -> ProviderError:
    """Return the failure of a type, as `Name`, `Name:http://…`, `com.amazon…#Name`, or a frame's `name`."""
    word = as_text(error_type).partition(":")[0].rpartition("#")[2]
    if word.endswith("Exception"):  # a frame writes `throttlingException`, the header `ThrottlingException`
        word = word[:1].upper() + word[1:]
    message = as_text(error.get("message") or error.get("Message") or error.get("originalMessage"))
    # Inside a stream the status was 200: that of the type stands for it.
    origin = replace(origin, status=origin.status or STATUSES.get(word))
    return origin.upstream_error({"message": message, "code": word}, kind=KINDS.get(word))
