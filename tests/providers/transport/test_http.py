"""Calls over real sockets: broken connections, closed ones and reused ones, by Fanout's own client and by aiohttp's."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

import aiohttp
import pytest

from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.schema import Completion, Delta, Failure
from tests.support.openai_format import build_choice, build_chunk, build_openai, encode_chunks
from tests.support.provider_calls import KEY, build_call, collect_stream, open_session
from tests.support.timing import timed
from tests.support.upstream.raw import encode_chunk, encode_head, serve_bytes
from tests.support.upstream.script import FAULT_SCRIPTS
from tests.support.upstream.server import Upstream, reserve_refusing_url

HIGHEST_BYTES = 2**22


@pytest.fixture(params=[True, False], ids=["own", "aiohttp"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(may_write_heads=request.param) as session:
        yield session


EVENT_STREAM = encode_head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")


async def await_outcome(answer: Awaitable[object]) -> Failure | object:
    """Return a failure instead of raising it; no other exception may be raised."""
    try:
        return await answer
    except ProviderError as error:
        return error.failure


async def await_failure(answer: Awaitable[object]) -> Failure:
    result = await await_outcome(answer)
    assert isinstance(result, Failure)
    return result


async def test_a_call_is_one_post(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """It has the key and a known length, and is not compressed."""
    provider = build_openai(upstream.url, session=session)
    completion = await provider.complete(build_call(provider, "ok", max_tokens=5))
    assert completion.choices[0].message.text == "This is ok."
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    sent = {"model": "ok", "stream": False, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    assert request.body == sent


async def test_a_stream_yields_its_deltas_as_they_arrive(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """The completion with its usage comes last; chat and text behave alike."""
    provider = build_openai(upstream.url, session=session)
    for call in (build_call(provider, "chunks-5-gap-0.05"), build_call(provider, "chunks-5-gap-0.05", prompt="Once")):
        async with aclosing(provider.stream(call)) as stream:
            pieces = [(time.monotonic(), piece) async for piece in stream]
        completion = pieces[-1][1]
        assert isinstance(completion, Completion)
        assert completion.choices[0].message.text == "w0 w1 w2 w3 w4 "
        assert completion.usage is not None
        assert completion.usage.output_tokens == 4
        assert len(pieces) == 6
        assert pieces[-1][0] - pieces[0][0] > 0.1
    assert upstream.requests[1].path == "/v1/completions"


async def test_connections_are_kept_for_the_next_call(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """This holds after answers, streams and errors that were read to their end."""
    provider = build_openai(upstream.url, session=session)
    for model in ("ok", "429", "error-502", "bad_json"):
        await await_outcome(provider.complete(build_call(provider, model)))
    for model in ("ok", "no_done", "unfinished", "empty_choices", "429"):
        await await_outcome(collect_stream(provider, build_call(provider, model)))
    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("model", "whole", "streamed"),
    [
        ("drop", "disconnected", "disconnected"),
        ("cut", "answer_truncated", "stream_truncated"),
        ("rst", "answer_truncated", "stream_truncated"),
        ("bad_http", "bad_http", "bad_http"),
        ("bad_chunk", "answer_truncated", "stream_truncated"),
        ("bad_json", "invalid_json", "invalid_json"),
        ("html", "invalid_json", "invalid_json"),
        ("empty_choices", "no_choices", "no_choices"),
        ("302", "redirect", "redirect"),
        ("401", "invalid_api_key", "invalid_api_key"),
        ("404", "invalid_request_error", "invalid_request_error"),
        ("503", "server_error", "server_error"),
    ],
)
async def test_a_broken_answer_is_a_failure_with_its_own_code(
    upstream: Upstream, session: aiohttp.ClientSession, model: str, whole: str, streamed: str
) -> None:
    """If a stream had begun, the failure has its partial text."""
    provider = build_openai(upstream.url, session=session)
    failure = await await_failure(provider.complete(build_call(provider, model)))
    assert failure.code == whole
    failure = await await_failure(collect_stream(provider, build_call(provider, model)))
    assert failure.code == streamed
    assert ("This" in (failure.partial or "")) == (model in ("cut", "rst", "bad_chunk", "bad_json"))
    assert str(upstream.port) not in failure.message


async def test_a_redirect_is_not_followed(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """The key would go to the other host."""
    provider = build_openai(upstream.url, session=session)
    failure = await await_failure(provider.complete(build_call(provider, "307")))
    assert (failure.kind, failure.status) == ("server", 307)
    assert len(upstream.requests) == 1


async def test_a_key_and_an_address_that_an_upstream_repeats_are_hidden(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    """The message stays short as well."""
    provider = build_openai(upstream.url, session=session)
    failure = await await_failure(provider.complete(build_call(provider, "400-leak", own_key="my-own-key-77")))
    assert failure.message.startswith("the upstream says 400; you sent [key] to [address]")
    assert "77" not in failure.message
    assert str(upstream.port) not in failure.message


@pytest.mark.parametrize("model", [name for name in FAULT_SCRIPTS if not name.startswith(("hang", "first", "mb", "tail"))])
async def test_whatever_an_upstream_does_is_an_answer_or_a_failure(
    upstream: Upstream, session: aiohttp.ClientSession, model: str
) -> None:
    """Nothing else is raised, whole or streamed, chat or text."""
    provider = build_openai(upstream.url, session=session, max_answer_bytes=2**20)
    for call in (build_call(provider, model), build_call(provider, model, prompt="Once")):
        for answer in (provider.complete(call), collect_stream(provider, call)):
            result = await await_outcome(answer)
            assert isinstance(result, Failure | Completion | tuple)


async def test_a_closed_port_is_a_network_failure(session: aiohttp.ClientSession) -> None:
    """The message does not show the address."""
    with reserve_refusing_url() as url:
        provider = build_openai(url, session=session)
        failure = await await_failure(provider.complete(build_call(provider)))
    assert (failure.kind, failure.code) == ("network", "connect_error")
    assert failure.message == "cannot connect to `up`: Connection refused"


async def test_an_unknown_host_is_a_network_failure(session: aiohttp.ClientSession) -> None:
    """`.invalid` never resolves (RFC 2606)."""
    provider = build_openai("http://no-such-host.invalid/v1", session=session)
    failure = await await_failure(provider.complete(build_call(provider)))
    assert (failure.kind, failure.code) == ("network", "dns_error")
    assert "invalid" not in failure.message


async def test_an_untrusted_certificate_is_a_final_failure(session: aiohttp.ClientSession) -> None:
    """It is not retried, because a certificate does not change."""
    async with Upstream(tls=True) as upstream:
        provider = build_openai(upstream.url, session=session)
        failure = await await_failure(provider.complete(build_call(provider, "ok")))
        assert (failure.kind, failure.code, failure.should_retry) == ("network", "tls_error", False)
        assert not upstream.requests


async def test_a_tls_handshake_with_a_plain_http_server_fails(session: aiohttp.ClientSession) -> None:
    """The address has a wrong `https`, and the server answers the handshake in plain text."""

    async def complain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_head(status=400))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(complain, "127.0.0.1", 0) as server:
        provider = build_openai(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", session=session)
        failure = await await_failure(provider.complete(build_call(provider)))
    assert (failure.code, failure.should_retry) == ("tls_error", False)


@timed
async def test_connecting_has_a_limit_of_its_own(session: aiohttp.ClientSession) -> None:
    """It includes the TLS handshake, which is not answered here."""
    async with serve_bytes() as url:
        provider = build_openai(url.replace("http:", "https:"), session=session, connect_timeout_s=0.2)
        start = time.monotonic()
        failure = await await_failure(provider.complete(build_call(provider)))
    assert (failure.kind, failure.code) == ("network", "connect_timeout")
    assert failure.message == "no connection to `up` within 0.2 s"
    assert time.monotonic() - start < 2


# ── sizes ──


async def test_an_answer_beyond_the_limit_is_not_read(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Its stated length decides at once, otherwise the bytes that have arrived; the connection is closed."""
    provider = build_openai(upstream.url, session=session, max_answer_bytes=HIGHEST_BYTES)
    for number, model in enumerate(("mb-20-tail-5", "mb-20-bad_chunk")):
        failure = await await_failure(provider.complete(build_call(provider, model)))
        assert (failure.kind, failure.code) == ("malformed", "answer_too_large")
        await upstream.wait_until_closed()
        assert upstream.requests[number].is_abandoned


async def test_a_stream_beyond_the_limit_is_closed(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """It arrives in many pieces, or in one line that does not end."""
    provider = build_openai(upstream.url, session=session, max_answer_bytes=HIGHEST_BYTES)
    failure = await await_failure(collect_stream(provider, build_call(provider, "mb-20-tail-5")))
    assert failure.code == "answer_too_large"
    assert len(failure.partial or "") >= HIGHEST_BYTES
    failure = await await_failure(collect_stream(provider, build_call(provider, "mb-20-chunks-1-tail-5")))
    assert failure.code == "event_too_large"
    await upstream.wait_until_closed()
    assert [request.is_abandoned for request in upstream.requests] == [True, True]


async def test_the_limit_counts_a_body_after_decompression(session: aiohttp.ClientSession) -> None:
    """A host may compress even if the request does not accept it."""
    packed = gzip.compress(b" " * 2**26)
    lines = ("Content-Type: application/json", "Content-Encoding: gzip", f"Content-Length: {len(packed)}")
    async with serve_bytes(encode_head(*lines), packed) as url:
        provider = build_openai(url, session=session, max_answer_bytes=HIGHEST_BYTES)
        assert (await await_failure(provider.complete(build_call(provider)))).code == "answer_too_large"
    small = gzip.compress(json.dumps({"choices": [build_choice("unpacked")]}).encode())
    async with serve_bytes(encode_head(*lines[:2], f"Content-Length: {len(small)}"), small) as url:
        provider = build_openai(url, session=session)
        assert (await provider.complete(build_call(provider))).choices[0].message.text == "unpacked"


async def test_large_bodies_are_sent_and_received(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """They are encoded and parsed in a thread; aiohttp does not warn of large bytes."""
    provider = build_openai(upstream.url, session=session)
    call = build_call(provider, "mb-2", messages=(Message("user", "é" * 1_500_000),))
    completion = await provider.complete(call)
    assert len(completion.choices[0].message.text) == 2 * 10**6
    assert len(upstream.requests[0].body["messages"][0]["content"]) == 1_500_000


# ── ends ──


@pytest.mark.parametrize("model", ["hang", "hang_body", "sleep-30"])
@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_closes_the_upstreams_connection(
    upstream: Upstream, session: aiohttp.ClientSession, model: str, stream: bool
) -> None:
    """It is closed at once, before the headers or within the body, so that the model stops."""
    provider = build_openai(upstream.url, session=session)
    call = build_call(provider, model)
    task = asyncio.ensure_future(collect_stream(provider, call) if stream else provider.complete(call))
    await upstream.wait_for_requests(1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.wait_until_closed(1.0)
    assert upstream.requests[0].is_abandoned


@pytest.mark.parametrize("may_write_heads", [True, False], ids=["own", "aiohttp"])
async def test_cancelling_closes_a_tls_connection_at_once_too(may_write_heads: bool) -> None:
    """It is closed without waiting for the other side's `close_notify`."""
    async with Upstream(tls=True) as upstream:
        trusting = ssl.create_default_context()
        assert upstream.authority
        upstream.authority.configure_trust(trusting)
        async with open_session(may_write_heads=may_write_heads, verify=trusting) as session:
            provider = build_openai(upstream.url, session=session)
            _, completion = await collect_stream(provider, build_call(provider, "ok"))
            assert completion.choices[0].message.text == "This is ok."
            task = asyncio.ensure_future(provider.complete(build_call(provider, "hang_body")))
            await upstream.wait_for_requests(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await upstream.wait_until_closed(1.0)
            assert upstream.requests[1].is_abandoned


async def test_a_callers_time_limit_is_not_taken_for_a_failure(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """`asyncio.timeout` around a call raises `TimeoutError`."""
    provider = build_openai(upstream.url, session=session)
    for answer in (
        provider.complete(build_call(provider, "hang")),
        collect_stream(provider, build_call(provider, "hang_body")),
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await answer
    await upstream.wait_until_closed(1.0)


async def test_leaving_a_stream_early_closes_the_upstreams_connection(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    """The reader leaves after a delta."""
    provider = build_openai(upstream.url, session=session)
    async with aclosing(provider.stream(build_call(provider, "chunks-1000-gap-0.01"))) as pieces:
        assert isinstance(await anext(pieces), Delta)
    await upstream.wait_until_closed(1.0)
    assert upstream.requests[0].is_abandoned


@timed
async def test_an_error_in_a_stream_closes_the_upstreams_connection(session: aiohttp.ClientSession) -> None:
    """The rest of the stream is not waited for."""
    body = encode_chunks(build_chunk("Hel"), {"error": {"message": "no", "code": 400}}, done=False)
    async with serve_bytes(EVENT_STREAM, encode_chunk(body)) as url:
        provider = build_openai(url, session=session)
        start = time.monotonic()
        failure = await await_failure(collect_stream(provider, build_call(provider)))
    assert (failure.kind, failure.partial) == ("bad_request", "Hel")
    assert time.monotonic() - start < 0.15


@timed
async def test_a_connection_that_stays_open_after_the_terminator_is_closed(session: aiohttp.ClientSession) -> None:
    """The answer is complete; the end of its body is waited for only a moment."""
    async with serve_bytes(EVENT_STREAM, encode_chunk(encode_chunks(build_chunk("a", "stop")))) as url:
        provider = build_openai(url, session=session)
        start = time.monotonic()
        _, completion = await collect_stream(provider, build_call(provider))
        assert completion.choices[0].message.text == "a"
        assert time.monotonic() - start < 1
        assert session.connector
        assert not session.connector._conns


async def test_a_body_that_ends_soon_after_the_terminator_keeps_its_connection(session: aiohttp.ClientSession) -> None:
    """HTTP's last chunk often arrives in its own packet; waiting for it spares the next call a handshake."""
    async with serve_bytes(EVENT_STREAM, encode_chunk(encode_chunks(build_chunk("a", "stop"))), 0.03, b"0\r\n\r\n") as url:
        provider = build_openai(url, session=session)
        await collect_stream(provider, build_call(provider))
        assert session.connector
        assert session.connector._conns


async def test_a_stream_that_breaks_after_its_finish_reason_is_complete(session: aiohttp.ClientSession) -> None:
    """Only its usage may be missing."""
    body = encode_chunks(build_chunk("a"), build_chunk("b", "stop"), done=False).rstrip()
    async with serve_bytes(EVENT_STREAM, encode_chunk(body), 0.1, b"zz\r\n") as url:
        provider = build_openai(url, session=session)
        deltas, completion = await collect_stream(provider, build_call(provider))
    assert "".join(delta.text for delta in deltas) == completion.choices[0].message.text == "ab"
    assert completion.usage is None


async def test_a_host_that_does_not_stream_still_yields_deltas(session: aiohttp.ClientSession) -> None:
    """It answers JSON, but a caller that only relays deltas must get the text."""
    body = json.dumps({"choices": [build_choice("a"), build_choice("b") | {"index": 1}]}).encode()
    async with serve_bytes(encode_head("Content-Type: application/json", f"Content-Length: {len(body)}"), body) as url:
        provider = build_openai(url, session=session)
        deltas, completion = await collect_stream(provider, build_call(provider))
    assert [(delta.choice_index, delta.text) for delta in deltas] == [(0, "a"), (1, "b")]
    assert len(completion.choices) == 2


async def test_an_answer_may_arrive_byte_by_byte(session: aiohttp.ClientSession) -> None:
    """This holds for chunked bodies, whole and streamed."""
    body = json.dumps({"choices": [build_choice("é")]}).encode()
    parts = [encode_chunk(body[place : place + 1]) for place in range(len(body))]
    async with serve_bytes(encode_head("Transfer-Encoding: chunked"), *parts, b"0\r\n\r\n") as url:
        provider = build_openai(url, session=session)
        assert (await provider.complete(build_call(provider))).choices[0].message.text == "é"


async def test_concurrent_calls_share_nothing_but_the_session(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Many calls at once over one session get their own answers."""
    provider = build_openai(upstream.url, session=session)
    calls = [build_call(provider, f"say-n{number}") for number in range(50)]
    whole, streamed = await asyncio.gather(
        asyncio.gather(*map(provider.complete, calls)), asyncio.gather(*(collect_stream(provider, call) for call in calls))
    )
    texts = [completion.choices[0].message.text for completion in [*whole, *(completion for _, completion in streamed)]]
    assert texts == [f"n{number}" for number in range(50)] * 2
