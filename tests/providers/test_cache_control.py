"""Marks of the cache, and other fields of messages: sent where the format has them, else reported."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from fanout.config.providers_file import ParametersRow
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.mapping.messages import MAX_LEFT_OUT, MAX_NAME_CHARS
from fanout.providers.ollama import Ollama
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.openai.responses import Responses
from fanout.providers.scale import Scale
from fanout.providers.scale_llm_engine import LlmEngine
from tests.support.provider_calls import build_adapter, build_call, encode_body

PNG = b"\x89PNG\r\n\x1a\n"
MARK = {"type": "ephemeral", "ttl": "1h"}
POINT = {"cachePoint": {"type": "default", "ttl": "1h"}}
MARKED = {"cache_control": MARK}
IMAGE = ImagePart(f"data:image/png;base64,{b64encode(PNG).decode()}", extra=MARKED)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, **MARKED}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CONVERSATION = (
    Message("system", (TextPart("Be "), TextPart("brief.", MARKED), TextPart(" Thanks."))),
    Message("user", (TextPart("Look", MARKED), IMAGE)),
    Message("assistant", "I see", MARKED | {"tool_calls": [CALL]}),
    Message("tool", "found", {"tool_call_id": "c", **MARKED}),
    Message("user", "And now?", MARKED),
)
BEDROCK_HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"


def test_anthropic_gets_marks_where_they_stand() -> None:
    provider = build_adapter(Anthropic)
    call = build_call(provider, messages=CONVERSATION, passthrough={"tools": [TOOL], "cache_control": MARK}, max_tokens=9)
    body = encode_body(provider, call)
    assert body["system"] == [{"type": "text", "text": "Be brief.", **MARKED}, {"type": "text", "text": " Thanks."}]
    (look, image), (said, use), (result,), (asked,) = (message["content"] for message in body["messages"])
    assert [block.get("cache_control") for block in (look, image, said, use, result, asked)] == [
        *(MARK, MARK, None, MARK, MARK, MARK),
    ]
    assert (body["tools"][0]["cache_control"], body["cache_control"]) == (MARK, MARK)
    assert call.fitted.ignored == ()


def test_bedrock_gets_them_as_points_behind_what_they_mark() -> None:
    provider = build_adapter(Bedrock, BEDROCK_HOST)
    call = build_call(provider, messages=CONVERSATION, passthrough={"tools": [TOOL]})
    body = encode_body(provider, call)
    assert body["system"] == [{"text": "Be brief."}, POINT, {"text": " Thanks."}]
    assert [next(iter(block)) for turn in body["messages"] for block in turn["content"]] == [
        *("text", "cachePoint", "image", "cachePoint", "text", "toolUse", "cachePoint", "toolResult", "cachePoint"),
        *("text", "cachePoint"),
    ]
    assert [next(iter(tool)) for tool in body["toolConfig"]["tools"]] == ["toolSpec", "cachePoint"]
    assert call.fitted.ignored == ()


def test_hosts_of_openais_format_get_them_unchanged() -> None:
    provider = build_adapter(OpenAi)
    call = build_call(provider, messages=CONVERSATION, passthrough={"tools": [TOOL]})
    body = encode_body(provider, call)
    assert body["messages"][1]["content"][0] == {"type": "text", "text": "Look", **MARKED}
    assert (body["tools"], body["messages"][4]["cache_control"], call.fitted.ignored) == ([TOOL], MARK, ())


@pytest.mark.parametrize("make", [Cohere, Gemini, Ollama, Responses, Scale, LlmEngine])
def test_other_formats_report_them(make: Callable[..., Any]) -> None:
    provider = build_adapter(make)
    for messages in ((Message("user", (TextPart("Hi", MARKED),)),), (Message("user", "Hi", MARKED),)):
        assert build_call(provider, messages=messages).fitted.ignored == ("cache_control",)
        assert "cache_control" not in str(encode_body(provider, build_call(provider, messages=messages)))


@pytest.mark.parametrize("make", [Cohere, Gemini, Ollama, Responses])
def test_marks_of_tools_are_reported_once(make: Callable[..., Any]) -> None:
    provider = build_adapter(make)
    call = build_call(provider, messages=(Message("user", "Hi", MARKED),), passthrough={"tools": [TOOL]})
    assert call.fitted.ignored == ("cache_control",)
    assert "cache_control" not in str(encode_body(provider, call))


@pytest.mark.parametrize("make", [Anthropic, Cohere, Gemini, Ollama, Responses])
def test_fields_that_a_format_lacks_are_reported(make: Callable[..., Any]) -> None:
    """Empty ones lose nothing."""
    provider = build_adapter(make)
    past = Message("assistant", "Hi", {"reasoning_content": "hm", "refusal": "", "annotations": []})
    asked = Message("user", (TextPart("And?", {"citations": {"enabled": True}}),))
    ignored = build_call(provider, messages=(past, asked), max_tokens=9).fitted.ignored
    assert ignored == ("messages.reasoning_content", "messages.content.citations")


def test_what_is_reported_has_bounds() -> None:
    """The caller chooses the names, and every answer repeats them."""
    extra = {f"{number}{'x' * 999}": 1 for number in range(999)}
    ignored = build_call(build_adapter(Gemini), messages=(Message("user", "Hi", extra),)).fitted.ignored
    assert len(ignored) == MAX_LEFT_OUT
    assert max(map(len, ignored)) == MAX_NAME_CHARS


@pytest.mark.parametrize(
    ("make", "address", "expected"),
    [
        (
            Anthropic,
            "http://127.0.0.1:9",
            [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "eA=="},
                {"type": "text", "text": "Hi"},
            ],
        ),
        (
            Bedrock,
            BEDROCK_HOST,
            [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"reasoningContent": {"redactedContent": "eA=="}},
                {"text": "Hi"},
            ],
        ),
    ],
)
def test_signed_thoughts_go_back_to_the_model(make: Callable[..., Any], address: str, expected: list[Any]) -> None:
    """As they came: without the signature, the model does not take them."""
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "eA=="}]
    provider = build_adapter(make, address)
    messages = (Message("user", "Hello"), Message("assistant", "Hi", {"thinking_blocks": blocks}), Message("user", "And?"))
    call = build_call(provider, messages=messages, max_tokens=9)
    assert encode_body(provider, call)["messages"][1]["content"] == expected
    assert call.fitted.ignored == ()


def test_a_row_may_drop_the_field() -> None:
    provider = build_adapter(Anthropic, parameters=ParametersRow(drop=["cache_control"]))
    call = build_call(provider, passthrough={"cache_control": MARK}, max_tokens=9)
    assert call.fitted.ignored == ("cache_control",)
