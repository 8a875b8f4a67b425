"""Calls of functions without arguments: in every wire format their text is an empty object, which clients can parse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fanout.providers.transport.http import HttpProvider
from tests.support.bedrock_format import START, build_answer, encode_event
from tests.support.bedrock_format import UP as BEDROCK
from tests.support.openai_format import UP as OPENAI
from tests.support.openai_format import build_chunk, encode_chunks
from tests.support.provider_calls import build_call, decode, expect_answer, try_stream
from tests.support.rich_answers import ANTHROPIC, COHERE, RESPONSES
from tests.support.vendor_streams import encode_named

EMPTY = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
ITEM = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": ""}
RESPONSE = {"object": "response", "status": "completed", "output": [ITEM]}
CASES: Mapping[str, tuple[HttpProvider, Any, bytes]] = {
    "OpenAI": (
        OPENAI,
        {"choices": [{"message": {"content": None, "tool_calls": [EMPTY]}, "finish_reason": "tool_calls"}]},
        encode_chunks(build_chunk(tool_calls=[{"index": 0, **EMPTY}]), build_chunk(finish="tool_calls")),
    ),
    "Anthropic": (
        ANTHROPIC,
        {"content": [USE], "stop_reason": "tool_use"},
        encode_named(
            {"type": "message_start", "message": {}},
            {"type": "content_block_start", "index": 0, "content_block": USE},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ),
    ),
    "Cohere": (
        COHERE,
        {"message": {"tool_calls": [EMPTY]}, "finish_reason": "TOOL_CALL"},
        encode_named(
            {"type": "message-start"},
            {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": EMPTY}}},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ),
    ),
    "Responses": (
        RESPONSES,
        RESPONSE,
        encode_named(
            {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
            {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
            {"type": "response.completed", "response": RESPONSE},
        ),
    ),
    "Bedrock": (
        BEDROCK,
        {
            **build_answer(stop="tool_use"),
            "output": {"message": {"content": [{"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}]}},
        },
        START
        + encode_event("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c", "name": "f"}}})
        + encode_event("messageStop", {"stopReason": "tool_use"}),
    ),
}


@pytest.mark.parametrize(("provider", "whole", "stream"), CASES.values(), ids=CASES)
def test_a_call_without_arguments_has_an_empty_object(provider: HttpProvider, whole: Any, stream: bytes) -> None:
    """Whole, and in the pieces of a stream as at its end."""
    call = build_call(provider)
    result = try_stream(provider, call, [stream])
    for completion in (decode(provider, call, 200, whole), expect_answer(result)):
        (made,) = completion.choices[0].message.tool_calls
        assert (made["id"], made["function"]) == ("c", {"name": "f", "arguments": "{}"})
    assert isinstance(result, tuple)
    pieces = [piece["function"] for delta in result[0] for piece in delta.tool_calls]
    assert "".join(piece.get("arguments", "") for piece in pieces) == "{}"
