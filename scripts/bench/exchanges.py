"""Answers in the wire format of each adapter, whole and streamed.

They are made here after the vendors' documents, or read from a folder of recorded exchanges: one file for each provider, a JSON
list of `{"request": {"uri": …}, "response": {"status": …, "headers": …, "json" | "text" | "base64": …}}`.
"""

from __future__ import annotations

import base64
import json
from binascii import crc32
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

from machine import BenchError

WORDS = [f" word{number}" for number in range(120)]
TEXT = "".join(WORDS)
COUNTS = {"prompt_tokens": 40, "completion_tokens": 120, "total_tokens": 160}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answer of a format."""

    adapter: str
    model: str
    whole: bytes | None = None
    pieces: Sequence[bytes] = ()
    """Events of the stream, as they are on the wire."""
    payloads: Sequence[bytes] = ()
    """The JSON in them."""
    kind: str = "chat"
    text: str | None = None
    """The text of the answer, if it is known."""


def to_sse(*events: Any, with_done: bool = False) -> tuple[list[bytes], list[bytes]]:
    payloads = [json.dumps(event).encode() for event in events]
    pieces = [b"data: %b\n\n" % payload for payload in payloads]
    return [*pieces, *([b"data: [DONE]\n\n"] if with_done else [])], payloads


def to_named_sse(*events: dict[str, Any]) -> tuple[list[bytes], list[bytes]]:
    payloads = [json.dumps(event).encode() for event in events]
    return [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), payload) for event, payload in zip(events, payloads, strict=True)
    ], payloads


def to_lines(*events: Any) -> tuple[list[bytes], list[bytes]]:
    payloads = [json.dumps(event).encode() for event in events]
    return [payload + b"\n" for payload in payloads], payloads


def to_frames(*events: tuple[str, Any]) -> tuple[list[bytes], list[bytes]]:
    payloads = [json.dumps(payload).encode() for _, payload in events]
    return [_to_frame(kind, payload) for (kind, _), payload in zip(events, payloads, strict=True)], payloads


def _to_frame(kind: str, payload: bytes) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


def make_openai() -> Exchange:
    head = {"id": "chatcmpl-Dx0XabcdefghijkLmnop", "created": 1754902196, "model": "gpt-4o-2024-08-06"}
    message: dict[str, Any] = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": COUNTS, "system_fingerprint": "fp_a1b2c3"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        common = {**head, "object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": "fp_a1b2c3"}
        return {**common, "choices": [choice], "usage": None, "obfuscation": "A4Z2"}

    deltas = [chunk({"content": word}) for word in WORDS]
    last = {**chunk({}), "choices": [], "usage": COUNTS}
    pieces, payloads = to_sse(chunk({"role": "assistant", "content": ""}), *deltas, chunk({}, "stop"), last, with_done=True)
    return Exchange("openai", "gpt-4o", json.dumps(whole).encode(), pieces, payloads, text=TEXT)


def make_text() -> Exchange:
    head = {"id": "cmpl-Dx0XabcdefghijkLmnop", "object": "text_completion", "created": 1754902196, "model": "base-8b"}
    whole = {**head, "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}], "usage": COUNTS}
    chunks = [{**head, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]} for word in WORDS]
    last = {**head, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}], "usage": COUNTS}
    pieces, payloads = to_sse(*chunks, last, with_done=True)
    return Exchange("openai", "base-8b", json.dumps(whole).encode(), pieces, payloads, "text", TEXT)


def make_anthropic() -> Exchange:
    usage = {"input_tokens": 40, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    head = {"id": "msg_018EabcdefghijkLmnopqrs", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6"}
    whole = {**head, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "stop_sequence": None}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS]
    pieces, payloads = to_named_sse(
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 120}},
        {"type": "message_stop"},
    )
    body = json.dumps({**whole, "usage": {**usage, "output_tokens": 120}}).encode()
    return Exchange("anthropic", "claude-sonnet-4-6", body, pieces, payloads, text=TEXT)


def make_gemini() -> Exchange:
    counts = {"promptTokenCount": 40, "candidatesTokenCount": 120, "totalTokenCount": 160}

    def make_chunk(words: str, finish: str | None = None) -> dict[str, Any]:
        candidate = {"content": {"parts": [{"text": words}], "role": "model"}, "index": 0}
        end = {"finishReason": finish} if finish else {}
        tail = {"usageMetadata": counts, "modelVersion": "gemini-2.5-flash", "responseId": "r1abcdefghijkl"}
        return {"candidates": [{**candidate, **end}], **tail}

    pieces, payloads = to_sse(*(make_chunk(word) for word in WORDS), make_chunk("", "STOP"))
    return Exchange("gemini", "gemini-2.5-flash", json.dumps(make_chunk(TEXT, "STOP")).encode(), pieces, payloads, text=TEXT)


def make_cohere() -> Exchange:
    counts = {"input_tokens": 40, "output_tokens": 120}
    usage = {"billed_units": counts, "tokens": counts}
    message = {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}
    whole = {"id": "f17a5f6c-abcd", "message": message, "finish_reason": "COMPLETE", "usage": usage}
    deltas = [{"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}} for word in WORDS]
    pieces, payloads = to_named_sse(
        {"type": "message-start", "id": "f17a5f6c-abcd", "delta": {"message": {"role": "assistant", "content": []}}},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        *deltas,
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    )
    return Exchange("cohere", "command-a-03-2025", json.dumps(whole).encode(), pieces, payloads, text=TEXT)


def make_bedrock() -> Exchange:
    usage = {"inputTokens": 40, "outputTokens": 120, "totalTokens": 160}
    message = {"role": "assistant", "content": [{"text": TEXT}]}
    whole = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 900}}
    deltas = [("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdefghijkl"}) for word in WORDS]
    pieces, payloads = to_frames(
        ("messageStart", {"role": "assistant", "p": "abc"}),
        *deltas,
        ("contentBlockStop", {"contentBlockIndex": 0, "p": "abc"}),
        ("messageStop", {"stopReason": "end_turn", "p": "abc"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 900}, "p": "abc"}),
    )
    return Exchange("bedrock", "amazon.nova-lite-v1:0", json.dumps(whole).encode(), pieces, payloads, text=TEXT)


def make_ollama() -> Exchange:
    head = {"model": "llama3.2", "created_at": "2026-08-04T08:52:19.385406455-07:00"}
    end = {"done": True, "done_reason": "stop", "total_duration": 4883583458, "prompt_eval_count": 40, "eval_count": 120}
    whole = {**head, "message": {"role": "assistant", "content": TEXT}, **end}
    chunks = [{**head, "message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    pieces, payloads = to_lines(*chunks, {**head, "message": {"role": "assistant", "content": ""}, **end})
    return Exchange("ollama", "llama3.2", json.dumps(whole).encode(), pieces, payloads, text=TEXT)


MAKERS: Mapping[str, Callable[[], Exchange]] = {
    "openai": make_openai,
    "text": make_text,
    "anthropic": make_anthropic,
    "gemini": make_gemini,
    "cohere": make_cohere,
    "bedrock": make_bedrock,
    "ollama": make_ollama,
}

ADAPTERS_BY_PATH: Mapping[str, str] = {
    "/chat/completions": "openai",
    "/v1/messages": "anthropic",
    "enerateContent": "gemini",
    "/v2/chat": "cohere",
    "/converse": "bedrock",
}
"""Part of an address → the adapter for its answers."""


def read_recorded(folder: Path) -> Iterator[tuple[str, Exchange]]:
    """Yield the longest whole answer and the longest stream of each provider and format in a folder.

    Raises:
        BenchError: there are none.
    """
    bodies: dict[tuple[str, str], list[bytes]] = {}
    for path in sorted(folder.glob("*.json")):
        for item in json.loads(path.read_text()):
            adapter = next((adapter for part, adapter in ADAPTERS_BY_PATH.items() if part in item["request"]["uri"]), None)
            if adapter and item["response"]["status"] == 200:
                bodies.setdefault((path.stem, adapter), []).append(_read_body(item["response"]))
    if not bodies:
        raise BenchError(f"no recorded exchanges in {folder}")
    for (name, adapter), found in bodies.items():
        whole = max((body for body in found if body.startswith(b"{")), key=len, default=None)
        stream = max((body for body in found if not body.startswith(b"{")), key=len, default=b"")
        yield f"{name}, {adapter}", Exchange(adapter, "m", whole, *_split(stream, framed=adapter == "bedrock"))


def _read_body(answer: Mapping[str, Any]) -> bytes:
    if "base64" in answer:
        return base64.b64decode(answer["base64"])
    return (answer["text"] if "text" in answer else json.dumps(answer["json"])).encode()


def _split(stream: bytes, *, framed: bool) -> tuple[list[bytes], list[bytes]]:
    if not framed:
        pieces = [piece + b"\n\n" for piece in stream.replace(b"\r\n", b"\n").split(b"\n\n") if piece]
        data = [line[5:] for piece in pieces for line in piece.splitlines() if line.startswith(b"data:")]
        return pieces, [payload for payload in data if payload.strip() != b"[DONE]"]
    pieces, payloads = [], []
    while stream:
        size, head = unpack_from("!II", stream)
        pieces.append(stream[:size])
        payloads.append(stream[12 + head : size - 4])
        stream = stream[size:]
    return pieces, payloads
