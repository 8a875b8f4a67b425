"""Anthropic's wire format: what is sent, what recorded answers mean, what its errors are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fanout.config.providers_file import ParametersRow
from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.sampling import Sampling
from fanout.core.schema import Completion, Failure, FittedParameters, Query, Target
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.parameter_tables import find_anthropic_family
from tests.support.conversations import IMAGE_URL, NOW, TOOL_TURNS, WEATHER
from tests.support.llama.process import Llama
from tests.support.provider_calls import (
    build_adapter,
    build_call,
    collect_stream,
    cut_at,
    encode_body,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)
from tests.support.recordings import RecordedExchange, load_recordings
from tests.support.vendor_streams import CLAUDE, CLAUDE_USAGE, encode_named

UP = build_adapter(Anthropic, "https://api.anthropic.com")
CALL = build_call(UP, "claude-sonnet-4-6")
HELLO = [{"role": "user", "content": "Hello"}]


def fit(model: str = "claude-3-haiku-20240307", defaults: frozenset[str] = frozenset(), **sampling: Any) -> FittedParameters:
    query = Query(messages=(Message("user", "Hello"),), sampling=Sampling(**sampling), defaults=defaults)
    return UP.fit(Target(model, model, "up", model), query)


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"top_k": 0}, {}),
        ({"top_k": -1}, {}),
        ({"stop": ("END", "\n\nHuman:")}, {"stop_sequences": ["END", "\n\nHuman:"]}),
        ({"n": 1, "best_of": 1, "echo": False, "presence_penalty": 0.0, "logit_bias": {}}, {}),
    ],
    ids=str,
)
def test_every_parameter_is_sent_under_its_name(params: dict[str, Any], sent: dict[str, Any]) -> None:
    """Names are Anthropic's; nothing else is sent but what it requires."""
    call = build_call(UP, "claude-3-haiku-20240307", **params)
    expected = {"model": "claude-3-haiku-20240307", "messages": HELLO, "max_tokens": 4096, **sent}
    assert encode_body(UP, call) == {**expected, "stream": False}
    assert encode_body(UP, call, stream=True) == {**expected, "stream": True}
    assert call.fitted.ignored == ()


def test_unknown_parameters_are_ignored_and_reported() -> None:
    """In the order of the parameters."""
    params = fit(
        max_tokens=5,
        n=2,
        best_of=3,
        seed=1,
        presence_penalty=1.0,
        frequency_penalty=1.0,
        repetition_penalty=1.1,
        logit_bias={"5": 1.0},
        logprobs=0,
        echo=True,
        suffix="!",
        user="me",
    )
    names = ("n", "best_of", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs")
    assert params == FittedParameters({"max_tokens": 5}, (*names, "echo", "suffix", "user"), {})


def test_a_required_limit_is_added_and_reported() -> None:
    """The most that the oldest models give, or a length that comes within the time of one attempt."""
    assert fit() == FittedParameters({"max_tokens": 4096}, (), {"max_tokens": (None, 4096)})
    assert fit("claude-sonnet-4-6").adjusted == {"max_tokens": (None, 8192)}
    assert fit("claude-sonnet-4-6", max_tokens=9).adjusted == {}
    assert fit("claude-sonnet-4-6", max_tokens=16, defaults=frozenset({"max_tokens"})).adjusted == {}


def test_too_high_a_temperature_is_clamped_and_reported() -> None:
    assert fit(temperature=1.7, max_tokens=5) == FittedParameters(
        {"max_tokens": 5, "temperature": 1}, (), {"temperature": (1.7, 1)}
    )


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("claude-2.1", "sampling"),
        ("claude-v1.3", "sampling"),
        ("claude-instant-1.2", "sampling"),
        ("claude-3-haiku-20240307", "sampling"),
        ("claude-3-7-sonnet-latest", "sampling"),
        ("claude-sonnet-4-20250514", "sampling"),
        ("claude-opus-4-0", "sampling"),
        ("claude-opus-4-1-20250805", "either"),
        ("claude-sonnet-4-5", "either"),
        ("Claude-Haiku-4-5-20251001", "either"),
        ("claude-opus-4-6", "either"),
        ("claude-opus-4-7", "none"),
        ("claude-opus-4-8", "none"),
        ("claude-opus-5", "none"),
        ("claude-sonnet-5-5", "none"),
        ("claude-haiku-5-5", "none"),
        ("claude-fable-5-1", "none"),
        ("claude-mythos-5", "none"),
        ("claude-of-next-year-7", "none"),
        ("tiny", "sampling"),
    ],
)
def test_a_model_belongs_to_its_family(model: str, family: str) -> None:
    """A model newer than those we know takes no sampling parameters; one that is no Claude takes them all."""
    assert find_anthropic_family(model) == family


def test_newer_models_take_no_sampling_parameters() -> None:
    params = fit("claude-haiku-5-5", temperature=0.5, top_p=0.5, top_k=5, max_tokens=5, stop=("x",))
    assert params == FittedParameters({"max_tokens": 5, "stop_sequences": ("x",)}, ("temperature", "top_p", "top_k"), {})


def test_some_models_take_only_one_of_temperature_and_top_p() -> None:
    """The caller's parameter goes before a contract's default, which is dropped silently."""
    both = fit("claude-sonnet-4-6", temperature=0.5, top_p=0.5, max_tokens=5)
    assert (both.sent, both.ignored) == ({"max_tokens": 5, "temperature": 0.5}, ("top_p",))
    default = frozenset({"temperature"})
    mine = fit("claude-sonnet-4-6", temperature=0.2, top_p=0.5, max_tokens=5, defaults=default)
    assert (mine.sent, mine.ignored) == ({"max_tokens": 5, "top_p": 0.5}, ())
    high = fit("claude-sonnet-4-6", temperature=0.5, top_p=1.5, max_tokens=5)
    assert (high.ignored, high.adjusted) == (("top_p",), {})


def test_blank_stop_sequences_are_left_out_and_reported() -> None:
    """It refuses them."""
    some = fit(stop=("\n", "END"), max_tokens=5)
    assert some == FittedParameters({"max_tokens": 5, "stop_sequences": ("END",)}, (), {"stop": (("\n", "END"), ("END",))})
    assert fit(stop=("\n", " "), max_tokens=5) == FittedParameters({"max_tokens": 5}, ("stop",), {})


def test_system_messages_stand_outside_the_conversation() -> None:
    """One system message is sent as text, several as blocks."""
    one = build_call(UP, messages=(Message("system", "Be brief"), Message("user", "Hi")), max_tokens=5)
    assert encode_body(UP, one) == {
        "model": "m",
        "stream": False,
        "max_tokens": 5,
        "system": "Be brief",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    several = (Message("developer", (TextPart("Be "), TextPart("brief"))), Message("user", "Hi"), Message("system", "Now"))
    blocks = [{"type": "text", "text": "Be brief"}, {"type": "text", "text": "Now"}]
    assert encode_body(UP, build_call(UP, messages=several))["system"] == blocks
    assert "system" not in encode_body(UP, build_call(UP, messages=(Message("system", ""), Message("user", "Hi"))))


def test_images_are_sent_by_address_or_as_bytes() -> None:
    """Base64, also where the data: URL says it otherwise."""
    parts = (
        TextPart("What?"),
        ImagePart("https://x/y.png"),
        ImagePart(IMAGE_URL),
        ImagePart("data:IMAGE/GIF,%47%49F"),
        ImagePart("data:image/webp;x=1;base64,UklG%2BA%3D%3D"),
    )
    assert encode_body(UP, build_call(UP, messages=(Message("user", parts),)))["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lG"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "UklG+A=="}},
    ]


def test_an_image_of_another_type_is_refused() -> None:
    with pytest.raises(ProviderError) as caught:
        UP.encode(build_call(UP, messages=(Message("user", (ImagePart("data:image/tiff;base64,AAAA"),)),)), stream=False)
    assert caught.value.failure.message == "`up` takes JPEG, PNG, GIF and WebP images, not `image/tiff`"


@pytest.mark.parametrize(
    ("params", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, {"type": "tool", "name": "now"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
    ],
    ids=str,
)
def test_tools_are_converted(params: dict[str, Any], choice: dict[str, Any] | None) -> None:
    """From OpenAI's shape."""
    function = {**WEATHER["function"], "strict": True}
    strict = {"type": "function", "function": function}
    call = build_call(UP, passthrough={"tools": [strict, NOW], **params})
    body = encode_body(UP, call)
    schema = function["parameters"]
    assert body["tools"] == [
        {"name": "weather", "description": "Today's", "input_schema": schema, "strict": True},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body.get("tool_choice") == choice
    assert call.fitted.ignored == ()


def test_tool_calls_and_results_of_a_conversation_are_converted() -> None:
    """All results of a turn in one message."""
    assert encode_body(UP, build_call(UP, messages=TOOL_TURNS))["messages"] == [
        {"role": "user", "content": "Weather in Paris and Rome?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Looking"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": '{"sky":"blue"}'},
                {"type": "tool_result", "tool_use_id": "c2", "content": "grey"},
            ],
        },
        {"role": "user", "content": "Thanks"},
    ]


def test_the_version_is_the_one_that_takes_sampling_parameters() -> None:
    """Unless the row says otherwise."""
    assert UP.encode(CALL, stream=False).headers["anthropic-version"] == "2023-06-01"
    newer = build_adapter(Anthropic, headers={"Anthropic-Version": "2026-10-21"})
    assert newer.encode(CALL, stream=False).headers.getall("anthropic-version") == ["2026-10-21"]


def test_a_row_changes_names_and_ranges() -> None:
    """As for any format; a host that does not know `max_tokens` is not sent ours."""
    row = ParametersRow(drop=("max_tokens",), clamp={"temperature": (0, 0.5)}, rename={"seed": "seed"})
    other = build_adapter(Anthropic, parameters=row)
    assert build_call(other, temperature=1.0, seed=3).fitted == FittedParameters(
        {"temperature": 0.5, "seed": 3}, (), {"temperature": (1.0, 0.5)}
    )


@pytest.mark.parametrize("exchange", load_recordings("anthropic", path="/v1/messages"))
def test_recorded_answers_are_read(exchange: RecordedExchange) -> None:
    """With the values that anthropic 0.125.0 reads in them."""
    expected = {
        "anthropic-0-200": ("4", "stop", "end_turn", 14, 5, 0, 0, "claude-opus-4-6"),
        "anthropic-3-200": ("2", "stop", "end_turn", 20, 5, 0, 0, "claude-sonnet-4-5-20250929"),
    }
    if exchange.status != 200:
        failure = try_decode(UP, CALL, exchange.status, exchange.body, **dict(exchange.headers))
        body = json.loads(exchange.body)
        kind = {400: "bad_request", 404: "not_found"}[exchange.status]
        parsed = (kind, body["error"]["message"], body["error"]["type"], body["request_id"])
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.message, failure.code, failure.request_id) == parsed
        return
    if exchange.streamed:
        outcome = try_stream(UP, CALL, cut_at(exchange.body, range(0, len(exchange.body), 11)), exchange.headers)
        assert not isinstance(outcome, Failure)
        completion: Completion | Failure = outcome[1]
        assert [delta.text for delta in outcome[0]] == ["2"]
    else:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
    assert isinstance(completion, Completion)
    (choice,), usage = completion.choices, completion.usage
    assert usage
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens)
    reported = (choice.message.text, choice.finish_reason, choice.native_finish_reason, *counts, completion.model)
    assert reported == expected[exchange.name]
    assert completion.request_id
    assert completion.request_id.startswith("msg_")


def test_a_whole_answer_equals_its_stream() -> None:
    """Blocks of other types are passed over."""
    content = [
        {"type": "thinking", "thinking": "Which city? Paris.", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        {"type": "text", "text": "Let me look — é😀", "citations": None},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ]
    usage = {**CLAUDE_USAGE, "output_tokens": 89, "output_tokens_details": {"thinking_tokens": 41}}
    body = {"id": "msg_1", "model": "claude-sonnet-4-6", "content": content, "stop_reason": "tool_use", "usage": usage}
    answer, outcome = try_decode(UP, CALL, 200, body), try_stream(UP, CALL, [CLAUDE])
    assert isinstance(answer, Completion)
    assert not isinstance(outcome, Failure)
    streamed_call, whole_call = (done.choices[0].message.tool_calls[0] for done in (outcome[1], answer))
    assert json.loads(streamed_call["function"]["arguments"]) == json.loads(whole_call["function"]["arguments"])
    assert (answer.usage, answer.model, answer.request_id) == (outcome[1].usage, outcome[1].model, outcome[1].request_id)
    assert answer.choices[0].message.text == outcome[1].choices[0].message.text
    assert answer.choices[0].message.tool_calls[1] == outcome[1].choices[0].message.tool_calls[1]


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("of_next_year", None),
    ],
)
def test_finish_reasons_are_translated(word: str, finish: str | None) -> None:
    """Whole and streamed; an unknown word is kept, not guessed at."""
    answer = try_decode(UP, CALL, 200, {"content": [], "stop_reason": word})
    end = encode_named({"type": "message_start", "message": {}}, {"type": "message_delta", "delta": {"stop_reason": word}})
    outcome = try_stream(UP, CALL, [end])
    assert isinstance(answer, Completion)
    assert not isinstance(outcome, Failure)
    for completion in (answer, outcome[1]):
        (choice,) = completion.choices
        assert (choice.finish_reason, choice.native_finish_reason, completion.usage) == (finish, word, None)


def test_the_explanation_of_a_refusal_is_kept() -> None:
    """It stands in `stop_details`."""
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    answer = try_decode(UP, CALL, 200, {"content": [], "stop_reason": "refusal", "stop_details": details})
    delta = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}
    outcome = try_stream(UP, CALL, [encode_named({"type": "message_start", "message": {}}, delta)])
    assert isinstance(answer, Completion)
    assert not isinstance(outcome, Failure)
    assert answer.choices[0].message.refusal == outcome[1].choices[0].message.refusal == "Not this."


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, {"type": "invalid_request_error"}, "bad_request", "invalid_request_error"),
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low"}, "quota", "invalid_request_error"),
        (
            400,
            {"type": "invalid_request_error", "details": {"error_code": "organization_on_hold"}},
            "auth",
            "permission_denied",
        ),
        (401, {"type": "authentication_error"}, "auth", "invalid_api_key"),
        (402, {"type": "billing_error"}, "quota", "billing_error"),
        (402, {"type": "billing_error", "details": {"error_code": "linked_organization_billing_unavailable"}}, "quota", None),
        (403, {"type": "permission_error"}, "auth", "permission_denied"),
        (404, {"type": "not_found_error"}, "not_found", "not_found_error"),
        (409, {"type": "conflict_error"}, "server", "conflict_error"),
        (413, {"type": "request_too_large"}, "bad_request", "request_too_large"),
        (429, {"type": "rate_limit_error"}, "rate_limit", "rate_limit_error"),
        (429, {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}}, "rate_limit", None),
        (429, {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}, "quota", None),
        (429, {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}}, "quota", None),
        (429, {"type": "rate_limit_error", "details": {"error_code": "a_new_spend_limit_reached"}}, "quota", None),
        (500, {"type": "api_error"}, "server", "api_error"),
        (504, {"type": "timeout_error"}, "server", "timeout_error"),
        (529, {"type": "overloaded_error"}, "server", "overloaded_error"),
        (None, {"type": "overloaded_error"}, "server", "overloaded_error"),
        (None, {"type": "billing_error"}, "quota", "billing_error"),
        (None, {"type": "rate_limit_error"}, "rate_limit", "rate_limit_error"),
        (None, {"type": "invalid_request_error"}, "bad_request", "invalid_request_error"),
        (None, {"type": "timeout_error"}, "timeout", "timeout_error"),
    ],
    ids=str,
)
def test_errors_have_their_kind_and_code(status: int | None, error: dict[str, Any], kind: str, code: str | None) -> None:
    """By the code where there is one; in a stream and in an answer of status 200 by the type."""
    body = {"type": "error", "error": {"message": "no", **error}, "request_id": "req_1"}
    outcome: Any = try_decode(UP, CALL, status or 200, body)
    failures = [outcome]
    if status is None:
        failures.append(try_stream(UP, CALL, [encode_named({"type": "message_start", "message": {}}, body)]))
    for failure in failures:
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.status, failure.request_id) == (kind, status, "req_1")
        assert failure.code == (code or error["details"]["error_code"])


def test_a_broken_stream_keeps_its_partial_text() -> None:
    """The error comes after the deltas before it, even where both arrived together."""
    start = encode_named(
        {"type": "message_start", "message": {}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    )
    error = encode_named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    failure = expect_failure(try_stream(UP, CALL, [start + error]))
    assert (failure.kind, failure.message, failure.partial) == ("server", "Overloaded", "Hel")
    assert UP.open_reader(CALL, {}).feed(start + error)[0].text == "Hel"


def test_the_delay_is_taken_from_the_header() -> None:
    failure = expect_failure(
        try_decode(UP, CALL, 429, {"error": {"type": "rate_limit_error", "message": "no"}}, retry_after="7")
    )
    assert failure.retry_after_s == 7


async def test_llama_cpp_answers_in_this_format(llama: Llama) -> None:
    """llama.cpp speaks the format, too: text, finish reason and usage, whole and streamed; its refusal of a key."""
    async with open_session() as session:
        provider = build_adapter(Anthropic, llama.origin, session=session, key=llama.key)
        call = build_call(provider, llama.model, max_tokens=12, temperature=0.0)
        completion = await provider.complete(call)
        deltas, end = await collect_stream(provider, call)
        assert "".join(delta.text for delta in deltas) == end.choices[0].message.text
        for done in (completion, end):
            assert done.choices[0].message.text
            assert done.choices[0].finish_reason in ("length", "stop")
            assert done.usage
            assert done.usage.input_tokens
            assert done.usage.output_tokens == 12 or done.choices[0].finish_reason == "stop"
    async with open_session() as session:
        wrong = build_adapter(Anthropic, llama.origin, session=session, key="sk-wrong-key")
        with pytest.raises(ProviderError) as caught:
            await wrong.complete(build_call(wrong, llama.model, max_tokens=5))
        assert caught.value.failure.kind == "auth"
