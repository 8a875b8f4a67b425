"""Event streams of our own where time matters: silence, and readers who stop reading."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fanout.core.schema import Delta, Failure, Outcome
from fanout.server import event_stream
from fanout.server.lifecycle import DISPATCHER
from tests.support.builders.dispatcher import ObservedDispatcher, open_observed_dispatcher
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


class Frames:
    """A dialect with one line for each piece; with `breaks` the reader's connection breaks before the first."""

    def __init__(self, request: web.Request, *, breaks: bool) -> None:
        self._transport = request.transport if breaks else None

    def encode_delta(self, piece: Delta) -> bytes:
        if self._transport:
            self._transport.abort()
        return f"data: {piece.call_index} {piece.text}\n\n".encode() if piece.text else b""

    def encode_outcome(self, outcome: Outcome) -> bytes:
        word = outcome.result.kind if isinstance(outcome.result, Failure) else "ok"
        return f"data: {outcome.call.index} is {word}\n\n".encode()

    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes:
        return f"data: {len(outcomes)} in all\n\n".encode()


@asynccontextmanager
async def serve_stream(
    opened: ObservedDispatcher,
    *models: str,
    deadline_s: float = 5.0,
    silence_s: float = 0.1,
    linger_s: float = 0.1,
    breaks: bool = False,
) -> AsyncGenerator[tuple[str, web.Server]]:
    """Serve an address that streams these models' answers."""

    async def handler(request: web.Request) -> web.StreamResponse:
        calls = opened.plan(*models)
        frames = Frames(request, breaks=breaks)
        return await event_stream.respond(
            request, frames, calls, deadline_s, None, ping_interval_s=silence_s, reader_grace_s=linger_s
        )

    app = web.Application()
    app[DISPATCHER] = opened.dispatcher
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        assert runner.server
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", runner.server
    finally:
        await runner.cleanup()


async def read_stream(url: str) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, (await response.text()).split("\n\n")[:-1]


async def test_comments_are_sent_during_silence(upstream: Upstream, tmp_path: Path) -> None:
    async with (
        open_observed_dispatcher(upstream.url, tmp_path) as opened,
        serve_stream(opened, "up/sleep-0.35-chunks-1-say-a") as (url, _),
    ):
        status, frames = await read_stream(url)

    assert status == 200
    assert frames[0] == ": ping"
    assert 2 <= frames.count(": ping") <= 3
    assert [frame for frame in frames if frame != ": ping"] == ["data: 0 a", "data: 0 is ok", "data: 1 in all"]


async def test_a_failure_that_is_held_back_until_the_status_is_known_is_not_lost(upstream: Upstream, tmp_path: Path) -> None:
    async with (
        open_observed_dispatcher(upstream.url, tmp_path) as opened,
        serve_stream(opened, "400", "up/sleep-0.15-400") as (url, _),
    ):
        status, frames = await read_stream(url)

    assert status == 200
    assert frames == ["data: 0 is bad_request", "data: 1 is bad_request", "data: 2 in all"]


async def test_the_status_reports_that_all_calls_have_failed_before_the_first_comment(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_observed_dispatcher(upstream.url, tmp_path) as opened, serve_stream(opened, "400", "400") as (url, _):
        assert (await read_stream(url))[0] == 400


@timed
async def test_a_reader_who_stops_reading_is_disconnected_soon_after_the_deadline(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is aborted: an orderly close would wait until the reader reads on."""
    environ = {"FANOUT_MAX_ANSWER_BYTES": "100000000"}
    async with (
        open_observed_dispatcher(upstream.url, tmp_path, environ=environ) as opened,
        serve_stream(opened, "up/mb-50", deadline_s=2.0, linger_s=0.2) as (url, server),
    ):
        start = time.monotonic()
        reader = await connect_silent_reader(url)
        await upstream.wait_for_requests(1)
        async with asyncio.timeout(5):
            while server.connections:
                await asyncio.sleep(0.01)
        took_s = time.monotonic() - start
        await upstream.wait_until_idle()
        reader.close()

    assert 2.2 <= took_s < 3
    assert len(upstream.abandoned) == len(opened.outcomes) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_broken_connection_to_the_reader_is_not_logged_as_a_bug(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds even if a write notices it before aiohttp does."""
    async with (
        open_observed_dispatcher(upstream.url, tmp_path) as opened,
        serve_stream(opened, "up/chunks-500-gap-0.01", "hang", breaks=True) as (url, _),
    ):
        reader = await connect_silent_reader(url)
        await upstream.wait_for_requests(2)
        await upstream.wait_until_idle(1)
        reader.close()

    assert len(upstream.abandoned) == len(opened.outcomes) == 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def connect_silent_reader(url: str) -> asyncio.Transport:
    """Connect a client that sends a request and reads nothing."""
    host, port = url.removeprefix("http://").split(":")
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, int(port))
    transport.pause_reading()
    transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return transport
