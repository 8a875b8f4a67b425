"""Cohere's wire format: what is sent, what recorded answers mean, what its errors are."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.config.providers_file import ParametersRow
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.schema import Completion, Failure, FittedParameters, TokenLogprob
from fanout.core.usage import Usage
from fanout.providers.cohere import Cohere
from tests.support.conversations import IMAGE_URL, NOW, TOOL_TURNS, WEATHER
from tests.support.provider_calls import (
    build_adapter,
    build_call,
    cut_at,
    encode_body,
    expect_answer,
    expect_failure,
    try_decode,
    try_stream,
)
from tests.support.recordings import RecordedExchange, load_recordings
from tests.support.vendor_streams import COHERE, encode_named

UP = build_adapter(Cohere, "https://api.cohere.com/v2")
CALL = build_call(UP, "command-a-03-2025")
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE"}


def complete(body: Any, **headers: str) -> Completion:
    return expect_answer(try_decode(UP, CALL, 200, body, **headers))


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"p": 0.5}),
        ({"top_k": 40}, {"k": 40}),
        ({"top_k": 0}, {}),
        ({"top_k": -1}, {}),
        ({"seed": 7}, {"seed": 7}),
        ({"stop": ("a", "b")}, {"stop_sequences": ["a", "b"]}),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
        ({"frequency_penalty": 0.5, "presence_penalty": 0.0}, {"frequency_penalty": 0.5}),
        ({"logprobs": 0}, {"logprobs": True}),
        ({"n": 1, "best_of": 1, "echo": False, "repetition_penalty": 0.0}, {}),
    ],
    ids=str,
)
def test_every_parameter_is_sent_under_its_name(params: dict[str, Any], sent: dict[str, Any]) -> None:
    """Names are Cohere's; nothing else is sent."""
    call = build_call(UP, **params)
    assert encode_body(UP, call) == {**HELLO, **sent, "stream": False}
    assert encode_body(UP, call, stream=True) == {**HELLO, **sent, "stream": True}
    assert (call.fitted.ignored, call.fitted.adjusted) == ((), {})


def test_unknown_parameters_are_ignored_and_reported() -> None:
    """Another seed would be another seed."""
    refused: dict[str, Any] = {
        "n": 2,
        "best_of": 3,
        "seed": -1,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": 1.0},
        "echo": True,
    }
    params = build_call(UP, **refused, suffix="!", user="me").fitted
    assert params == FittedParameters({}, (*refused, "suffix", "user"), {})


def test_values_out_of_range_are_clamped_and_reported() -> None:
    """A penalty below 0 is as none; log probabilities come without alternatives."""
    params = build_call(UP, temperature=1.5, top_p=1.0, top_k=900, presence_penalty=-1.0, logprobs=5).fitted
    assert params.sent == {"temperature": 1, "p": 0.99, "k": 500, "logprobs": True}
    assert params.adjusted == {
        "temperature": (1.5, 1),
        "top_p": (1.0, 0.99),
        "top_k": (900, 500),
        "presence_penalty": (-1.0, 0),
        "logprobs": (5, 0),
    }


def test_only_one_of_the_penalties_is_sent() -> None:
    """The other is reported; one that is as none stands in nobody's way."""
    both = build_call(UP, presence_penalty=0.5, frequency_penalty=0.25).fitted
    assert (both.sent, both.ignored) == ({"frequency_penalty": 0.25}, ("presence_penalty",))
    negative = build_call(UP, presence_penalty=0.5, frequency_penalty=-0.25).fitted
    assert (negative.sent, negative.ignored) == ({"presence_penalty": 0.5}, ())
    without = build_adapter(Cohere, parameters=ParametersRow(drop=("frequency_penalty",)))
    assert build_call(without, presence_penalty=0.5, frequency_penalty=0.25).fitted.sent == {"presence_penalty": 0.5}


def test_a_conversation_is_converted() -> None:
    """Developers are the system; images by address and by their bytes."""
    messages = (
        Message("developer", (TextPart("Be "), TextPart("brief"))),
        Message("user", (TextPart("What?"), ImagePart("https://x/y.png", "low"), ImagePart(IMAGE_URL))),
        Message("assistant", "Hm"),
        Message("assistant", None),
    )
    assert encode_body(UP, build_call(UP, messages=messages))["messages"] == [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": IMAGE_URL}},
            ],
        },
        {"role": "assistant", "content": "Hm"},
        {"role": "assistant", "content": ""},
    ]


@pytest.mark.parametrize(
    ("params", "choice", "ignored"),
    [
        ({}, None, ()),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, None, ()),
        ({"tool_choice": "none"}, "NONE", ()),
        ({"tool_choice": "required"}, "REQUIRED", ()),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, None, ("tool_choice",)),
        ({"parallel_tool_calls": False}, None, ("parallel_tool_calls",)),
    ],
    ids=str,
)
def test_tools_are_converted(params: dict[str, Any], choice: str | None, ignored: tuple[str, ...]) -> None:
    """They keep OpenAI's shape; no field names one function."""
    call = build_call(UP, passthrough={"tools": [WEATHER, NOW], **params})
    body = encode_body(UP, call)
    assert body["tools"] == [
        WEATHER,
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert body.get("tool_choice") == choice
    assert call.fitted.ignored == ignored


def test_tool_calls_and_results_of_a_conversation_are_converted() -> None:
    assert encode_body(UP, build_call(UP, messages=TOOL_TURNS))["messages"][1:4] == [
        {"role": "assistant", "content": "Looking", "tool_calls": TOOL_TURNS[1].extra["tool_calls"]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sky":"blue"}'},
        {"role": "tool", "tool_call_id": "c2", "content": "grey"},
    ]


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            {"type": "json_object", "json_schema": {"type": "object"}},
        ),
    ],
    ids=str,
)
def test_the_response_format_is_converted(params: dict[str, Any], sent: dict[str, Any] | None) -> None:
    """From OpenAI's `response_format`."""
    assert encode_body(UP, build_call(UP, passthrough={"response_format": params})).get("response_format") == sent


@pytest.mark.parametrize("exchange", load_recordings("cohere", path="/v2/chat"))
def test_recorded_answers_are_read(exchange: RecordedExchange) -> None:
    """With the values that cohere 7.3.1 reads in them: tokens as the model saw them, billed units beside them."""
    completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
    (choice,), usage = completion.choices, completion.usage
    assert (choice.message.text, choice.finish_reason) == ("Hello! How can I assist you today?", "stop")
    assert choice.native_finish_reason == "COMPLETE"
    assert usage
    assert (usage.input_tokens, usage.output_tokens) == (496, 11)
    assert usage.billed == {"input_tokens": 1, "output_tokens": 9}
    assert completion.request_id == "f17a5f6c-1734-4098-bd0d-733ef000ac7b"


@pytest.mark.parametrize("exchange", load_recordings("cohere", path="/v2/chat"))
def test_a_recorded_request_is_what_we_send(exchange: RecordedExchange) -> None:
    call = build_call(UP, exchange.request["model"], messages=(Message("user", "hello"),))
    assert encode_body(UP, call) == exchange.request


def test_a_whole_answer_equals_its_stream() -> None:
    """A plan and thoughts are reasoning."""
    message = {
        "role": "assistant",
        "tool_plan": "I will look. ",
        "content": [
            {"type": "thinking", "thinking": "Paris."},
            {"type": "text", "text": "Let me look é😀"},
        ],
        "tool_calls": [{"id": "w_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}],
        "citations": [{"start": 0, "end": 3, "text": "Let", "sources": []}],
    }
    usage = {
        "billed_units": {"input_tokens": 63, "output_tokens": 27},
        "tokens": {"input_tokens": 1460.0, "output_tokens": 60.0},
        "cached_tokens": 1216.0,
    }
    answer = complete({"id": "29f1", "message": message, "finish_reason": "TOOL_CALL", "usage": usage})
    outcome = try_stream(UP, CALL, [COHERE])
    assert not isinstance(outcome, Failure)
    assert outcome[1] == answer
    assert isinstance(answer.usage, Usage)
    assert answer.usage.billed == {"input_tokens": 63, "output_tokens": 27}


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ({"tokens": {"input_tokens": 3.0, "output_tokens": 0}}, (3, 0, None)),
        ({"billed_units": {"input_tokens": 3, "search_units": None}}, (None, None, {"input_tokens": 3})),
        ({"tokens": {"input_tokens": 2.5}}, None),
        ({}, None),
        ([], None),
    ],
    ids=str,
)
def test_usage_is_read(raw: Any, tokens: Any) -> None:
    """Unknown is not 0."""
    usage = complete({**TEXT, "usage": raw}).usage
    assert (usage and (usage.input_tokens, usage.output_tokens, usage.billed)) == tokens


def test_logprobs_are_sums_over_the_tokens_of_an_item() -> None:
    """Whole and streamed."""
    items = [
        {"text": "Hi", "token_ids": [1], "logprobs": [-0.5]},
        {"text": " you", "token_ids": [2, 3], "logprobs": [-1.0, -0.25]},
    ]
    odd = {"token_ids": [4], "logprobs": None}
    expected = (TokenLogprob("Hi", -0.5), TokenLogprob(" you", -1.25), TokenLogprob("", None))
    assert complete({**TEXT, "logprobs": [*items, odd]}).choices[0].logprobs == expected
    deltas = [
        {"type": "content-delta", "delta": {"message": {"content": {"text": item["text"]}}}, "logprobs": item} for item in items
    ]
    outcome = try_stream(UP, CALL, [encode_named(*deltas, {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}})])
    assert not isinstance(outcome, Failure)
    assert outcome[1].choices[0].logprobs == expected[:2]
    assert [delta.logprobs for delta in outcome[0]] == [(expected[0],), (expected[1],)]


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("OF_NEXT_YEAR", None),
    ],
)
def test_finish_reasons_are_translated(word: str, finish: str | None) -> None:
    """Whole and streamed; an unknown word is kept, not guessed at."""
    outcome = try_stream(UP, CALL, [encode_named({"type": "message-end", "delta": {"finish_reason": word}})])
    assert not isinstance(outcome, Failure)
    for completion in (complete({**TEXT, "finish_reason": word}), outcome[1]):
        (choice,) = completion.choices
        assert (choice.finish_reason, choice.native_finish_reason) == (finish, word)


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        ({"finish_reason": "ERROR"}, "server", "`up` broke off its answer: `ERROR`"),
        ({"finish_reason": "TIMEOUT"}, "timeout", "`up` broke off its answer: `TIMEOUT`"),
        ({"finish_reason": "ERROR", "error": "no capacity"}, "server", "no capacity"),
        ({"error": "no capacity"}, "server", "no capacity"),
    ],
    ids=str,
)
def test_an_answer_that_ends_in_an_error_is_a_failure(end: dict[str, Any], kind: str, message: str) -> None:
    """Whole and streamed; what had come is kept."""
    piece = {"type": "content-delta", "delta": {"message": {"content": {"text": "Hel"}}}}
    streamed = try_stream(UP, CALL, cut_at(encode_named(piece, {"type": "message-end", "delta": end}), [50]))
    for failure in (try_decode(UP, CALL, 200, {"message": {"content": []}, **end}), streamed):
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.message) == (kind, message)
    assert isinstance(streamed, Failure)
    assert streamed.partial == "Hel"


TRIAL = "You are using a Trial key, which is limited to {} API calls / {}. You can continue to use the Trial key for free"


@pytest.mark.parametrize(
    ("status", "message", "kind", "code"),
    [
        (400, "invalid request: temperature must be between 0 and 1.0", "bad_request", None),
        (401, "invalid api token", "auth", "invalid_api_key"),
        (402, "Please add or update your payment method to continue", "quota", None),
        (403, "no access", "auth", "permission_denied"),
        (404, "model 'nonexistent' not found, make sure the correct model ID was used", "not_found", None),
        (422, "invalid type", "bad_request", None),
        (429, "Please wait and try again later", "rate_limit", None),
        (429, TRIAL.format(10, "minute"), "rate_limit", None),
        (429, TRIAL.format(1000, "month"), "quota", None),
        (429, "trial key limit reached", "quota", None),
        (498, "invalid token", "auth", "invalid_api_key"),
        (499, "request cancelled", "cancelled", None),
        (500, "internal", "server", None),
        (501, "not implemented", "server", None),
        (503, "unavailable", "server", None),
        (504, "timed out", "server", None),
    ],
    ids=str,
)
def test_errors_have_their_kind_and_code(status: int, message: str, kind: str, code: str | None) -> None:
    """Flat, with the request's id in the body."""
    failure = expect_failure(try_decode(UP, CALL, status, {"id": "8bd5", "message": message}))
    assert (failure.kind, failure.code, failure.status, failure.request_id) == (kind, code, status, "8bd5")
    shown = message if status < 500 or status == 503 else f"`up` had an internal error (HTTP {status})"
    assert failure.message == shown if kind != "auth" else failure.message.endswith(f": {message}")


def test_the_trace_header_is_the_request_id() -> None:
    failure = expect_failure(try_decode(UP, CALL, 404, {"id": "8bd5", "message": "no"}, **{"x-debug-trace-id": "t1"}))
    assert failure.request_id == "t1"


def test_a_flat_error_may_come_with_status_200() -> None:
    """Whole, and as an event of a stream."""
    body = {"id": "8bd5", "message": "too many tokens"}
    for failure in (try_decode(UP, CALL, 200, body), try_stream(UP, CALL, [encode_named({"type": "error", **body})])):
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.message, failure.request_id) == ("server", "too many tokens", "8bd5")
