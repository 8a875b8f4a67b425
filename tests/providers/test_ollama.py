"""Ollama's own format: what is sent, and its lines, cut anywhere."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Failure, Query, TokenLogprob
from fanout.providers.ollama import Ollama
from fanout.providers.transport.ndjson import NdjsonDecoder
from tests.support.conversations import PNG
from tests.support.provider_calls import (
    KEY,
    build_adapter,
    build_call,
    collect_stream,
    corrupt,
    cut_at,
    encode_body,
    expect_answer,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_answers

HOST = "http://127.0.0.1:11434"
UP = build_adapter(Ollama, HOST, key=None)
CALL = build_call(UP, "llama3.2")
TEXT = build_call(UP, "llama3.2", prompt="Once")
# Source: docs/api.md
COUNTS = {
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}
HEAD = {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00"}
END = {**HEAD, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **COUNTS}


def encode_lines(*items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def build_line(content: str = "", **message: Any) -> dict[str, Any]:
    return {**HEAD, "message": {"role": "assistant", "content": content, **message}, "done": False}


STREAM = encode_lines(build_line("The "), build_line("sky ☀"), END)


def test_a_conversation_is_converted() -> None:
    """Parameters stand in `options`, images beside the text; a tool's answer names the tool."""
    data = base64.b64encode(PNG).decode()
    arguments = '{"zone": "UTC"}'
    messages = (
        Message("developer", "Be brief"),
        Message("user", (TextPart("What "), TextPart("is this?"), ImagePart(f"data:image/png;base64,{data}"))),
        Message("assistant", None, {"tool_calls": [{"id": "c1", "function": {"name": "clock", "arguments": arguments}}]}),
        Message("tool", "Noon", {"tool_call_id": "c1"}),
    )
    params: dict[str, Any] = {"max_tokens": 9, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "seed": 7, "stop": ("a",)}
    call = build_call(
        UP, "llava", messages=messages, repetition_penalty=1.1, logprobs=2, passthrough={"keep_alive": "5m"}, **params
    )
    assert encode_body(UP, call) == {
        "model": "llava",
        "stream": False,
        "keep_alive": "5m",
        "logprobs": True,
        "top_logprobs": 2,
        "options": {
            "num_predict": 9,
            "temperature": 0.5,
            "top_k": 5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["a"],
            "repeat_penalty": 1.1,
        },
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "What is this?", "images": [data]},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "UTC"}}}]},
            {"role": "tool", "content": "Noon", "tool_name": "clock"},
        ],
    }
    assert call.fitted.ignored == ()


def test_text_is_sent_raw_unless_it_has_a_suffix() -> None:
    """A suffix is put in by the model's template, which `raw` would pass by."""
    assert encode_body(UP, TEXT) == {"model": "llama3.2", "stream": False, "prompt": "Once", "raw": True}
    call = build_call(UP, "codellama", prompt="def f(", suffix="return x", max_tokens=5)
    assert encode_body(UP, call, stream=True) == {
        "model": "codellama",
        "stream": True,
        "prompt": "def f(",
        "suffix": "return x",
        "options": {"num_predict": 5},
    }
    assert UP.encode(call, stream=True).url.path == "/api/generate"
    assert UP.encode(CALL, stream=True).url.path == "/api/chat"


def test_parameters_override_a_callers_own_options() -> None:
    call = build_call(UP, temperature=0.5, passthrough={"options": {"num_ctx": 8192, "temperature": 1}})
    assert encode_body(UP, call)["options"] == {"num_ctx": 8192, "temperature": 0.5}


def test_unknown_parameters_are_ignored_and_reported() -> None:
    call = build_call(UP, n=2, best_of=2, logit_bias={"1": 5}, echo=True, user="me", suffix="x", passthrough={"metadata": {}})
    assert encode_body(UP, call) == {"model": "m", "stream": False, "messages": [{"role": "user", "content": "Hello"}]}
    assert set(call.fitted.ignored) == {"n", "best_of", "logit_bias", "echo", "user", "suffix", "metadata"}


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}, {"type": "object"}),
        ({"type": "text"}, None),
        ({"type": "grammar"}, None),
    ],
)
def test_the_response_format_is_converted(wanted: Any, sent: Any) -> None:
    call = build_call(UP, passthrough={"response_format": wanted})
    assert encode_body(UP, call).get("format") == sent
    assert call.fitted.ignored == (("response_format",) if wanted["type"] == "grammar" else ())


def test_tools_are_converted() -> None:
    """No field chooses one of them."""
    function = {"name": "clock", "parameters": {"type": "object"}}
    call = build_call(UP, passthrough={"tools": [{"type": "function", "function": function}], "tool_choice": "required"})
    assert encode_body(UP, call)["tools"] == [{"type": "function", "function": function}]
    assert call.fitted.ignored == ("tool_choice",)
    none = build_call(UP, passthrough={"tools": [{"type": "function", "function": function}], "tool_choice": "none"})
    assert "tools" not in encode_body(UP, none)


@pytest.mark.parametrize(
    "query",
    [
        Query(messages=(Message("user", (OtherPart({"type": "input_audio"}),)),)),
        Query(messages=(Message("assistant", (ImagePart("data:,GIF89a"),)),)),
        Query(messages=(Message("user", (ImagePart("https://example.com/not-fetched.png"),)),)),
        Query(prompt_tokens=(1, 2)),
    ],
    ids=["audio", "assistants-image", "not-fetched", "token-ids"],
)
def test_a_query_the_format_cannot_express_is_refused(query: Query) -> None:
    with pytest.raises(ProviderError) as caught:
        UP.encode(replace(CALL, query=query), stream=False)
    assert caught.value.failure.kind in ("unsupported", "bad_request")


def test_a_key_is_sent_where_there_is_one() -> None:
    """Ollama's own cloud wants one."""
    assert "Authorization" not in UP.encode(CALL, stream=False).headers
    keyed = build_adapter(Ollama, "https://ollama.com")
    assert keyed.encode(build_call(keyed), stream=False).headers["Authorization"] == f"Bearer {KEY}"
    assert keyed.encode(build_call(keyed, own_key="mine-0123"), stream=False).headers["Authorization"] == "Bearer mine-0123"
    with pytest.raises(ProviderError, match="no address"):
        build_adapter(Ollama, None).encode(CALL, stream=False)


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (CALL, {**END, "message": {"role": "assistant", "content": "The sky ☀"}}),
        (TEXT, {**HEAD, "response": "The sky ☀", "done": True, "done_reason": "stop", "context": [1], **COUNTS}),
    ],
    ids=["chat", "text"],
)
def test_a_whole_answer_is_read(call: Any, body: Any) -> None:
    completion = expect_answer(try_decode(UP, call, 200, body))
    (choice,), usage = completion.choices, completion.usage
    assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("The sky ☀", "stop", None)
    assert usage
    assert (usage.input_tokens, usage.output_tokens, usage.raw) == (26, 282, COUNTS)
    assert completion.model == "llama3.2"


def test_a_stream_equals_the_whole_answer() -> None:
    body = {**END, "message": {"role": "assistant", "content": "The sky ☀"}}
    assert expect_answer(try_stream(UP, CALL, [STREAM])) == expect_answer(try_decode(UP, CALL, 200, body))
    texts = [{**HEAD, "response": "Once", "done": False}, {**HEAD, "response": "", "done": True, "done_reason": "length"}]
    choice = expect_answer(try_stream(UP, TEXT, [encode_lines(*texts)])).choices[0]
    assert (choice.message.text, choice.finish_reason) == ("Once", "length")


def test_thoughts_tool_calls_and_logprobs_are_read() -> None:
    """Whole and streamed alike; calls get the ids they lack."""
    calls = [{"function": {"name": name, "arguments": {"zone": "UTC"}}} for name in ("clock", "date")]
    alternatives = [{"token": "Hi", "logprob": -0.5}, {"token": "Ho", "logprob": -1.5}]
    logprobs = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": alternatives}]
    body = {**END, "message": {"content": "Hi", "thinking": "Hm", "tool_calls": calls}, "logprobs": logprobs}
    stream = [
        build_line(thinking="Hm"),
        {**build_line("Hi"), "logprobs": logprobs},
        build_line(tool_calls=calls[:1]),
        build_line(tool_calls=calls[1:]),
        END,
    ]
    both = [expect_answer(try_decode(UP, CALL, 200, body)), expect_answer(try_stream(UP, CALL, [encode_lines(*stream)]))]
    for completion in both:
        (choice,) = completion.choices
        assert (choice.message.text, choice.message.reasoning, choice.finish_reason) == ("Hi", "Hm", "tool_calls")
        assert choice.native_finish_reason == "stop"
        assert choice.logprobs == (TokenLogprob("Hi", -0.5, (("Hi", -0.5), ("Ho", -1.5)), b"Hi"),)
        assert [call["function"]["name"] for call in choice.message.tool_calls] == ["clock", "date"]
        assert [call["id"] for call in choice.message.tool_calls] == ["call_0", "call_1"]
        assert json.loads(choice.message.tool_calls[1]["function"]["arguments"]) == {"zone": "UTC"}
    assert both[0].choices == both[1].choices


@pytest.mark.parametrize(
    ("word", "reason", "native"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("load", None, "load"),
        ("unload", None, "unload"),
        (None, None, None),
    ],
)
def test_finish_reasons_are_translated(word: str | None, reason: str | None, native: str | None) -> None:
    end = {**END, "done_reason": word}
    for result in (try_decode(UP, CALL, 200, end), try_stream(UP, CALL, [encode_lines(build_line("Hi"), end)])):
        choice = expect_answer(result).choices[0]
        assert (choice.finish_reason, choice.native_finish_reason) == (reason, native)


def test_counts_that_are_missing_are_unknown() -> None:
    """The prompt's is where it was cached."""
    usage = expect_answer(
        try_decode(UP, CALL, 200, {**HEAD, "message": {"content": "Hi"}, "done": True, "eval_count": 2})
    ).usage
    assert usage
    assert (usage.input_tokens, usage.output_tokens) == (None, 2)
    assert expect_answer(try_decode(UP, CALL, 200, {**HEAD, "message": {"content": "Hi"}, "done": True})).usage is None


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "bad_request"), (404, "not_found"), (429, "rate_limit"), (500, "server"), (502, "server")]
)
def test_errors_are_bare_sentences(status: int, kind: str) -> None:
    failure = expect_failure(try_decode(UP, CALL, status, {"error": "model 'x' not found"}))
    assert (failure.kind, failure.status) == (kind, status)
    if status < 500:
        assert failure.message == "model 'x' not found"


def test_an_error_may_come_with_status_200() -> None:
    """Whole, or as a line behind some text."""
    assert expect_failure(try_decode(UP, CALL, 200, {"error": "out of memory"})).kind == "server"
    failure = expect_failure(
        try_stream(UP, CALL, [encode_lines(build_line("The "), {"error": "an error was encountered while running the model"})])
    )
    assert (failure.kind, failure.partial) == ("server", "The ")
    assert "while running the model" in failure.message


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (encode_lines(build_line("The ")), "stream_truncated"),
        (STREAM[:-40], "stream_truncated"),
        (b"", "stream_truncated"),
        (encode_lines(build_line("The ")) + b"{oops}\n", "invalid_json"),
        (b"[]\n", "unexpected_shape"),
        (b'{"model": "' + b"x" * (2**24 + 5000), "event_too_large"),
        (b"x" * (2**24 + 5000) + b"\n", "event_too_large"),
    ],
)
def test_an_incomplete_stream_is_a_failure(stream: bytes, code: str) -> None:
    failure = expect_failure(try_stream(UP, CALL, [stream]))
    assert (failure.kind, failure.code) == ("network" if code == "stream_truncated" else "malformed", code)


def test_the_last_line_needs_no_line_feed() -> None:
    assert try_stream(UP, CALL, [STREAM.rstrip()])[1:] == try_stream(UP, CALL, [STREAM])[1:]  # type: ignore[index]  # both are answers


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"message": 5}'])
def test_a_body_that_is_no_answer_is_a_failure(body: bytes) -> None:
    assert expect_failure(try_decode(UP, CALL, 200, body)).kind == "malformed"


def test_too_large_an_answer_is_a_failure() -> None:
    small = build_adapter(Ollama, HOST, max_answer_bytes=100)
    assert expect_failure(try_stream(small, CALL, [encode_lines(*[build_line("x" * 60)] * 3)])).code == "answer_too_large"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("message", "content", "thinking", "tool_calls", "function", "name", "arguments", "response"),
                    *("done", "done_reason", "logprobs", "eval_count", "error", "model", "token"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=4))
def test_any_lines_are_an_answer_or_a_failure(items: list[Any]) -> None:
    try_stream(UP, CALL, [encode_lines(*items, END)])


@given(JSON, st.sampled_from([200, 400, 500]))
def test_any_body_is_an_answer_or_a_failure(body: Any, status: int) -> None:
    try_decode(UP, CALL, status, body)


@given(st.lists(st.integers(0, len(STREAM))))
def test_the_cuts_of_a_stream_do_not_matter(places: list[int]) -> None:
    assert try_stream(UP, CALL, cut_at(STREAM, places)) == try_stream(UP, CALL, [STREAM])


@given(st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 255))), st.lists(st.integers(0, 999)))
def test_a_corrupt_stream_is_an_answer_or_a_failure(changes: list[tuple[int, int]], places: list[int]) -> None:
    """The same one wherever it is cut, but for what had been given before."""
    body = corrupt(STREAM, changes)
    result, other = try_stream(UP, CALL, [body]), try_stream(UP, CALL, cut_at(body, places))
    assert isinstance(result, Failure) == isinstance(other, Failure)
    if isinstance(result, Failure) and isinstance(other, Failure):
        assert (result.kind, result.code) == (other.kind, other.code)
    else:
        assert result == other


@given(st.lists(st.binary().map(lambda data: b"{" + data.replace(b"\n", b""))), st.lists(st.integers(0, 999)))
def test_lines_are_split_at_line_feeds_only(items: list[bytes], places: list[int]) -> None:
    decoder, body = NdjsonDecoder(2**20), b"\n".join(items)
    found = [line for part in cut_at(body, places) for _, line in decoder.feed(part)] + [line for _, line in decoder.close()]
    assert found == [item.strip() for item in items]


async def test_calls_work_over_the_network() -> None:
    """Whole and streamed, an image fetched before; a refusal's connection is kept like another."""
    async with serve_answers(answer_with(PNG)) as images, open_session() as session:
        for stream in (False, True):
            answer = answer_in_pieces(cut_at(STREAM, range(0, 999, 11)), "application/x-ndjson") if stream else answer_with(END)
            async with serve_answers(answer) as served:
                up = build_adapter(Ollama, served.url, session=session)
                up.allowed_networks = [ip_network("127.0.0.1/32")]
                call = build_call(up, messages=(Message("user", (TextPart("What?"), ImagePart(images.url))),))
                completion = (await collect_stream(up, call))[1] if stream else await up.complete(call)
            ((path, _, body),) = served.requests
            assert (path, json.loads(body)["stream"]) == ("/api/chat", stream)
            assert json.loads(body)["messages"][0]["images"] == [base64.b64encode(PNG).decode()]
            assert completion.choices[0].finish_reason == "stop"
        async with serve_answers(answer_with({"error": "model 'm' not found"}, status=404)) as served:
            up = build_adapter(Ollama, served.url, session=session)
            with pytest.raises(ProviderError, match="model 'm' not found"):
                await collect_stream(up, build_call(up))
