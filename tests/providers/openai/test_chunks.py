"""A streamed answer in OpenAI's shape, from its first chunk to its last."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.core.schema import Completion, Failure, TokenLogprob
from tests.support.openai_format import CALL, UP, build_chunk, build_openai, decode_answer, encode_chunks, replay_failure
from tests.support.provider_calls import build_call, replay_stream


def test_a_stream_gives_deltas_and_then_the_whole() -> None:
    """A role and a finish reason are no deltas; usage comes in a chunk without choices."""
    stream = encode_chunks(
        {"id": "c1", "model": "", "choices": [], "prompt_filter_results": []},
        build_chunk(role="assistant", content=""),
        build_chunk("Hel"),
        build_chunk("lo", index=0),
        build_chunk(finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    )
    deltas, completion = replay_stream(UP, CALL, [stream], {"x-request-id": "req-1"})
    assert [(delta.call_index, delta.choice_index, delta.text) for delta in deltas] == [(7, 0, "Hel"), (7, 0, "lo")]
    assert completion.choices[0].message.text == "Hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (1, 2)
    assert (completion.model, completion.request_id) == ("m-1", "req-1")


def test_a_text_stream_is_read() -> None:
    """`text` where chat has a delta; logprobs in either shape."""
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None}
    stream = encode_chunks(
        {"choices": [{"index": 0, "text": "a", "logprobs": logprobs, "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]},
    )
    deltas, completion = replay_stream(UP, CALL, [stream])
    assert [delta.text for delta in deltas] == ["a", "b"]
    assert deltas[0].logprobs == completion.choices[0].logprobs == (TokenLogprob("a", -1.0),)
    assert (completion.choices[0].message.text, completion.choices[0].finish_reason) == ("ab", "length")


def test_several_choices_of_a_stream_are_kept_apart() -> None:
    """By their indices; all must be finished."""
    stream = encode_chunks(
        build_chunk("b", index=1),
        build_chunk("a"),
        build_chunk(finish="stop"),
        build_chunk(finish="length", index=1),
        done=False,
    )
    _, completion = replay_stream(UP, CALL, [stream])
    assert [(choice.message.text, choice.finish_reason) for choice in completion.choices] == [("a", "stop"), ("b", "length")]
    assert (
        replay_failure(encode_chunks(build_chunk("b", index=1), build_chunk("a"), build_chunk(finish="stop"), done=False)).code
        == "stream_truncated"
    )


def test_refusals_and_odd_content_of_a_stream_are_read() -> None:
    """A refusal in pieces, parts of content, nulls, missing fields."""
    stream = encode_chunks(
        build_chunk(refusal="I "),
        build_chunk(refusal="cannot"),
        build_chunk([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]),
        {"choices": [{"index": 0, "delta": {"content": None}}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"delta": {"content": "b"}}]},
        {"choices": None},
        {},
        build_chunk(finish="content_filter"),
    )
    deltas, completion = replay_stream(UP, CALL, [stream])
    parsed = completion.choices[0].message
    assert (parsed.text, parsed.reasoning, parsed.refusal) == ("ab", "hm", "I cannot")
    assert len(deltas) == 4


SEEN = "data:image/png;base64,aGk="
WHOLES: dict[str, list[dict[str, Any]]] = {
    "empty deltas": [{"content": "He", "reasoning_content": "h"}, {"content": "Hey", "reasoning_content": "hm"}],
    "all again": [{"content": "Hey", "reasoning_content": "hm"}] * 3,
    "pieces": [{"content": "H", "reasoning": "h"}, {"content": "ey", "reasoning": "m"}, {"content": "", "reasoning": ""}],
}


@pytest.mark.parametrize("delta", [{}, {"delta": None}, {"delta": {"role": "assistant", "content": ""}}])
@pytest.mark.parametrize("messages", WHOLES.values(), ids=WHOLES)
def test_messages_in_place_of_deltas_are_read_once(messages: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Also beside deltas that hold nothing; what stands in them again is not added again."""
    beside = {"images": [SEEN], "refusal": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"x":1}'}}]}
    chunks = [{"choices": [{"index": 0, **delta, "message": {**message, **beside}}]} for message in messages]
    deltas, completion = replay_stream(UP, CALL, [encode_chunks(*chunks, build_chunk(finish="stop"))])
    message = completion.choices[0].message
    assert (message.text, message.reasoning, message.extra) == ("Hey", "hm", {"images": [SEEN]})
    assert "".join(delta.text for delta in deltas) == "Hey"
    assert [call["function"]["arguments"] for call in message.tool_calls] == ['{"x":1}']


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": "Hey"},
        {"delta": {}, "text": "Hey"},
        {"delta": {"content": {"type": "text", "text": "Hey"}}},
        {"message": "Hey"},
        {"message": {"role": "assistant"}, "text": "Hey"},
        {"message": {"content": {"type": "text", "text": "Hey"}}},
    ],
)
def test_text_is_found_wherever_a_host_puts_it(choice: dict[str, Any]) -> None:
    """In a stream and in a whole answer."""
    body = {"choices": [{"index": 0, "finish_reason": "stop", **choice}]}
    for completion in (replay_stream(UP, CALL, [encode_chunks(body)])[1], decode_answer(body)):
        assert completion.choices[0].message.text == "Hey"


def test_values_where_text_should_be_are_not_lost() -> None:
    message = {"content": {"a": [1]}, "reasoning": [{"summary": "hm"}]}
    answer = decode_answer({"choices": [{"message": message, "finish_reason": "stop"}]}).choices[0].message
    assert (answer.text, answer.extra) == ('{"a":[1]}', {"reasoning": [{"summary": "hm"}]})


def test_tool_calls_without_an_index_are_distinguished_by_id() -> None:
    """Gemini's OpenAI path sends them whole, with no index or always the same; what else they carry is kept."""
    first = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"s": 1}}
    second = {"index": 0, "id": "b", "function": {"name": "g", "arguments": {"x": 1}}}
    deltas, completion = replay_stream(
        UP,
        CALL,
        [encode_chunks(build_chunk(tool_calls=[first]), build_chunk(tool_calls=[second]), build_chunk(finish="tool_calls"))],
    )
    assert [delta.tool_calls[0]["index"] for delta in deltas] == [0, 1]
    assert completion.choices[0].message.tool_calls == (
        first,
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
    )


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        (encode_chunks(build_chunk(finish="stop"), done=False), "stop"),
        (b"data: [DONE]\n\n", None),
        (b"data: [DONE]", None),
        (b"data:[DONE] \r\n\r\n", None),
        (encode_chunks(build_chunk(finish="stop"), done=False).rstrip(), "stop"),
    ],
    ids=["finish alone", "done alone", "no blank line", "crlf", "finish without blank line"],
)
def test_either_a_finish_reason_or_the_terminator_ends_a_stream(end: bytes, finish: str | None) -> None:
    """transformers sends no `[DONE]`; a finish reason that did not come is not invented."""
    _, completion = replay_stream(UP, CALL, [encode_chunks(build_chunk("a"), done=False), end])
    assert (completion.choices[0].message.text, completion.choices[0].finish_reason) == ("a", finish)


@pytest.mark.parametrize("rest", [b"", b'data: {"id": "c1", "cho', b": ping\n\n", b"data: "], ids=repr)
def test_a_stream_with_neither_is_a_failure_with_its_partial_text(rest: bytes) -> None:
    """Cut between events or within one."""
    failure = replay_failure(encode_chunks(build_chunk("Hel"), build_chunk("lo"), done=False) + rest)
    assert (failure.kind, failure.code, failure.partial) == ("network", "stream_truncated", "Hello")


def test_a_last_event_that_nothing_ends_is_still_a_delta() -> None:
    """Whoever only passes deltas on must not lose the end."""
    stream = encode_chunks(build_chunk("a"), build_chunk("b", "stop"), done=False).rstrip()
    deltas, _ = replay_stream(UP, CALL, [stream])
    assert "".join(delta.text for delta in deltas) == "ab"


@pytest.mark.parametrize(
    ("event", "kind", "code"),
    [
        (
            b'event: error\ndata: {"error":{"message":"m","code":"tool_use_failed","status_code":400}}\n\n',
            "bad_request",
            "tool_use_failed",
        ),
        (b'event: error\ndata: {"detail":"m"}\n\n', "server", None),
        (encode_chunks({**build_chunk(""), "error": {"code": 502, "message": "m"}}), "server", None),
        (
            encode_chunks({"error": {"message": "m", "type": "server_error", "code": None, "param": None}}),
            "server",
            "server_error",
        ),
        (encode_chunks({"error": "m", "error_type": "overloaded"}), "rate_limit", "overloaded"),
        (encode_chunks({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}), "server", "error"),
        (encode_chunks({"choices": [{"index": 0, "delta": {}, "error": {"code": 429, "message": "m"}}]}), "rate_limit", None),
        (b"data: {broken}\n\ndata: [DONE]\n\n", "malformed", "invalid_json"),
        (b"data: 17\n\n", "malformed", "unexpected_shape"),
        (encode_chunks(build_chunk("x", index=4096)), "malformed", "unexpected_shape"),
        (encode_chunks(build_chunk("x", index=-1)), "malformed", "unexpected_shape"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_an_error_in_a_stream_is_its_failure(event: bytes, kind: str, code: str | None) -> None:
    """With the text so far, whether it came alone or in one read with that."""
    for pieces in (
        [encode_chunks(build_chunk("Hel"), done=False), event],
        [encode_chunks(build_chunk("Hel"), done=False) + event],
    ):
        failure = replay_failure(*pieces)
        assert (failure.kind, failure.code, failure.partial) == (kind, code, "Hel")


def test_an_endless_event_is_a_failure_with_the_text_before_it() -> None:
    """One line must not fill the memory."""
    failure = replay_failure(encode_chunks(build_chunk("Hel"), done=False), b"data: " + b"a" * (2**24 + 5000))
    assert (failure.kind, failure.code, failure.partial) == ("malformed", "event_too_large", "Hel")


def test_deltas_before_an_error_in_the_same_read_are_given() -> None:
    """The error is raised by the next method called."""
    events = UP.open_reader(CALL, {})
    deltas = events.feed(encode_chunks(build_chunk("Hel"), {"error": {"message": "m", "code": 400}}))
    assert ([delta.text for delta in deltas], events.is_ended) == (["Hel"], True)
    with pytest.raises(ProviderError) as caught:
        events.flush()
    assert caught.value.failure.partial == "Hel"


def test_bytes_behind_the_terminator_are_not_read() -> None:
    """Whatever it is."""
    _, completion = replay_stream(UP, CALL, [encode_chunks(build_chunk("a", "stop")) + b"data: {broken\n\n"])
    assert completion.choices[0].message.text == "a"


def test_a_stream_holds_no_more_than_an_answer_may() -> None:
    """The kept text counts, not the wrapping of a few characters in hundreds of bytes."""
    small, read = build_openai(max_answer_bytes=1024), encode_chunks(build_chunk("0123456789"), done=False)
    _, completion = replay_stream(small, build_call(small), [read] * 100 + [encode_chunks()])
    assert len(completion.choices[0].message.text) == 1000
    with pytest.raises(ProviderError) as caught:
        replay_stream(small, build_call(small), [read] * 110)
    assert caught.value.failure.code == "answer_too_large"


def read_any(pieces: list[bytes]) -> Completion | Failure:
    try:
        return replay_stream(UP, CALL, pieces)[1]
    except ProviderError as error:
        return error.failure


STREAM = encode_chunks(
    build_chunk(role="assistant", content=""),
    build_chunk("Hé", tool_calls=[{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]),
    build_chunk("llo", reasoning="hm"),
    {"choices": [{"index": 0, "text": "!", "logprobs": {"tokens": ["!"], "token_logprobs": [-1]}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_the_cuts_of_a_stream_do_not_matter(cuts: list[int]) -> None:
    """A stream gives the same in any pieces."""
    pieces = [STREAM[start:end] for start, end in pairwise([0, *sorted(cuts), len(STREAM)])]
    deltas, completion = replay_stream(UP, CALL, pieces)
    assert (deltas, completion) == replay_stream(UP, CALL, [STREAM])


@given(
    st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.binary(max_size=3)), min_size=1, max_size=5),
    st.integers(0, len(STREAM)),
)
def test_a_corrupt_stream_is_an_answer_or_a_failure(changes: list[tuple[int, bytes]], length: int) -> None:
    """Bytes changed, put in or taken away anywhere, the end cut off."""
    data = STREAM
    for place, new in changes:
        data = data[:place] + new + data[place + 1 :]
    ended = read_any([data[:length]])
    assert isinstance(ended, Completion) or ended.kind in ("malformed", "network", "server", "bad_request")
