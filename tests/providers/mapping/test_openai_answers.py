"""Whole answers in OpenAI's shape, whoever sent them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.core.schema import TokenLogprob
from tests.support.openai_format import CALL, UP, build_choice, build_openai, decode_answer, decode_failure
from tests.support.provider_calls import KEY, build_call, replay_stream


def test_a_text_answer_is_read() -> None:
    """Its four parallel arrays become the one shape of this project, the alternatives best first."""
    logprobs = {
        "tokens": ["Hel", "lo"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"la": -2.0, "lo": -0.5}],
        "text_offset": [0, 3],
    }
    completion = decode_answer({"choices": [{"text": "Hello", "index": 0, "logprobs": logprobs, "finish_reason": "length"}]})
    (choice,) = completion.choices
    assert (choice.message.text, choice.finish_reason) == ("Hello", "length")
    assert choice.logprobs == (TokenLogprob("Hel", None), TokenLogprob("lo", -0.5, (("lo", -0.5), ("la", -2.0))))


def test_a_chat_answer_with_logprobs_is_read() -> None:
    """Likewise; a value that is no number is none."""
    content = [
        {
            "token": "Hi",
            "logprob": -0.1,
            "bytes": [72, 105],
            "top_logprobs": [{"token": "Yo", "logprob": -3}, {"token": "Hi", "logprob": -0.1}],
        },
        {"token": "!", "logprob": None, "bytes": [900]},
    ]
    (choice,) = decode_answer({"choices": [build_choice(logprobs={"content": content, "refusal": None})]}).choices
    assert choice.logprobs == (TokenLogprob("Hi", -0.1, (("Hi", -0.1), ("Yo", -3.0)), b"Hi"), TokenLogprob("!", None))


def test_both_shapes_of_logprobs_are_read_on_both_paths() -> None:
    """llama.cpp sends chat's for text, Together text's for chat."""
    text = {"index": 0, "text": "a", "finish_reason": "stop", "logprobs": {"content": [{"token": "a", "logprob": -1}]}}
    assert decode_answer({"choices": [text]}).choices[0].logprobs == (TokenLogprob("a", -1.0),)
    chat = build_choice("a", logprobs={"tokens": ["a"], "token_logprobs": [-1]})
    assert decode_answer({"choices": [chat]}).choices[0].logprobs == (TokenLogprob("a", -1.0),)


def test_choices_are_sorted_by_their_indices() -> None:
    """Whatever the order they come in."""
    body = {"choices": [build_choice("b") | {"index": 1}, build_choice("a")]}
    assert [choice.message.text for choice in decode_answer(body).choices] == ["a", "b"]


@pytest.mark.parametrize(
    ("message", "text", "reasoning", "refusal"),
    [
        ({"content": None, "refusal": "I cannot"}, "", None, "I cannot"),
        ({}, "", None, None),
        ({"content": "a", "reasoning_content": "hm"}, "a", "hm", None),
        ({"content": "a", "reasoning": "hm", "refusal": ""}, "a", "hm", None),
        ({"content": "a", "reasoning": {"effort": 1}}, "a", None, None),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]},
                    {"type": "text", "text": "a"},
                    "b",
                ]
            },
            "ab",
            "hm",
            None,
        ),
        ({"content": [{"type": "reference", "reference_ids": [1]}, {"text": "a"}]}, "a", None, None),
    ],
    ids=str,
)
def test_text_reasoning_and_refusal_of_a_message_are_read(
    message: dict[str, Any], text: str, reasoning: str | None, refusal: str | None
) -> None:
    """Text, reasoning and refusal, however the host spells them."""
    parsed = decode_answer({"choices": [{"message": message, "finish_reason": "stop"}]}).choices[0].message
    assert (parsed.text, parsed.reasoning, parsed.refusal) == (text, reasoning, refusal)


def test_tool_calls_are_kept_whole() -> None:
    """With what a host adds to them, without the position; the older `function_call` is one of them."""
    tool = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}
    message = {"content": None, "tool_calls": [{**tool, "index": 0}]}
    assert decode_answer({"choices": [{"message": message}]}).choices[0].message.tool_calls == (tool,)
    older = {"content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert decode_answer({"choices": [{"message": older}]}).choices[0].message.tool_calls[0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("word", "finish", "native"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("eos", "stop", "eos"),
        ("model_length", "length", "model_length"),
        ("sensitive", "content_filter", "sensitive"),
        ("abort", None, "abort"),
        (None, None, None),
        (7, None, None),
    ],
)
def test_finish_reasons_are_translated(word: Any, finish: str | None, native: str | None) -> None:
    """An unknown one is never turned into a known one, and kept."""
    (choice,) = decode_answer({"choices": [build_choice(finish=word)]}).choices
    assert (choice.finish_reason, choice.native_finish_reason) == (finish, native)


def test_a_routers_native_finish_reason_is_kept() -> None:
    """OpenRouter tells the word of the model's own host."""
    (choice,) = decode_answer({"choices": [build_choice(native_finish_reason="completed")]}).choices
    assert (choice.finish_reason, choice.native_finish_reason) == ("stop", "completed")


@pytest.mark.parametrize("finish", ["error", "network_error", "insufficient_system_resource"])
def test_an_answer_that_broke_off_is_a_failure(finish: str) -> None:
    """Some hosts say so only in the finish reason."""
    failure = decode_failure({"choices": [build_choice(finish=finish)]})
    assert (failure.kind, failure.code) == ("server", finish)


def test_the_request_id_is_taken_from_the_headers() -> None:
    """The id by any of its names, else the answer's own."""
    body = {"id": "chatcmpl-1", "model": "m-2026", "system_fingerprint": "fp", "choices": [build_choice()]}
    completion = decode_answer(body, apim_request_id="req-9")
    assert (completion.request_id, completion.model, completion.system_fingerprint) == ("req-9", "m-2026", "fp")
    assert decode_answer(body).request_id == "chatcmpl-1"


@pytest.mark.parametrize(
    ("body", "kind", "code", "status"),
    [
        ({"error": {"code": 502, "message": "Bad", "metadata": {"provider_name": "X"}}, "choices": None}, "server", None, 502),
        ({"error": {"code": 429, "message": "Slow"}}, "rate_limit", None, 429),
        ({"error": "overloaded", "error_type": "overloaded"}, "rate_limit", "overloaded", None),
        (
            {"object": "error", "message": "m", "type": "invalid_request_error", "code": 400},
            "bad_request",
            "invalid_request_error",
            400,
        ),
        ({"choices": [build_choice(error={"code": 403, "message": "m"})]}, "auth", "permission_denied", 403),
        ([{"error": {"code": 404, "message": "m", "status": "NOT_FOUND"}}], "not_found", "NOT_FOUND", 404),
        ({"choices": []}, "malformed", "no_choices", None),
        ({"choices": None}, "malformed", "no_choices", None),
        ({"choices": {"0": {}}}, "malformed", "no_choices", None),
        ({}, "malformed", "no_choices", None),
        ([], "malformed", "unexpected_shape", None),
        ("hello", "malformed", "unexpected_shape", None),
        (b"", "malformed", "invalid_json", None),
        (b"<html>", "malformed", "invalid_json", None),
        (b'{"choices": [', "malformed", "invalid_json", None),
        (b"[" * 100_000, "malformed", "invalid_json", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_answer_of_status_200_may_be_a_failure(body: Any, kind: str, code: str | None, status: int | None) -> None:
    """An error all the same, or nothing that can be shown."""
    failure = decode_failure(body)
    assert (failure.kind, failure.code, failure.status) == (kind, code, status)


@pytest.mark.parametrize(
    "body", [{"detail": f"No model at {KEY}"}, {"message": f"No model at {KEY}", "code": 400, "status": "error"}]
)
def test_a_body_without_an_answer_keeps_its_own_sentence(body: Any) -> None:
    failure = decode_failure(body)
    assert (failure.code, failure.message) == ("no_choices", "`up` sent an answer without a choice: No model at [key]")


def test_a_null_error_is_no_error() -> None:
    """Some hosts send the field always."""
    assert decode_answer({"error": None, "choices": [build_choice("a")]}).choices[0].message.text == "a"


def test_half_a_character_does_not_fail_an_answer() -> None:
    """Lone surrogates, bytes that are no UTF-8 and a byte order mark: what is no text becomes U+FFFD."""
    body = b'\xef\xbb\xbf{"choices": [{"message": {"content": "a\\ud83d b\xff \\ud83d\\ude00"}, "finish_reason": "stop"}]}'
    assert decode_answer(body).choices[0].message.text == "a\ufffd b\ufffd 😀"


def test_a_failure_shows_neither_key() -> None:
    """Neither the configured nor the caller's own, nor the row's headers."""
    provider = build_openai(headers={"X-Secret": "header-secret-1"})
    call = build_call(provider, own_key="own-key-0123")
    body = json.dumps({"error": {"message": f"{KEY} own-key-0123 header-secret-1 http://127.0.0.1:9/v1"}}).encode()
    with pytest.raises(ProviderError) as caught:
        provider.decode(call, 400, {}, body)
    assert caught.value.failure.message == "[key] [key] [key] [address]"


VALUES = (
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats() | st.sampled_from(["", "a", "stop", "error", "text", "429"])
)
NAMES = st.sampled_from(
    [
        *("id", "model", "choices", "index", "message", "delta", "text", "content", "refusal", "reasoning", "tool_calls"),
        *("function_call", "function", "name", "arguments", "type", "thinking", "logprobs", "tokens", "token_logprobs"),
        *("top_logprobs", "token", "logprob", "finish_reason", "native_finish_reason", "error", "code", "usage", "detail"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens", "cost", "msg", "loc"),
    ]
)
SHAPES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
ANSWERS = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(SHAPES, max_size=3), "usage": SHAPES, "error": SHAPES, "id": SHAPES}
)


@given(ANSWERS | SHAPES, st.sampled_from([200, 201, 400, 429, 500]))
def test_any_body_is_an_answer_or_a_failure(body: Any, status: int) -> None:
    """Every field may be missing or of another type."""
    data = json.dumps(body).encode()
    with suppress(ProviderError):
        UP.decode(CALL, status, {}, data)
    with suppress(ProviderError):
        replay_stream(UP, CALL, [b"data: " + data + b"\n\n"])
