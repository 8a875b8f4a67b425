"""Mistral: OpenAI's format by its row alone, strictly: what it does not know it refuses with a 422."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.config.settings import load_settings
from fanout.core.schema import Completion
from fanout.providers.openai.adapter import OpenAi
from tests.support.openai_format import encode_chunks
from tests.support.provider_calls import build_adapter, build_call, encode_body, expect_failure, try_decode, try_stream

# Source: mistralai 3.7.0 `models/chatcompletionrequest.py`; of `repetition_penalty`, `top_k` and `logprobs` the API's own
# description (2026-08) knows nothing yet.
CHAT = {
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata", "n"),
    *("response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "parallel_tool_calls"),
    *("prediction", "reasoning_effort", "prompt_mode", "guardrails", "safe_prompt", "service_tier", "prompt_cache_key"),
}
FIM = {"model", "prompt", "suffix", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata"}
"""Source: mistralai 3.7.0 `models/fimcompletionrequest.py`."""
EVERYTHING: dict[str, Any] = {
    "max_tokens": 9,
    "temperature": 1.9,
    "top_p": 0.5,
    "top_k": 3,
    "n": 2,
    "best_of": 3,
    "seed": 7,
    "stop": ("a",),
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1.0},
    "logprobs": 2,
    "echo": True,
    "suffix": "x",
    "user": "me",
}


def build_mistral(name: str) -> OpenAi:
    """A provider of the shipped rows."""
    settings = load_settings(environ={}).providers.get(name)
    if settings is None:
        pytest.skip(f"THE ROW `{name}` IS MISSING in providers.json")
    return build_adapter(OpenAi, settings.base_url, parameters=settings.row.parameters)


def test_a_chat_request_has_known_fields_only() -> None:
    """The seed under its name there; a stream without `stream_options`."""
    mistral = build_mistral("mistral")
    call = build_call(mistral, "mistral-small-latest", passthrough={"stream_options": {"include_usage": True}}, **EVERYTHING)
    body = encode_body(mistral, call, stream=True)
    assert set(body) <= CHAT
    assert (body["random_seed"], body["temperature"], body["stream"]) == (7, 1.5, True)
    assert call.fitted.adjusted == {"temperature": (1.9, 1.5)}
    assert {"logit_bias", "logprobs", "user", "top_k", "repetition_penalty"} <= set(call.fitted.ignored)


def test_code_is_filled_in_at_an_address_of_its_own() -> None:
    """`/fim/completions` takes a prompt and what stands behind the gap."""
    codestral = build_mistral("codestral")
    call = build_call(codestral, "codestral-latest", prompt="def f(", **EVERYTHING)
    request = codestral.encode(call, stream=True)
    body = encode_body(codestral, call, stream=True)
    assert str(request.url) == "https://codestral.mistral.ai/v1/fim/completions"
    assert set(body) <= FIM
    assert (body["prompt"], body["suffix"], body["random_seed"]) == ("def f(", "x", 7)


def test_filled_in_code_comes_as_a_message() -> None:
    """Whole and streamed."""
    codestral = build_mistral("codestral")
    call = build_call(codestral, "codestral-latest", prompt="def f(")
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x):"}, "finish_reason": "stop"}
    completion = try_decode(codestral, call, 200, {"id": "f1", "model": "codestral-2508", "choices": [choice], "usage": usage})
    pieces = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "x):"}, "finish_reason": "stop"}], "usage": usage},
    ]
    result = try_stream(codestral, call, [encode_chunks(*pieces)])
    assert isinstance(completion, Completion)
    assert isinstance(result, tuple)
    assert completion.choices == result[1].choices
    assert completion.usage == result[1].usage


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
            "bad_request",
            "seed: Extra inputs are not permitted",
        ),
        (
            422,
            {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Too many"}]}, "type": "x", "code": None},
            "bad_request",
            "n: Too many",
        ),
        (
            400,
            {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"},
            "bad_request",
            "Invalid model: x",
        ),
        (402, {"object": "error", "message": "Pay", "type": "x"}, "quota", "Pay"),
        (429, {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited"}, "rate_limit", None),
    ],
)
def test_flat_and_fastapi_errors_are_read(status: int, body: Any, kind: str, message: str | None) -> None:
    mistral = build_mistral("mistral")
    failure = expect_failure(try_decode(mistral, build_call(mistral), status, body, mistral_correlation_id="c-1"))
    assert (failure.kind, failure.request_id) == (kind, "c-1")
    assert message is None or failure.message == message
