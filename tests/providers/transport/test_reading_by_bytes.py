"""Answers are read by what their bytes are, whatever their headers name them, and never requested a second time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import aiohttp
import pytest

from fanout.core.schema import Choice, Completion
from fanout.dispatch.retries import is_transient
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.ollama import Ollama
from fanout.providers.transport.http import HttpProvider
from tests.support import bedrock_format
from tests.support.openai_format import UP, build_choice, build_chunk, build_openai, encode_chunks
from tests.support.provider_calls import (
    build_adapter,
    build_call,
    collect_stream,
    expect_answer,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)
from tests.support.upstream.raw import encode_chunk, encode_head, encode_response, serve_raw
from tests.support.vendor_streams import CLAUDE, COHERE, GEMINI

JSON = json.dumps({"id": "c1", "choices": [build_choice("Hello world")]}).encode()
EVENTS = encode_chunks(build_chunk("Hello"), build_chunk(" world"), build_chunk(finish="stop"))
LINES = b'{"message":{"content":"Hello"}}\n{"message":{"content":" world"},"done":true,"done_reason":"stop"}\n'
TYPES = ("application/json", "Application/JSON; charset=utf-8", "text/plain", "text/event-stream", "text/html", None)
BODIES = {
    "JSON": JSON,
    "JSON on many lines": json.dumps(json.loads(JSON), indent=2).encode(),
    "JSON behind a BOM": b"\xef\xbb\xbf \n" + JSON,
    "JSON and a terminator": JSON + b"\n\ndata: [DONE]\n\n",
    "JSON as one event": b"data: " + JSON + b"\n\ndata: [DONE]\n\n",
    "events": EVENTS,
    "events that single line ends keep apart": EVENTS.replace(b"\n\n", b"\n"),
    "events without `data:`": EVENTS.replace(b"data: ", b"").replace(b"\n\n", b"\n"),
    "a list of events": json.dumps([build_chunk("Hello"), build_chunk(" world", "stop")]).encode(),
    "events behind a comment": b": waiting\n\n\n" + EVENTS,
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


def get_choice(completion: Completion) -> Choice:
    (choice,) = completion.choices
    return choice


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_no_header_decides_how_an_answer_is_read(body: bytes, session: aiohttp.ClientSession) -> None:
    """JSON for a stream, a stream for a whole answer, and what stands between, under any media type."""
    for content_type, chunked in product(TYPES, (True, False)):
        async with serve_raw(encode_response(body, content_type, chunked=chunked)) as raw:
            provider = build_openai(raw.url, session=session)
            call = build_call(provider)
            deltas, streamed = await collect_stream(provider, call)
            whole = await provider.complete(call)
        assert "".join(delta.text for delta in deltas) == "Hello world"
        for completion in (streamed, whole):
            assert (get_choice(completion).message.text, get_choice(completion).finish_reason) == ("Hello world", "stop")
        assert len(raw.bodies) == 2


async def test_a_request_tells_that_it_wants_no_stream(session: aiohttp.ClientSession) -> None:
    """Some gateways stream unless they are told."""
    makes: tuple[Any, ...] = (
        build_openai,
        *(lambda url, session, make=make: build_adapter(make, url, session=session) for make in (Anthropic, Cohere, Ollama)),
    )
    async with serve_raw(encode_response(b"{}", "application/json")) as raw:
        for make in makes:
            provider = make(raw.url, session=session)
            with pytest.raises(Exception, match="up"):
                await provider.complete(build_call(provider))
    assert [json.loads(body)["stream"] for body in raw.bodies] == [False] * 4


OTHERS = [
    pytest.param(build_adapter(Anthropic), CLAUDE, id="anthropic"),
    pytest.param(build_adapter(Gemini), GEMINI, id="gemini"),
    pytest.param(build_adapter(Cohere), COHERE, id="cohere"),
    pytest.param(bedrock_format.UP, bedrock_format.STREAM, id="bedrock"),
    pytest.param(build_adapter(Ollama), LINES, id="ollama"),
]


@pytest.mark.parametrize(("provider", "stream"), OTHERS)
def test_a_stream_for_a_whole_answer_is_read_in_every_format(provider: HttpProvider, stream: bytes) -> None:
    """As the stream itself is."""
    call = build_call(provider)
    assert expect_answer(try_decode(provider, call, 200, stream)) == expect_answer(try_stream(provider, call, [stream]))


@pytest.mark.parametrize(("provider", "stream"), OTHERS[:3])
def test_single_line_ends_keep_named_events_apart(provider: HttpProvider, stream: bytes) -> None:
    """In the formats whose events have names too."""
    call, single = build_call(provider), stream.replace(b"\r\n", b"\n").replace(b"\n\n", b"\n")
    assert expect_answer(try_stream(provider, call, [single])) == expect_answer(try_stream(provider, call, [stream]))


def test_lines_of_json_are_read_as_events_too() -> None:
    """With comments, names and an end, as gateways write them."""
    provider, end = build_adapter(Ollama), b"data: [DONE]\n\n"
    events = b"".join(b": wait\n\nevent: line\ndata:" + line + b"\n\n" for line in LINES.splitlines())
    for stream in (events, events + end, events.replace(b"data:", b"data: ")):
        assert expect_answer(try_stream(provider, build_call(provider), [stream])) == expect_answer(
            try_stream(provider, build_call(provider), [LINES])
        )


async def test_a_pretty_object_for_lines_is_read(session: aiohttp.ClientSession) -> None:
    """Ollama's stream is lines of JSON, so an object on many lines is none of them."""
    body = json.dumps({"message": {"content": "Hello"}, "done": True, "done_reason": "stop"}, indent=1).encode()
    for part in (body, json.dumps(json.loads(body)).encode(), body.replace(b"\n", b"\r\n")):
        async with serve_raw(encode_response(part, "application/x-ndjson", chunked=True)) as raw:
            provider = build_adapter(Ollama, raw.origin, session=session)
            _, completion = await collect_stream(provider, build_call(provider))
        assert get_choice(completion).message.text == "Hello"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Service unavailable",
        b": ping\n\n",
        b"data: {}\n\n",
        b"<html></html>",
        b"{",
        EVENTS[:120],
        b"data: [DONE]\n\n",
        b"7",
    ],
)
async def test_what_came_whole_is_not_requested_again(body: bytes, session: aiohttp.ClientSession) -> None:
    """However odd it is: it may have been paid for."""
    for chunked in (True, False):
        async with serve_raw(encode_response(body, "text/event-stream", chunked=chunked)) as raw:
            provider = build_openai(raw.url, session=session)
            for answer in (collect_stream(provider, build_call(provider)), provider.complete(build_call(provider))):
                with pytest.raises(Exception, match="up") as caught:
                    await answer
                failure = caught.value.failure  # type: ignore[attr-defined]
                assert failure.kind == "malformed"
                assert not is_transient(failure)


async def test_a_stream_that_only_its_connection_ends_may_have_been_cut(session: aiohttp.ClientSession) -> None:
    """Then nothing shows that it came whole."""
    body = encode_chunks(build_chunk("Hel"), done=False)

    async with serve_raw(encode_head("Content-Type: text/event-stream", f"Content-Length: {len(body) + 1}") + body) as raw:
        provider = build_openai(raw.url, session=session)
        waiting = provider.stream(build_call(provider))
        assert (await anext(waiting)).text == "Hel"  # type: ignore[union-attr]  # a delta
        await waiting.aclose()
    failure = expect_failure(try_stream(UP, build_call(UP), [body]))
    assert (failure.kind, failure.code, is_transient(failure)) == ("network", "stream_truncated", True)


@pytest.mark.parametrize(
    "line", [b'error: {"error": {"message": "too long"}}', b'error: {"type": "x", "message": "too long"}', b"error: too long"]
)
def test_a_line_named_error_is_the_failure_of_the_stream(line: bytes) -> None:
    """With the text before it, from whichever side it is kept apart."""
    begun = encode_chunks(build_chunk("It is"), done=False)
    for stream in (begun + line + b"\n\n", begun[:-1] + line, begun + line + b"\ndata: [DONE]\n\n"):
        failure = expect_failure(try_stream(UP, build_call(UP), [stream]))
        assert (failure.kind, failure.message, failure.partial) == ("server", "too long", "It is")


def test_frames_before_a_damaged_one_are_read() -> None:
    """Also where they came in one read; events before one that is too large, too."""
    damaged = bytearray(bedrock_format.STREAM)
    place = damaged.rindex(b"messageStop")
    damaged[place] ^= 1
    failure = expect_failure(try_stream(bedrock_format.UP, bedrock_format.CALL, [bytes(damaged)]))
    assert (failure.code, failure.partial) == ("invalid_frame", "Hello")
    small = build_openai(max_answer_bytes=1000)
    failure = expect_failure(try_stream(small, build_call(small), [EVENTS[:-20] + b"data: " + b"x" * 6000 + b"\n\n"]))
    assert failure.code == "event_too_large"
    assert failure.partial == "Hello world"


async def test_one_event_may_be_as_large_as_a_whole_answer(session: aiohttp.ClientSession) -> None:
    """An image in an answer is one."""
    event = encode_chunks(build_chunk("a" * 15_000_000, "stop"))
    response = [
        encode_head("Transfer-Encoding: chunked"),
        *(encode_chunk(event[at : at + 60_000]) for at in range(0, len(event), 60_000)),
    ]
    async with serve_raw(*response, encode_chunk(b"")) as raw:
        provider = build_openai(raw.url, session=session)
        _, completion = await collect_stream(provider, build_call(provider))
    assert len(get_choice(completion).message.text) == 15_000_000


@pytest.mark.parametrize(
    "idle",
    [b": ping\n\n", b"data: {}\n\n", encode_chunks(build_chunk("", role="assistant"), done=False), b"\n\n", b"data: \n\n"],
)
def test_chunks_that_hold_nothing_count_against_an_answer(idle: bytes) -> None:
    """An upstream cannot keep a call busy with comments; those that a long answer brings along are no matter."""
    small = build_openai(max_answer_bytes=100_000)
    call = build_call(small)
    failure = expect_failure(try_stream(small, call, [encode_chunks(build_chunk("Hel"), done=False), *[idle * 50] * 2000]))
    assert (failure.code, failure.partial) == ("answer_too_large", "Hel")
    chatty = [encode_chunks(build_chunk("a"), done=False) + b": note\n\n" * 100] * 500
    assert get_choice(expect_answer(try_stream(small, call, [*chatty, EVENTS]))).finish_reason == "stop"


def test_idle_frames_and_lines_count_in_the_other_formats_too() -> None:
    """Bedrock's padding, Ollama's empty lines."""
    bedrock = build_adapter(Bedrock, "https://bedrock-runtime.eu-west-1.amazonaws.com", max_answer_bytes=2000)
    assert expect_failure(try_stream(bedrock, build_call(bedrock), [bedrock_format.START] * 100)).code == "answer_too_large"
    ollama = build_adapter(Ollama, max_answer_bytes=2000)
    assert expect_failure(try_stream(ollama, build_call(ollama), [b"\n" * 100] * 100)).code == "answer_too_large"


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_constants_that_are_no_json_are_null(constant: bytes) -> None:
    """In whole answers and in events: a log probability of zero chances fails no answer."""
    token = (
        b'{"token": "Hi", "logprob": -0.1, "top_logprobs": [{"token": "x", "logprob": %b}, {"token": "y", "logprob": -3}]}'
        % constant
    )
    inner = b'"logprobs": {"content": [%b]}, "finish_reason": "stop"' % token
    whole = b'{"usage": {"cost": %b}, "choices": [{"message": {"content": "Hi"}, %b}]}' % (constant, inner)
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, %b}]}\n\n' % inner
    for result in (try_decode(UP, build_call(UP), 200, whole), try_stream(UP, build_call(UP), [event])):
        choice = get_choice(expect_answer(result))
        assert (choice.message.text, choice.finish_reason) == ("Hi", "stop")
        assert choice.logprobs
        assert (choice.logprobs[0].logprob, choice.logprobs[0].top) == (-0.1, (("y", -3.0), ("x", None)))
