"""Google's wire format: what is sent, what recorded answers mean, what its errors are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.sampling import Sampling
from fanout.core.schema import Completion, Failure, FittedParameters, Query, Target, TokenLogprob
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.parameter_tables import find_gemini_family
from tests.support.conversations import IMAGE_URL, NOW, TOOL_TURNS, WEATHER
from tests.support.provider_calls import (
    build_adapter,
    build_call,
    collect_stream,
    cut_at,
    encode_body,
    expect_answer,
    expect_failure,
    try_decode,
    try_stream,
)
from tests.support.recordings import RecordedExchange, load_recordings
from tests.support.upstream.canned import answer_with, serve_adapter
from tests.support.vendor_streams import encode_unnamed

UP = build_adapter(Gemini, "https://google.test/v1beta")
CALL = build_call(UP, "gemini-2.5-flash")
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def fit(model: str = "gemini-2.0-flash", **sampling: Any) -> FittedParameters:
    query = Query(messages=(Message("user", "Hello"),), sampling=Sampling(**sampling))
    return UP.fit(Target(model, model, "up", model), query)


def build_answer(*parts: Any, finish: str = "STOP", **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, **more}]}


def complete(body: Any) -> Completion:
    return expect_answer(try_decode(UP, CALL, 200, body))


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"temperature": 2.0}, {"temperature": 2.0}),
        ({"top_p": 0.5}, {"topP": 0.5}),
        ({"top_k": 40}, {"topK": 40}),
        ({"n": 3}, {"candidateCount": 3}),
        ({"seed": -7}, {"seed": -7}),
        ({"stop": ("a", "b")}, {"stopSequences": ["a", "b"]}),
        ({"presence_penalty": -2.0, "frequency_penalty": 1.5}, {"presencePenalty": -2.0, "frequencyPenalty": 1.5}),
        ({"logprobs": 0}, {"responseLogprobs": True}),
        ({"logprobs": 5}, {"responseLogprobs": True, "logprobs": 5}),
        ({"best_of": 1, "echo": False, "repetition_penalty": 0.0}, {}),
    ],
    ids=str,
)
def test_every_parameter_is_sent_under_its_name(params: dict[str, Any], sent: dict[str, Any]) -> None:
    """Names are Google's, in `generationConfig`; nothing else is sent."""
    call = build_call(UP, "gemini-2.0-flash", **params)
    assert encode_body(UP, call) == {**HELLO, **({"generationConfig": sent} if sent else {})}
    assert (call.fitted.ignored, call.fitted.adjusted) == ((), {})


def test_unknown_parameters_are_ignored_and_reported() -> None:
    """No value of `top_k` turns it off, and another seed would be another seed."""
    params = fit(
        top_k=0, seed=2**31, best_of=3, repetition_penalty=1.1, logit_bias={"5": 1.0}, echo=True, suffix="!", user="me"
    )
    names = ("top_k", "best_of", "seed", "repetition_penalty", "logit_bias", "echo", "suffix", "user")
    assert params == FittedParameters({}, names, {})


def test_values_out_of_range_are_clamped_and_reported() -> None:
    params = fit(temperature=2.5, n=20, logprobs=30)
    assert params.sent == {"temperature": 2, "candidateCount": 8, "responseLogprobs": True, "logprobs": 20}
    assert params.adjusted == {"temperature": (2.5, 2), "n": (20, 8), "logprobs": (30, 20)}


@pytest.mark.parametrize(
    ("model", "family", "on_vertex"),
    [
        ("gemini-1.5-pro-002", "all", "all"),
        ("gemini-2.0-flash", "all", "all"),
        ("gemini-2.5-flash-lite", "no penalties", "all"),
        ("gemini-3-pro-preview", "one answer", "one answer"),
        ("Gemini-3.6-flash", "one answer", "one answer"),
        ("gemini-10", "one answer", "one answer"),
        ("gemini-flash-latest", "one answer", "one answer"),
    ],
)
def test_a_model_belongs_to_its_family(model: str, family: str, on_vertex: str) -> None:
    """Penalties ended with 2.5 on the Gemini API, with 3 on Vertex; several candidates with 3."""
    assert find_gemini_family(model) == family
    assert find_gemini_family(model, on_vertex=True) == on_vertex


def test_a_newer_model_takes_no_penalties_and_gives_one_answer() -> None:
    params = fit("gemini-3.6-flash", presence_penalty=0.5, frequency_penalty=0.5, n=2, seed=1)
    assert params == FittedParameters({"seed": 1}, ("n", "presence_penalty", "frequency_penalty"), {})
    assert fit("gemini-2.5-pro", presence_penalty=0.5, n=2).sent == {"candidateCount": 2}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../../evil?x=#y", "models/..%2F..%2Fevil%3Fx%3D%23y"),
        ("é", "models/%C3%A9"),
    ],
)
def test_the_model_stands_in_the_path(model: str, path: str) -> None:
    """Quoted whole: it comes from the caller, and must not lead elsewhere."""
    call = build_call(UP, model)
    assert str(UP.encode(call, stream=False).url) == f"https://google.test/v1beta/{path}:generateContent"
    assert str(UP.encode(call, stream=True).url) == f"https://google.test/v1beta/{path}:streamGenerateContent?alt=sse"


async def test_several_candidates_are_requested_whole() -> None:
    """They come as deltas all the same."""
    second = {"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}
    body = {"candidates": [second, {"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "MAX_TOKENS"}]}
    async with serve_adapter(Gemini, answer_with(body)) as (provider, served):
        deltas, completion = await collect_stream(provider, build_call(provider, "gemini-2.0-flash", n=2))
    assert served.requests[0][0] == "/v1beta/models/gemini-2.0-flash:generateContent"
    assert [(delta.choice_index, delta.text) for delta in deltas] == [(0, "a"), (1, "b")]
    assert [choice.finish_reason for choice in completion.choices] == ["length", "stop"]


def test_system_messages_stand_outside_the_conversation() -> None:
    """The assistant is the model."""
    messages = (Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Yes?"), Message("developer", "brief"))
    assert encode_body(UP, build_call(UP, messages=messages)) == {
        "systemInstruction": {"parts": [{"text": "Be"}, {"text": "brief"}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Yes?"}]}],
    }


def test_images_are_sent_by_address_or_as_bytes() -> None:
    """An address with the type that its name shows, if it shows one."""
    urls = ("https://x/y.png?z=1.gif", "https://x/y", IMAGE_URL)
    images = tuple(ImagePart(url) for url in urls)
    assert encode_body(UP, build_call(UP, messages=(Message("user", (TextPart("What?"), *images)),)))["contents"][0][
        "parts"
    ] == [
        {"text": "What?"},
        {"fileData": {"fileUri": "https://x/y.png?z=1.gif", "mimeType": "image/png"}},
        {"fileData": {"fileUri": "https://x/y"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
    ]


@pytest.mark.parametrize(
    ("params", "config", "ignored"),
    [
        ({}, None, ()),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, None, ()),
        ({"tool_choice": "none"}, {"mode": "NONE"}, ()),
        ({"tool_choice": "required"}, {"mode": "ANY"}, ()),
        (
            {"tool_choice": {"type": "function", "function": {"name": "now"}}},
            {"mode": "ANY", "allowedFunctionNames": ["now"]},
            (),
        ),
        ({"parallel_tool_calls": False}, None, ("parallel_tool_calls",)),
    ],
    ids=str,
)
def test_tools_are_converted(params: dict[str, Any], config: dict[str, Any] | None, ignored: tuple[str, ...]) -> None:
    """From OpenAI's shape; beside the configuration, not in it."""
    call = build_call(UP, passthrough={"tools": [WEATHER, NOW], **params}, max_tokens=5)
    body = encode_body(UP, call)
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Today's", "parametersJsonSchema": WEATHER["function"]["parameters"]},
                {"name": "now", "parametersJsonSchema": {"type": "object", "properties": {}}},
            ]
        }
    ]
    assert body.get("toolConfig") == (config and {"functionCallingConfig": config})
    assert body["generationConfig"] == {"maxOutputTokens": 5}
    assert call.fitted.ignored == ignored


def test_tool_calls_and_results_of_a_conversation_are_converted() -> None:
    """Results name the function, and stand in one turn; Google's own ids and signatures go back, ours do not."""
    assert encode_body(UP, build_call(UP, messages=TOOL_TURNS))["contents"][1:3] == [
        {
            "role": "model",
            "parts": [
                {"text": "Looking"},
                {"functionCall": {"name": "weather", "args": {"city": "Paris"}, "id": "c1"}},
                {"functionCall": {"name": "weather", "args": {"city": "Rome"}, "id": "c2"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "weather", "response": {"sky": "blue"}, "id": "c1"}},
                {"functionResponse": {"name": "weather", "response": {"output": "grey"}, "id": "c2"}},
            ],
        },
    ]
    parsed = complete(build_answer({"functionCall": {"name": "now"}, "thoughtSignature": "c2ln"})).choices[0].message
    back = (
        Message("assistant", None, {"tool_calls": list(parsed.tool_calls)}),
        Message("tool", "7", {"tool_call_id": "fanout_call_0"}),
    )
    assert encode_body(UP, build_call(UP, messages=back))["contents"] == [
        {"role": "model", "parts": [{"functionCall": {"name": "now", "args": {}}, "thoughtSignature": "c2ln"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "now", "response": {"output": 7}}}]},
    ]


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
    ],
    ids=str,
)
def test_the_response_format_is_converted(params: dict[str, Any], sent: dict[str, Any] | None) -> None:
    """From OpenAI's `response_format`."""
    assert encode_body(UP, build_call(UP, passthrough={"response_format": params})).get("generationConfig") == sent


@pytest.mark.parametrize("exchange", load_recordings("gemini", path="enerateContent"))
def test_recorded_answers_are_read(exchange: RecordedExchange) -> None:
    """With the values that google-genai 3.3.0 reads in them; output is candidates and thoughts."""
    expected = {
        "gemini-1-200": ("The capital of France is **Paris**.", 8, 8, None, "gemini-2.5-flash-lite"),
        "gemini-3-200": ("Paris", 6, 1 + 35, 35, "gemini-2.5-flash"),
    }
    if exchange.status != 200:
        failure = expect_failure(try_decode(UP, CALL, exchange.status, exchange.body))
        error = json.loads(exchange.body)["error"]
        assert (failure.kind, failure.code, failure.message) == ("not_found", "NOT_FOUND", error["message"])
        return
    if exchange.streamed:
        outcome = try_stream(UP, CALL, cut_at(exchange.body, range(0, len(exchange.body), 13)), exchange.headers)
        assert not isinstance(outcome, Failure)
        completion = outcome[1]
    else:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
    (choice,), usage = completion.choices, completion.usage
    assert usage
    assert (choice.finish_reason, choice.native_finish_reason) == ("stop", "STOP")
    counts = (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens)
    assert (choice.message.text, *counts, completion.model) == expected[exchange.name]
    assert completion.request_id


@pytest.mark.parametrize("exchange", load_recordings("gemini", path="enerateContent"))
def test_a_recorded_request_is_what_we_send(exchange: RecordedExchange) -> None:
    """Fields that only the recorded client sends are left aside."""
    text = exchange.request["contents"][0]["parts"][0]["text"]
    params = {name: value for name, value in exchange.request["generationConfig"].items() if name == "temperature"}
    model = exchange.uri.rpartition("/")[2].partition(":")[0]
    call = build_call(UP, model, messages=(Message("user", text),), **params)
    expected = {"contents": exchange.request["contents"], **({"generationConfig": params} if params else {})}
    assert encode_body(UP, call, stream=exchange.streamed) == expected
    assert str(UP.encode(call, stream=exchange.streamed).url).endswith(exchange.uri.partition("/v1beta")[2])


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        *((word, "stop") for word in ("STOP",)),
        *((word, "length") for word in ("MAX_TOKENS", "CONTINUATION")),
        *((word, "content_filter") for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
        *((word, "content_filter") for word in ("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "MODEL_ARMOR", "LANGUAGE")),
        *((word, None) for word in ("OTHER", "MALFORMED_FUNCTION_CALL", "FINISH_REASON_UNSPECIFIED", "OF_NEXT_YEAR")),
    ],
)
def test_finish_reasons_are_translated(word: str, finish: str | None) -> None:
    """Whole and streamed; an unknown word is kept, not guessed at. Content may be missing."""
    body = {"candidates": [{"finishReason": word}]}
    outcome = try_stream(UP, CALL, [encode_unnamed(body)])
    assert not isinstance(outcome, Failure)
    for completion in (complete(body), outcome[1]):
        (choice,) = completion.choices
        assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("", finish, word)


def test_a_blocked_prompt_is_an_answer_without_text() -> None:
    """Whole and streamed, with what it cost to read."""
    body = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    }
    outcome = try_stream(UP, CALL, [encode_unnamed(body)])
    assert not isinstance(outcome, Failure)
    for completion in (complete(body), outcome[1]):
        (choice,) = completion.choices
        assert (choice.message.text, choice.finish_reason) == ("", "content_filter")
        assert choice.native_finish_reason == "PROHIBITED_CONTENT"
        assert completion.usage
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (9, 0)


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 10}, (5, 5, None, 2)),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 4, "totalTokenCount": 5}, (5, 0, 4, None)),
        (
            {"promptTokenCount": 5, "toolUsePromptTokenCount": 7, "candidatesTokenCount": 1, "totalTokenCount": 13},
            (12, 1, None, None),
        ),
        ({"promptTokenCount": 5}, (5, None, None, None)),
        ({"promptTokenCount": -5, "candidatesTokenCount": True}, None),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_usage_is_read(raw: Any, tokens: tuple[int | None, ...] | None) -> None:
    """Input with the cached, output with thoughts; what is missing beside a known total is 0."""
    usage = complete({**build_answer({"text": "a"}), "usageMetadata": raw}).usage
    counts = usage and (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
    assert counts == tokens


def test_logprobs_are_read_with_their_alternatives() -> None:
    """Whole and streamed; a probability of 1 has the logarithm 0, which is left out."""
    result = {
        "chosenCandidates": [{"token": "Par", "tokenId": 1, "logProbability": -0.5}, {"token": "is"}],
        "topCandidates": [{"candidates": [{"token": "Rom", "logProbability": -2.0}, {"token": "Par", "logProbability": -0.5}]}],
    }
    body = build_answer({"text": "Paris"}, logprobsResult=result)
    expected = (TokenLogprob("Par", -0.5, (("Par", -0.5), ("Rom", -2.0))), TokenLogprob("is", 0.0))
    outcome = try_stream(UP, CALL, [encode_unnamed(body)])
    assert not isinstance(outcome, Failure)
    assert complete(body).choices[0].logprobs == outcome[1].choices[0].logprobs == outcome[0][0].logprobs == expected


QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"}


def build_violation(quota: str, value: Any = "10") -> dict[str, Any]:
    return {"@type": QUOTA, "violations": [{"quotaMetric": "m", "quotaId": quota, "quotaValue": value}]}


@pytest.mark.parametrize(
    ("status", "error", "kind", "delay_s"),
    [
        (400, {"status": "INVALID_ARGUMENT"}, "bad_request", None),
        (400, {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}, "auth", None),
        (400, {"message": "API key not valid. Please pass a valid API key."}, "auth", None),
        (400, {"status": "FAILED_PRECONDITION", "message": "User location is not supported"}, "bad_request", None),
        (401, {"status": "UNAUTHENTICATED"}, "auth", None),
        (403, {"status": "PERMISSION_DENIED", "details": [{"reason": "BILLING_DISABLED"}]}, "quota", None),
        (403, {"status": "PERMISSION_DENIED"}, "auth", None),
        (404, {"status": "NOT_FOUND"}, "not_found", None),
        (429, {"status": "RESOURCE_EXHAUSTED", "details": [RETRY]}, "rate_limit", 46),
        (429, {"message": "You exceeded your current quota, see billing. Please retry in 46.5s."}, "rate_limit", 46.5),
        (429, {"message": "You exceeded your current quota, please check your plan and billing details."}, "quota", None),
        (429, {"details": [build_violation("GenerateRequestsPerMinutePerProject"), RETRY]}, "rate_limit", 46),
        (429, {"message": "quota, billing", "details": [build_violation("RequestsPerMinutePerProject")]}, "rate_limit", None),
        (429, {"details": [build_violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), RETRY]}, "quota", 46),
        (429, {"details": [build_violation("RequestsPerMinute", "0"), RETRY]}, "quota", 46),
        (429, {"message": "* Quota exceeded for metric: x, limit: 0, model: y\nPlease retry in 46s"}, "quota", 46),
        (429, {"message": "limit: 0.5, please retry in 46s"}, "rate_limit", 46),
        (402, {"message": "prepaid credits are depleted"}, "quota", None),
        (499, {"status": "CANCELLED"}, "cancelled", None),
        (500, {"status": "INTERNAL"}, "server", None),
        (503, {"status": "UNAVAILABLE", "message": "The model is overloaded."}, "server", None),
        (504, {"status": "DEADLINE_EXCEEDED"}, "server", None),
        (None, {"code": 503, "status": "UNAVAILABLE"}, "server", None),
        (None, {"code": 429, "details": [RETRY]}, "rate_limit", 46),
        (None, {"status": "RESOURCE_EXHAUSTED"}, "rate_limit", None),
        (None, {"status": "INVALID_ARGUMENT"}, "bad_request", None),
        (None, {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}, "auth", None),
    ],
    ids=str,
)
def test_errors_have_their_kind_and_delay(status: int | None, error: dict[str, Any], kind: str, delay_s: float | None) -> None:
    """By the details where they say more than the status; the same in a list of one, in an answer, in a stream."""
    body = {"error": {"code": status or error.get("code"), "message": "no", **error}}
    failures: list[Any] = [try_decode(UP, CALL, status or 200, body), try_decode(UP, CALL, status or 200, [body])]
    bare = json.dumps(body, indent=2).encode()
    streams = (encode_unnamed(body), b"data: " + json.dumps([body]).encode() + b"\n\n", bare, b"[" + bare + b"\n]\n")
    failures += [try_stream(UP, CALL, [stream]) for stream in streams]
    for failure in failures:
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.retry_after_s) == (kind, delay_s)


SAYING = encode_unnamed({"candidates": [{"content": {"parts": [{"text": "Hel"}]}, "index": 0}]})
BARE = json.dumps({"error": {"code": 400, "message": "too long", "status": "INVALID_ARGUMENT"}}, indent=2).encode()


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_bare_json_between_the_events_is_an_error(places: list[int]) -> None:
    """On many lines without `data:`, cut anywhere; what follows it is of no interest."""
    for stream in (SAYING + BARE, SAYING + BARE + b"\r\n\r\n" + SAYING, SAYING.replace(b"\r\n", b"\n") + b"[" + BARE + b"]\n"):
        failure = expect_failure(try_stream(UP, CALL, cut_at(stream, places)))
        assert (failure.kind, failure.status, failure.message, failure.partial) == ("bad_request", 400, "too long", "Hel")


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (BARE[:-3], "stream_truncated"),
        (b"{nope}\n", "stream_truncated"),
        (b"{}\n", "stream_truncated"),
        (b"[7]\n\n", "unexpected_shape"),
        (b"[" * 100_000 + b"]\n\n", "invalid_json"),
        (b"{" + b" " * (2**24 + 5000), "event_too_large"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_bare_json_that_is_no_error_is_malformed(rest: bytes, code: str) -> None:
    """Half of one, or anything else."""
    failure = expect_failure(try_stream(UP, CALL, [SAYING, rest]))
    assert (failure.code, failure.partial) == (code, "Hel")


def test_a_candidate_out_of_range_is_a_failure() -> None:
    """An answer does not choose how much memory it takes."""
    for index in (-1, 128, 10**9):
        failure = expect_failure(
            try_stream(UP, CALL, [encode_unnamed({"candidates": [{"index": index, "content": {"parts": [{"text": "a"}]}}]})])
        )
        assert failure.code == "unexpected_shape"
