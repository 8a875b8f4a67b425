"""Streams as the vendors' documents show them, for features missing in the recorded ones: thoughts, tools, caches, plans.

The answer of each stream is beside it, as the vendor's own client (anthropic 0.125.0, google-genai 3.3.0, cohere 7.3.1)
reads it from the same bytes.
"""

from __future__ import annotations

import json
from typing import Any


def encode_named(*events: dict[str, Any]) -> bytes:
    """Return server-sent events named by their type, as Anthropic and Cohere send them."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def encode_unnamed(*events: dict[str, Any]) -> bytes:
    """Return server-sent events as Google sends them."""
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in events).encode()


def _build_block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


CLAUDE_USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 3000,
    "output_tokens": 1,
    "service_tier": "standard",
}
CLAUDE = encode_named(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-6",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": CLAUDE_USAGE,
        },
    },
    {"type": "ping"},
    *_build_block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Which city? "},
        {"type": "thinking_delta", "thinking": "Paris."},
        {"type": "signature_delta", "signature": "EqQB"},
    ),
    *_build_block(1, {"type": "redacted_thinking", "data": "EmwKAhgB"}),
    *_build_block(
        2,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Let me look — "},
        {"type": "text_delta", "text": "é😀"},
    ),
    *_build_block(
        3,
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"city": "Par'},
        {"type": "input_json_delta", "partial_json": 'is"}'},
    ),
    *_build_block(4, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 11,
            "cache_creation_input_tokens": 200,
            "cache_read_input_tokens": 3000,
            "output_tokens": 89,
            "output_tokens_details": {"thinking_tokens": 41},
        },
    },
    {"type": "message_stop"},
)
CLAUDE_ANSWER = {
    "text": "Let me look — é😀",
    "reasoning": "Which city? Paris.",
    "calls": [("toolu_1", "weather", {"city": "Paris"}), ("toolu_2", "now", {})],
    "native": "tool_use",
    "tokens": (11 + 200 + 3000, 89, 3000, 200, 41),
}


def _build_candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}


def _build_gemini(candidate: dict[str, Any], **counts: int) -> dict[str, Any]:
    usage = {"promptTokenCount": 2100, "cachedContentTokenCount": 2048, **counts}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.6-flash", "responseId": "r1"}


GEMINI = encode_unnamed(
    _build_gemini(_build_candidate({"text": "**Looking**", "thought": True}), thoughtsTokenCount=9, totalTokenCount=2109),
    _build_gemini(_build_candidate({"text": "Let me "}), candidatesTokenCount=2, thoughtsTokenCount=30, totalTokenCount=2132),
    _build_gemini(
        _build_candidate(
            {"text": "look é😀"},
            {"functionCall": {"name": "weather", "args": {"city": "Paris"}, "id": "fc-1"}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "now"}},
        ),
        candidatesTokenCount=17,
        thoughtsTokenCount=30,
        totalTokenCount=2147,
    ),
    _build_gemini(
        {"content": {"role": "model"}, "index": 0, "finishReason": "STOP"},
        candidatesTokenCount=18,
        thoughtsTokenCount=30,
        totalTokenCount=2148,
    ),
)
GEMINI_ANSWER = {
    "text": "Let me look é😀",
    "reasoning": "**Looking**",
    "calls": [("fc-1", "weather", {"city": "Paris"}), ("fanout_call_1", "now", {})],
    "native": "STOP",
    "tokens": (2100, 18 + 30, 2048, None, 30),
}


def _build_message(**message: Any) -> dict[str, Any]:
    return {"delta": {"message": message}}


COHERE = encode_named(
    {"type": "message-start", "id": "29f1", "delta": {"message": {"role": "assistant"}}},
    {"type": "tool-plan-delta", **_build_message(tool_plan="I will ")},
    {"type": "tool-plan-delta", **_build_message(tool_plan="look. ")},
    {"type": "content-start", "index": 0, **_build_message(content={"type": "thinking", "thinking": ""})},
    {"type": "content-delta", "index": 0, **_build_message(content={"thinking": "Paris."})},
    {"type": "content-end", "index": 0},
    {"type": "content-start", "index": 1, **_build_message(content={"type": "text", "text": ""})},
    {"type": "content-delta", "index": 1, **_build_message(content={"text": "Let me "})},
    {"type": "content-delta", "index": 1, **_build_message(content={"text": "look é😀"})},
    {"type": "citation-start", "index": 0, **_build_message(citations={"start": 0, "end": 3, "text": "Let", "sources": []})},
    {"type": "citation-end", "index": 0},
    {"type": "content-end", "index": 1},
    {
        "type": "tool-call-start",
        "index": 0,
        **_build_message(tool_calls={"id": "w_1", "type": "function", "function": {"name": "weather", "arguments": ""}}),
    },
    {"type": "tool-call-delta", "index": 0, **_build_message(tool_calls={"function": {"arguments": '{"city": '}})},
    {"type": "tool-call-delta", "index": 0, **_build_message(tool_calls={"function": {"arguments": '"Paris"}'}})},
    {"type": "tool-call-end", "index": 0},
    {
        "type": "message-end",
        "delta": {
            "finish_reason": "TOOL_CALL",
            "usage": {
                "billed_units": {"input_tokens": 63, "output_tokens": 27},
                "tokens": {"input_tokens": 1460.0, "output_tokens": 60.0},
                "cached_tokens": 1216.0,
            },
        },
    },
)
COHERE_ANSWER = {
    "text": "Let me look é😀",
    "reasoning": "I will look. Paris.",
    "calls": [("w_1", "weather", {"city": "Paris"})],
    "native": "TOOL_CALL",
    "tokens": (1460, 60, 1216, None, None),
}
