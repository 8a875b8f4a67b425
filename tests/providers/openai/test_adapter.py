"""OpenAI's wire format without a socket: what is sent, and what answers recorded from many hosts mean."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from fanout.config.providers_file import ParametersRow
from fanout.core.errors import ConfigError, ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Completion, Failure, Query, Target
from tests.support.openai_format import CALL, UP, build_openai
from tests.support.provider_calls import KEY, build_call, encode_body, replay_stream
from tests.support.recordings import RecordedExchange, load_recordings

HOSTS = ("openai", "groq", "mistral", "openrouter", "deepseek", "cerebras", "huggingface", "zai", "gemini")

# What a person reads in the recordings: text (or its beginning), finish reason, tokens in and out, of them reasoning.
WHOLE: dict[str, tuple[str, str, int, int, int | None]] = {
    "openai-0-200": ("Paris.", "stop", 13, 11, 0),
    "groq-0-200": ("Hello! How can I assist you today?", "stop", 48, 8, None),
    "mistral-0-200": ("4", "stop", 28, 2, None),
    "openrouter-0-200": ("Hello! How can I help you today?", "stop", 8, 15, 0),
    "deepseek-0-200": ("Let me load the dice rolling capability!", "tool_calls", 563, 116, 60),
    "cerebras-0-200": ("2 + 2 = 4.", "stop", 43, 9, None),
    "huggingface-0-200": ("", "tool_calls", 608, 30, None),
    "zai-0-200": ("2 + 2 = 4", "stop", 20, 67, 58),
    "gemini-0-200": ("The current time is Noon.", "stop", 66, 34, 28),
}
STREAMED: dict[str, tuple[str, str, int, int, int | None]] = {
    "openai-3-200": ("", "tool_calls", 53, 15, 0),
    "groq-3-200": ("", "tool_calls", 304, 49, 23),
    "mistral-1-200": ("To cross the street safely, follow these steps:", "stop", 10, 232, None),
    "deepseek-1-200": ("Hello there! 😊 How can I help you today?", "stop", 6, 212, 198),
    "huggingface-1-200": ("Paris", "stop", 40, 2, None),
    "zai-1-200": ("4", "stop", 13, 564, 561),
}


def test_a_chat_call_sends_its_messages() -> None:
    """Parts and whatever else a message carries included; no content is an explicit null."""
    messages = (
        Message("system", "Be brief", {"name": "boss"}),
        Message("user", (TextPart("What is this?"), ImagePart("https://x/y.png", "low"), ImagePart("data:,"))),
        Message("assistant", None, {"tool_calls": [{"id": "1"}]}),
        Message("tool", "Noon", {"tool_call_id": "1"}),
    )
    assert encode_body(UP, build_call(UP, "gpt-x", messages=messages)) == {
        "model": "gpt-x",
        "stream": False,
        "messages": [
            {"role": "system", "content": "Be brief", "name": "boss"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:,"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "Noon", "tool_call_id": "1"},
        ],
    }


def test_text_and_chat_have_their_own_addresses_and_fields() -> None:
    """Below the base address of the row."""
    text = build_call(UP, prompt="Once", max_tokens=5, logprobs=2, echo=True)
    chat = build_call(UP, max_tokens=5, logprobs=2, echo=True)
    assert str(UP.encode(text, stream=False).url) == "http://127.0.0.1:9/v1/completions"
    sent = {"model": "m", "prompt": "Once", "max_tokens": 5, "logprobs": 2, "echo": True, "stream": False}
    assert encode_body(UP, text) == sent
    assert str(UP.encode(chat, stream=False).url) == "http://127.0.0.1:9/v1/chat/completions"
    assert encode_body(UP, chat)["top_logprobs"] == 2
    assert chat.fitted.ignored == ("echo",)


def test_token_ids_and_parts_of_any_kind_are_sent() -> None:
    """Both are sent as the caller wrote them."""
    query = Query(prompt_tokens=(5, 7))
    assert encode_body(UP, replace(CALL, query=query)) == {"model": "m", "prompt": [5, 7], "stream": False}
    audio = {"type": "input_audio", "input_audio": {"data": "AAA", "format": "wav"}}
    call = build_call(UP, messages=(Message("user", (OtherPart(audio),)),))
    assert encode_body(UP, call)["messages"] == [{"role": "user", "content": [audio]}]


def test_a_streamed_request_includes_usage() -> None:
    """Beside the caller's own stream options; without a stream those must not be sent, but that it is none."""
    call = build_call(UP, passthrough={"stream_options": {"include_obfuscation": False}})
    assert encode_body(UP, call, stream=True)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert encode_body(UP, call, stream=True)["stream"] is True
    assert encode_body(UP, call)["stream"] is False  # some gateways stream unless they are told
    assert "stream_options" not in encode_body(UP, call)


def test_a_row_can_drop_stream_options() -> None:
    """Mistral refuses the field."""
    mistral = build_openai(parameters=ParametersRow(drop=("stream_options",)))
    assert "stream_options" not in encode_body(mistral, build_call(mistral), stream=True)


def test_a_callers_own_key_replaces_the_configured_one() -> None:
    """Else the configured one, if any; a newline around a key, as files leave it, is no part of it."""
    assert UP.encode(CALL, stream=False).headers["Authorization"] == f"Bearer {KEY}"
    assert UP.encode(build_call(UP, own_key="sk-mine\n"), stream=False).headers["Authorization"] == "Bearer sk-mine"
    assert UP.encode(CALL, stream=False).headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in build_openai(key=None).encode(CALL, stream=False).headers


def test_the_rows_own_headers_are_sent() -> None:
    """An `Authorization` among them stands; one whose variable is empty is left out."""
    provider = build_openai(headers={"X-Title": "Fanout", "authorization": "Basic abc", "X-Empty": ""})
    headers = provider.encode(build_call(provider), stream=False).headers
    assert (headers["X-Title"], headers["Authorization"]) == ("Fanout", "Basic abc")
    assert "X-Empty" not in headers


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"key": "sk-a\nb"}, "providers.up.api_key_env"),
        ({"headers": {"X-A": "é"}}, "providers.up.headers.X-A"),
        ({"base_url": "http://user:pw@host/v1"}, "providers.up.base_url"),
        ({"base_url": "http://host:99999/v1"}, "providers.up.base_url"),
    ],
    ids=str,
)
def test_a_value_no_header_can_carry_is_a_configuration_fault(wrong: dict[str, Any], field: str) -> None:
    """It is reported at the start, by its place and without the value."""
    with pytest.raises(ConfigError) as caught:
        build_openai(**wrong)
    assert caught.value.faults[0].path == field
    assert "pw" not in str(caught.value)


def test_an_own_key_that_no_header_can_carry_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(ProviderError) as caught:
        UP.encode(build_call(UP, own_key="sk-\r\nHost: evil"), stream=False)
    assert caught.value.failure.kind == "auth"
    assert "evil" not in caught.value.failure.message


def test_a_provider_without_an_address_can_be_made_but_not_called() -> None:
    """It is listed as not configured."""
    provider = build_openai(None)
    with pytest.raises(ProviderError) as caught:
        provider.encode(build_call(provider), stream=False)
    assert caught.value.failure.kind == "not_configured"


def test_a_long_prompt_is_written_once_for_all_models() -> None:
    """Each model still gets its own parameters, messages and path."""
    text = "long \ud83d " * 2000
    calls = [
        build_call(UP, "a", messages=(Message("user", text),), temperature=1.0),
        build_call(UP, "b", messages=(Message("user", text),)),
        build_call(UP, "d", messages=(Message("user", text, {"name": "x"}),)),
        build_call(UP, "c", messages=(Message("system", text),)),
        build_call(UP, "e", prompt=text),
        build_call(UP, "f", messages=(Message("user", text), Message("user", "more"))),
    ]
    shown = text.replace("\ud83d", "\ufffd")
    assert [{**encode_body(UP, call), "stream": None} for call in calls] == [
        {"stream": None, "model": "a", "temperature": 1.0, "messages": [{"role": "user", "content": shown}]},
        {"stream": None, "model": "b", "messages": [{"role": "user", "content": shown}]},
        {"stream": None, "model": "d", "messages": [{"role": "user", "content": shown, "name": "x"}]},
        {"stream": None, "model": "c", "messages": [{"role": "system", "content": shown}]},
        {"stream": None, "model": "e", "prompt": shown},
        {"stream": None, "model": "f", "messages": [{"role": "user", "content": shown}, {"role": "user", "content": "more"}]},
    ]


def test_different_long_prompts_of_token_ids_are_not_confused() -> None:
    """They have no text to tell them by."""
    for first in (1, 2):
        ids = (first, *range(5000))
        assert encode_body(UP, replace(CALL, query=Query(prompt_tokens=ids)))["prompt"] == list(ids)


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://acme.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
        ("https://notapi.openai.com.example/v1", "max_tokens"),
    ],
)
def test_only_openais_own_hosts_have_openais_reasoning_models(base_url: str, name: str) -> None:
    """Another host's `o1-lookalike` takes what its format takes."""
    provider = build_openai(base_url)
    body = encode_body(provider, build_call(provider, "o1-lookalike", max_tokens=9, temperature=0.5))
    assert body[name] == 9
    assert ("temperature" in body) == (name == "max_tokens")


def test_the_reasoning_effort_decides_the_parameters_sent() -> None:
    """`reasoning_effort` is a field that is passed on."""
    provider = build_openai("https://api.openai.com/v1")
    target = Target("gpt-5.6", "gpt-5.6", "up", "gpt-5.6")
    query = build_call(provider, temperature=0.5).query
    resting = Query(messages=query.messages, sampling=query.sampling, passthrough={"reasoning_effort": "none"})
    assert provider.fit(target, query).ignored == ("temperature",)
    assert provider.fit(target, resting).sent == {"temperature": 0.5, "reasoning_effort": "none"}


def summarize(completion: Completion) -> tuple[str, str | None, int | None, int | None, int | None]:
    assert completion.usage
    usage, choice = completion.usage, completion.choices[0]
    return choice.message.text, choice.finish_reason, usage.input_tokens, usage.output_tokens, usage.reasoning_tokens


@pytest.mark.parametrize("exchange", load_recordings(*HOSTS))
def test_recorded_answers_are_read(exchange: RecordedExchange) -> None:
    """Each recorded exchange: whole, or streamed and cut anywhere."""
    if exchange.streamed and exchange.status == 200:
        check_stream(exchange)
    elif exchange.status == 200:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
        assert summarize(completion) == WHOLE[exchange.name]
        assert completion.model
        assert completion.request_id
    else:
        with pytest.raises(ProviderError) as caught:
            UP.decode(CALL, exchange.status, exchange.headers, exchange.body)
        failure = caught.value.failure
        error = json.loads(exchange.body)["error"]
        assert failure.status == exchange.status
        assert failure.kind == {400: "bad_request", 404: "not_found", 429: "rate_limit"}[exchange.status]
        assert failure.message.startswith(error["message"])
        assert failure.code == (error["code"] if isinstance(error["code"], str) else None)


def check_stream(exchange: RecordedExchange) -> None:
    rng = random.Random(exchange.name)
    whole = try_stream([exchange.body], exchange)
    for _ in range(20):
        places = sorted(rng.sample(range(len(exchange.body)), 30))
        cuts = [exchange.body[start:end] for start, end in pairwise([0, *places, len(exchange.body)])]
        assert try_stream(cuts, exchange) == whole
    if exchange.name == "openrouter-2-200":
        assert isinstance(whole, Failure)
        assert (whole.kind, whole.status, whole.message) == ("bad_request", 400, "Token limit reached")
        return
    assert not isinstance(whole, Failure)
    text, completion = whole
    beginning, *expected = STREAMED[exchange.name]
    assert [*summarize(completion)[1:]] == expected
    assert completion.choices[0].message.text.startswith(beginning)
    assert text == completion.choices[0].message.text


def try_stream(pieces: list[bytes], exchange: RecordedExchange) -> tuple[str, Completion] | Failure:
    try:
        deltas, completion = replay_stream(UP, CALL, pieces, exchange.headers)
    except ProviderError as error:
        return error.failure
    return "".join(delta.text for delta in deltas), completion


@pytest.mark.parametrize("exchange", load_recordings("openai", "groq"))
def test_recorded_tool_calls_are_assembled(exchange: RecordedExchange) -> None:
    """From their pieces, the arguments being JSON in the end."""
    if not exchange.streamed:
        return
    deltas, completion = replay_stream(UP, CALL, [exchange.body])
    (tool,) = completion.choices[0].message.tool_calls
    assert isinstance(json.loads(tool["function"]["arguments"]), dict)
    assert tool["function"]["name"] == exchange.request["tools"][0]["function"]["name"]
    assert all(piece["index"] == 0 for delta in deltas for piece in delta.tool_calls)


@pytest.mark.parametrize("exchange", load_recordings("deepseek", "zai", "groq"))
def test_recorded_reasoning_is_separated_from_text(exchange: RecordedExchange) -> None:
    """`reasoning_content` and `reasoning`, whole and streamed alike."""
    if exchange.status != 200 or exchange.name == "groq-0-200":
        return
    if exchange.streamed:
        deltas, completion = replay_stream(UP, CALL, [exchange.body])
        assert "".join(delta.reasoning or "" for delta in deltas) == completion.choices[0].message.reasoning
    else:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
    assert len(completion.choices[0].message.reasoning or "") > 50
