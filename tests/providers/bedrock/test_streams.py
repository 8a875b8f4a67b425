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
from tests.support.converse import (
    CALL,
    EVENT_STREAM,
    HOST,
    METADATA,
    MODEL,
    START,
    STOP,
    STREAM,
    UP,
    botocore,
    delta,
    event,
    frame,
    saying,
)
from tests.support.recordings import Exchange, recorded
from tests.support.wires import (
    Told,
    adapter_at,
    answered,
    asking,
    cut,
    failed,
    in_pieces,
    serving_to,
    spoilt,
    streamed,
    told,
    whole,
)

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


def test_a_stream() -> None:
    completion = answered(told(UP, CALL, [STREAM], {"x-amzn-requestid": "r-1"}))
    same = whole(UP, CALL, 200, saying("Hello"), x_amzn_requestid="r-1")
    assert completion == same


def test_a_stream_of_thoughts_and_tool_calls() -> None:
    """A tool call begins with its name; a text block does not begin at all."""
    stream = [
        START,
        delta(0, reasoningContent={"text": "Let me "}),
        delta(0, reasoningContent={"text": "see"}),
        delta(0, reasoningContent={"signature": "c2ln"}),
        delta(1, text="I look"),
        event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "clock"}}}),
        delta(2, toolUse={"input": '{"zone":'}),
        delta(2, toolUse={"input": '"UTC"}'}),
        event("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t2", "name": "date"}}}),
        delta(3, toolUse={"input": "{}"}),
        event("contentBlockStart", {"contentBlockIndex": 4, "start": {}}),
        event("somethingNew", {"a": 1}),
        event("messageStop", {"stopReason": "tool_use"}),
        METADATA,
    ]
    message = answered(told(UP, CALL, stream)).choices[0].message
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
def test_a_stream_breaks_by_an_exception(named: str, kind: str, status: int | None) -> None:
    """With the text so far."""
    broken = frame({"message": "No more"}, message_type="exception", exception_type=named)
    failure = failed(told(UP, CALL, [START + delta(text="Hel") + broken]))
    assert (failure.kind, failure.status, failure.partial) == (kind, status, "Hel")
    assert failure.code == named[0].upper() + named[1:]


def test_a_stream_breaks_by_an_error() -> None:
    broken = frame(b"", message_type="error", error_code="InternalServerException", error_message="Oh")
    failure = failed(told(UP, CALL, [START, broken]))
    assert (failure.kind, failure.status) == ("server", 500)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (START + delta(text="Hel"), "stream_truncated"),
        (STREAM[: len(START) + 20], "stream_truncated"),
        (b"", "stream_truncated"),
        (METADATA, "stream_truncated"),
        (b"data: {}\n\n" * 5, "invalid_frame"),
        (START[:-1] + b"\0", "invalid_frame"),
        (frame(b"{", message_type="event", event_type="metadata"), "invalid_json"),
        (frame(b"[]", message_type="event", event_type="metadata"), "unexpected_shape"),
    ],
)
def test_a_stream_that_is_no_whole_answer(stream: bytes, code: str) -> None:
    failure = failed(told(UP, CALL, [stream]))
    assert (failure.kind, failure.code) == ("network" if code == "stream_truncated" else "malformed", code)


def test_a_stream_is_whole_without_its_usage() -> None:
    """Unknown is not 0."""
    assert answered(told(UP, CALL, [STREAM.removesuffix(METADATA)])).usage is None


def test_an_answer_has_its_bounds() -> None:
    small = adapter_at(Bedrock, HOST, max_answer_bytes=100)
    assert failed(told(small, CALL, [START] + [delta(text="x" * 60)] * 3)).code == "answer_too_large"


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_cut_anywhere_is_the_same(places: list[int]) -> None:
    assert told(UP, CALL, cut(STREAM, places)) == told(UP, CALL, [STREAM])


@given(st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 255)), min_size=1), st.lists(st.integers(0, 999)))
def test_a_spoilt_stream_is_an_answer_or_a_failure(changes: list[tuple[int, int]], places: list[int]) -> None:
    """By its checksums it is nearly always a failure."""
    result = told(UP, CALL, cut(spoilt(STREAM, changes), places))
    assert spoilt(STREAM, changes) == STREAM or failed(result).kind in ("malformed", "network")


@given(st.sampled_from(KINDS), ODD)
def test_any_event_is_an_answer_or_a_failure(kind: str, payload: Any) -> None:
    told(UP, CALL, [START, event(kind, payload), STOP, METADATA])


@given(ODD, st.sampled_from([200, 400, 429, 500]))
def test_any_body_is_an_answer_or_a_failure(body: Any, status: int) -> None:
    whole(UP, CALL, status, body)


def theirs_of(stream: bytes) -> dict[str, Any]:
    """What botocore's own parser of the service's events makes of a stream."""
    model = botocore("botocore.session").Session().get_service_model("bedrock-runtime").operation_model("ConverseStream")
    parser = botocore("botocore.parsers").EventStreamJSONParser()
    buffer = botocore("botocore.eventstream").EventStreamBuffer()
    buffer.add_data(stream)
    said: dict[str, Any] = {"text": "", "thought": ""}
    for message in buffer:
        parsed = parser.parse(message.to_response_dict(), model.get_event_stream_output())
        piece = parsed.get("contentBlockDelta", {}).get("delta", {})
        said["text"] += piece.get("text", "")
        said["thought"] += piece.get("reasoningContent", {}).get("text", "")
        said |= {name: value for name in ("messageStop", "metadata") if (value := parsed.get(name))}
    return said


@pytest.mark.parametrize("exchange", recorded("bedrock", path="/converse"))
def test_recorded_exchanges(exchange: Exchange) -> None:
    """Whole, and streams cut anywhere: what botocore's own parser reads in them."""
    if exchange.status != 200:
        failure = failed(whole(UP, CALL, exchange.status, exchange.body))
        assert (failure.kind, failure.message) == ("bad_request", json.loads(exchange.body)["message"])
    elif not exchange.streamed:
        completion = UP.decode(CALL, 200, exchange.headers, exchange.body)
        assert completion.choices[0].message.text == json.loads(exchange.body)["output"]["message"]["content"][0]["text"]
        assert completion.request_id == exchange.headers["x-amzn-requestid"]
    else:
        check_stream(exchange.body, exchange.headers)


def check_stream(stream: bytes, headers: CIMultiDict[str]) -> None:
    result = told(UP, CALL, [stream], headers)
    completion, theirs = answered(result), theirs_of(stream)
    message, usage = completion.choices[0].message, completion.usage
    assert (message.text, message.reasoning or "") == (theirs["text"], theirs["thought"])
    assert completion.choices[0].native_finish_reason == theirs["messageStop"]["stopReason"]
    assert usage
    expected = theirs["metadata"]["usage"]
    assert (usage.input_tokens, usage.output_tokens) == (expected["inputTokens"], expected["outputTokens"])
    check_any_cut(stream, headers, result)


def check_any_cut(stream: bytes, headers: CIMultiDict[str], expected: Told) -> None:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, len(stream)), max_size=60))
    def check_choice(places: list[int]) -> None:
        assert told(UP, CALL, cut(stream, places), headers) == expected

    check_choice()


async def test_a_stream_over_the_network() -> None:
    """In pieces; and one that breaks off."""
    pieces = cut(STREAM, range(0, len(STREAM), 7))
    async with serving_to(Bedrock, in_pieces(pieces, EVENT_STREAM)) as (bedrock, _):
        deltas, completion = await streamed(bedrock, asking(bedrock, MODEL))
    assert ([one.text for one in deltas], completion.choices[0].finish_reason) == (["Hel", "lo"], "stop")
    begun = STREAM[: len(START) + len(delta(text="Hel")) + 9]
    async with serving_to(Bedrock, in_pieces([begun], EVENT_STREAM)) as (bedrock, _):
        with pytest.raises(ProviderError) as caught:
            await streamed(bedrock, asking(bedrock, MODEL))
    assert (caught.value.failure.code, caught.value.failure.partial) == ("stream_truncated", "Hel")
