"""Azure: OpenAI's format, at Azure's addresses and with its headers."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.core.sampling import Sampling
from fanout.core.schema import Query, Target
from fanout.providers.openai.azure import API_VERSION, Azure
from tests.support.openai_format import build_choice, build_chunk, encode_chunks
from tests.support.provider_calls import (
    KEY,
    build_adapter,
    build_call,
    collect_stream,
    encode_body,
    expect_answer,
    expect_failure,
    try_decode,
    try_stream,
)
from tests.support.upstream.canned import answer_with, serve_adapter

ENDPOINT = "https://acme.openai.azure.com"
TOKEN = "eyJhbGciOi.eyJhdWQi.c2lnbmF0dXJl"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def find_url(base_url: str, model: str = "my deployment/1", **more: Any) -> str:
    azure = build_adapter(Azure, base_url, **more)
    return str(azure.encode(build_call(azure, model), stream=False).url)


def test_the_address_names_the_deployment_and_the_version() -> None:
    """Both quoted; the row says which version, else it is the last dated one."""
    path = f"{ENDPOINT}/openai/deployments/my%20deployment%2F1/chat/completions?api-version="
    assert find_url(ENDPOINT) == path + API_VERSION
    assert find_url(f"{ENDPOINT}/openai") == path + API_VERSION
    assert find_url(ENDPOINT, headers={"Api-Version": "2025-04-01-preview"}) == path + "2025-04-01-preview"
    assert find_url(ENDPOINT, headers={"api-version": ""}) == path + API_VERSION


def test_text_has_an_address_of_its_own() -> None:
    azure = build_adapter(Azure, ENDPOINT)
    request = azure.encode(build_call(azure, "d", prompt="Once"), stream=False)
    assert request.url.path == "/openai/deployments/d/completions"


def test_the_ga_address_takes_no_version() -> None:
    """The deployment stands in the body alone."""
    assert find_url(f"{ENDPOINT}/openai/v1") == f"{ENDPOINT}/openai/v1/chat/completions"
    azure = build_adapter(Azure, f"{ENDPOINT}/openai/v1")
    assert encode_body(azure, build_call(azure, "d")) == {
        "model": "d",
        "stream": False,
        "messages": [{"role": "user", "content": "Hello"}],
    }


@pytest.mark.parametrize(
    ("settings", "own_key", "expected"),
    [
        ({}, None, {"api-key": KEY}),
        ({"key": TOKEN}, None, {"Authorization": f"Bearer {TOKEN}"}),
        ({}, "my-own-key", {"api-key": "my-own-key"}),
        ({}, TOKEN, {"Authorization": f"Bearer {TOKEN}"}),
        ({"key": TOKEN}, "my-own-key", {"api-key": "my-own-key"}),
        ({"key": None, "headers": {"Authorization": "Bearer x"}}, None, {"Authorization": "Bearer x"}),
        ({"key": None}, None, {}),
    ],
    ids=str,
)
def test_a_key_and_a_token_have_a_header_each(settings: dict[str, Any], own_key: str | None, expected: dict[str, str]) -> None:
    """Never both: Azure would look at one of them, and the other would be shown to it for nothing."""
    azure = build_adapter(Azure, ENDPOINT, **settings)
    headers = azure.encode(build_call(azure, own_key=own_key), stream=False).headers
    assert {name: headers[name] for name in ("api-key", "Authorization") if name in headers} == expected
    assert "api-version" not in headers


def test_deployments_named_like_openais_models_take_what_those_take() -> None:
    """Behind a gateway of any name, too."""
    azure = build_adapter(Azure, "https://gateway.example/azure")
    query = Query(messages=build_call(azure).query.messages, sampling=Sampling(max_tokens=9, temperature=0.5))
    fitted = azure.fit(Target("o3", "o3", "up", "o3"), query)
    assert (fitted.sent, fitted.ignored) == ({"max_completion_tokens": 9}, ("temperature",))


def test_a_prompt_that_the_filter_blocks_is_refused_for_its_content() -> None:
    """And not tried again. Source: learn.microsoft.com, content filtering."""
    azure = build_adapter(Azure, ENDPOINT)
    error = {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
    failure = expect_failure(try_decode(azure, build_call(azure), 400, {"error": error}, apim_request_id="f00d"))
    assert (failure.kind, failure.code, failure.param, failure.request_id) == ("content_filter",) * 2 + ("prompt", "f00d")


def test_an_answer_that_the_filter_cut_has_its_reason() -> None:
    azure = build_adapter(Azure, ENDPOINT)
    body = {
        "model": "gpt-4o-2024-11-20",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
        "choices": [build_choice("Hi", "content_filter", content_filter_results={"hate": {"filtered": True}})],
        "usage": USAGE,
    }
    completion = expect_answer(try_decode(azure, build_call(azure), 200, body))
    assert completion.choices[0].finish_reason == "content_filter"


def test_a_stream_may_begin_without_choices() -> None:
    azure = build_adapter(Azure, ENDPOINT)
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "model": ""}
    result = try_stream(
        azure,
        build_call(azure),
        [encode_chunks(first, build_chunk("Hi"), build_chunk(finish="stop"), {"choices": [], "usage": USAGE})],
    )
    assert isinstance(result, tuple)
    assert result[1].choices[0].message.text == "Hi"
    assert result[1].usage
    assert result[1].usage.output_tokens == 2


@pytest.mark.parametrize(
    ("headers", "delay_s"), [({"retry_after_ms": "250", "retry_after": "9"}, 0.25), ({"retry_after": "9"}, 9)]
)
def test_the_delay_of_a_refusal_is_read(headers: dict[str, str], delay_s: float) -> None:
    azure = build_adapter(Azure, ENDPOINT)
    error = {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded the call rate limit."}
    failure = expect_failure(try_decode(azure, build_call(azure), 429, {"error": error}, **headers))
    assert (failure.kind, failure.retry_after_s) == ("rate_limit", delay_s)


def test_a_refusal_shows_neither_key_nor_address() -> None:
    azure = build_adapter(Azure, ENDPOINT, key="0123456789abcdef0123456789abcdef", headers={"api-version": "2024-10-21"})
    answer = "version 2024-10-21 at acme.openai.azure.com refused 0123456789abcdef0123456789abcdef"
    failure = expect_failure(try_decode(azure, build_call(azure), 400, {"error": {"message": answer}}))
    assert failure.message == "version 2024-10-21 at [host] refused [key]"


async def test_a_call_works_over_the_network() -> None:
    """The path arrives as it was written, whole and streamed."""
    stream = encode_chunks(build_chunk("Hi"), build_chunk(finish="stop"))
    for body, kind in (({"choices": [build_choice("Hi")]}, "application/json"), (stream, "text/event-stream")):
        async with serve_adapter(Azure, answer_with(body, content_type=kind)) as (azure, served):
            call = build_call(azure, "a/b:c")
            completion = await azure.complete(call) if kind == "application/json" else (await collect_stream(azure, call))[1]
        ((path, headers, _),) = served.requests
        assert completion.choices[0].message.text == "Hi"
        assert path == f"/openai/deployments/a%2Fb%3Ac/chat/completions?api-version={API_VERSION}"
        assert headers["api-key"] == KEY
