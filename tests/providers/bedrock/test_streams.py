"""Bedrock's streams: AWS's frames, cut anywhere, spoilt, and recorded ones as botocore's own parser reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from fanout.core.errors import ProviderError
from fanout.providers.bedrock.adapter import Bedrock
from tests.support.bedrock_format import (
    CALL,
    EVENT_STREAM,
    HOST,
    METADATA,
    MODEL,
    START,
    STOP,
    STREAM,
    UP,
    build_answer,
    encode_delta,
    encode_event,
    encode_frame,
    import_botocore,
)
from tests.support.provider_calls import (
    StreamResult,
    build_adapter,
    build_call,
    collect_stream,
    corrupt,
    cut_at,
    expect_answer,
    expect_failure,
    try_decode,
    try_stream,
)
from tests.support.recordings import RecordedExchange, load_recordings
from tests.support.upstream.canned import answer_in_pieces, serve_adapter

KINDS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "other")
FIELDS = (
    *("text", "delta", "start", "toolUse", "toolUseId", "name", "input", "reasoningContent", "reasoningText", "output"),
    *("contentBlockIndex", "stopReason", "usage", "inputTokens", "outputTokens", "message", "content", "citationsContent"),
)

ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


def test_a_stream_is_read() -> None:
    completion = expect_answer(try_stream(UP, CALL, [STREAM], {"x-amzn-requestid": "r-1"}))
    same = try_decode(UP, CALL, 200, build_answer("Hello"), x_amzn_requestid="r-1")
    assert completion == same


def test_thoughts_and_tool_calls_of_a_stream_are_read() -> None:
    """A tool call begins with its name; a text block does not begin at all."""
    stream = [
        START,
        encode_delta(0, reasoningContent={"text": "Let me "}),
        encode_delta(0, reasoningContent={"text": "see"}),
        encode_delta(0, reasoningContent={"signature": "c2ln"}),
        encode_delta(1, text="I look"),
        encode_event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "clock"}}}),
        encode_delta(2, toolUse={"input": '{"zone":'}),
        encode_delta(2, toolUse={"input": '"UTC"}'}),
        encode_event("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t2", "name": "date"}}}),
        encode_delta(3, toolUse={"input": "{}"}),
        encode_event("contentBlockStart", {"contentBlockIndex": 4, "start": {}}),
        encode_event("somethingNew", {"a": 1}),
        encode_event("messageStop", {"stopReason": "tool_use"}),
        METADATA,
    ]
    message = expect_answer(try_stream(UP, CALL, stream)).choices[0].message
    assert (message.text, message.reasoning) == ("I look", "Let me see")
    assert message.tool_calls == (
        {"id": "t1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}},
        {"id": "t2", "type": "function", "function": {"name": "date", "arguments": "{}"}},
    )


@pytest.mark.parametrize(
    ("named", "kind", "status"),
    [
        ("throttlingException", "rate_limit", 429),
        ("modelStreamErrorException", "server", 424),
        ("internalServerException", "server", 500),
        ("serviceUnavailableException", "server", 503),
        ("validationException", "bad_request", 400),
        ("somethingNewException", "server", None),
    ],
)
def test_an_exception_ends_a_stream(named: str, kind: str, status: int | None) -> None:
    """With the text so far."""
    broken = encode_frame({"message": "No more"}, message_type="exception", exception_type=named)
    failure = expect_failure(try_stream(UP, CALL, [START + encode_delta(text="Hel") + broken]))
    assert (failure.kind, failure.status, failure.partial) == (kind, status, "Hel")
    assert failure.code == named[0].upper() + named[1:]


def test_an_error_ends_a_stream() -> None:
    broken = encode_frame(b"", message_type="error", error_code="InternalServerException", error_message="Oh")
    failure = expect_failure(try_stream(UP, CALL, [START, broken]))
    assert (failure.kind, failure.status) == ("server", 500)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (START + encode_delta(text="Hel"), "stream_truncated"),
        (STREAM[: len(START) + 20], "stream_truncated"),
        (b"", "stream_truncated"),
        (METADATA, "stream_truncated"),
        (b"data: {}\n\n" * 5, "invalid_frame"),
        (START[:-1] + b"\0", "invalid_frame"),
        (encode_frame(b"{", message_type="event", event_type="metadata"), "invalid_json"),
        (encode_frame(b"[]", message_type="event", event_type="metadata"), "unexpected_shape"),
    ],
)
def test_an_incomplete_stream_is_a_failure(stream: bytes, code: str) -> None:
    failure = expect_failure(try_stream(UP, CALL, [stream]))
    assert (failure.kind, failure.code) == ("network" if code == "stream_truncated" else "malformed", code)


def test_a_stream_is_whole_without_its_usage() -> None:
    """Unknown is not 0."""
    assert expect_answer(try_stream(UP, CALL, [STREAM.removesuffix(METADATA)])).usage is None


def test_too_large_an_answer_is_a_failure() -> None:
    small = build_adapter(Bedrock, HOST, max_answer_bytes=100)
    assert expect_failure(try_stream(small, CALL, [START] + [encode_delta(text="x" * 60)] * 3)).code == "answer_too_large"


@given(st.lists(st.integers(0, len(STREAM))))
def test_the_cuts_of_a_stream_do_not_matter(places: list[int]) -> None:
    assert try_stream(UP, CALL, cut_at(STREAM, places)) == try_stream(UP, CALL, [STREAM])


@given(st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 255)), min_size=1), st.lists(st.integers(0, 999)))
def test_a_corrupt_stream_is_an_answer_or_a_failure(changes: list[tuple[int, int]], places: list[int]) -> None:
    """By its checksums it is nearly always a failure."""
    result = try_stream(UP, CALL, cut_at(corrupt(STREAM, changes), places))
    assert corrupt(STREAM, changes) == STREAM or expect_failure(result).kind in ("malformed", "network")


@given(st.sampled_from(KINDS), ODD)
def test_any_event_is_an_answer_or_a_failure(kind: str, payload: Any) -> None:
    try_stream(UP, CALL, [START, encode_event(kind, payload), STOP, METADATA])


@given(ODD, st.sampled_from([200, 400, 429, 500]))
def test_any_body_is_an_answer_or_a_failure(body: Any, status: int) -> None:
    try_decode(UP, CALL, status, body)


def parse_with_botocore(stream: bytes) -> dict[str, Any]:
    """Return what botocore's own parser of the service's events makes of a stream."""
    model = import_botocore("botocore.session").Session().get_service_model("bedrock-runtime").operation_model("ConverseStream")
    parser = import_botocore("botocore.parsers").EventStreamJSONParser()
    buffer = import_botocore("botocore.eventstream").EventStreamBuffer()
    buffer.add_data(stream)
    answer: dict[str, Any] = {"text": "", "thought": ""}
    for message in buffer:
        parsed = parser.parse(message.to_response_dict(), model.get_event_stream_output())
        piece = parsed.get("contentBlockDelta", {}).get("delta", {})
        answer["text"] += piece.get("text", "")
        answer["thought"] += piece.get("reasoningContent", {}).get("text", "")
        answer |= {name: value for name in ("messageStop", "metadata") if (value := parsed.get(name))}
    return answer


@pytest.mark.parametrize("exchange", load_recordings("bedrock", path="/converse"))
def test_recorded_exchanges_are_read(exchange: RecordedExchange) -> None:
    """Whole, and streams cut anywhere: what botocore's own parser reads in them."""
    if exchange.status != 200:
        failure = expect_failure(try_decode(UP, CALL, exchange.status, exchange.body))
        assert (failure.kind, failure.message) == ("bad_request", json.loads(exchange.body)["message"])
    elif not exchange.streamed:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
        assert completion.choices[0].message.text == json.loads(exchange.body)["output"]["message"]["content"][0]["text"]
        assert completion.request_id == exchange.headers["x-amzn-requestid"]
    else:
        check_stream(exchange.body, exchange.headers)


def check_stream(stream: bytes, headers: CIMultiDict[str]) -> None:
    result = try_stream(UP, CALL, [stream], headers)
    completion, theirs = expect_answer(result), parse_with_botocore(stream)
    message, usage = completion.choices[0].message, completion.usage
    assert (message.text, message.reasoning or "") == (theirs["text"], theirs["thought"])
    assert completion.choices[0].native_finish_reason == theirs["messageStop"]["stopReason"]
    assert usage
    expected = theirs["metadata"]["usage"]
    assert (usage.input_tokens, usage.output_tokens) == (expected["inputTokens"], expected["outputTokens"])
    check_any_cut(stream, headers, result)


def check_any_cut(stream: bytes, headers: CIMultiDict[str], expected: StreamResult) -> None:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, len(stream)), max_size=60))
    def check_choice(places: list[int]) -> None:
        assert try_stream(UP, CALL, cut_at(stream, places), headers) == expected

    check_choice()


async def test_a_stream_is_read_over_the_network() -> None:
    """In pieces; and one that breaks off."""
    pieces = cut_at(STREAM, range(0, len(STREAM), 7))
    async with serve_adapter(Bedrock, answer_in_pieces(pieces, EVENT_STREAM)) as (bedrock, _):
        deltas, completion = await collect_stream(bedrock, build_call(bedrock, MODEL))
    assert ([one.text for one in deltas], completion.choices[0].finish_reason) == (["Hel", "lo"], "stop")
    begun = STREAM[: len(START) + len(encode_delta(text="Hel")) + 9]
    async with serve_adapter(Bedrock, answer_in_pieces([begun], EVENT_STREAM)) as (bedrock, _):
        with pytest.raises(ProviderError) as caught:
            await collect_stream(bedrock, build_call(bedrock, MODEL))
    assert (caught.value.failure.code, caught.value.failure.partial) == ("answer_unfinished", "Hel")
