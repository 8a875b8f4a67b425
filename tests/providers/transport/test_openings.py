"""Connections that are being opened: how many at once, whom they serve, and what becomes of those who wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fanout.core.schema import Completion, Failure, Outcome
from fanout.providers.transport.openings import MAX_OPENINGS
from tests.support.builders.dispatcher import ObservedDispatcher, open_observed_dispatcher
from tests.support.upstream.server import reserve_refusing_url

BODY = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CLOSING = RESPONSE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
MANY = 10 * MAX_OPENINGS
BOTH_CLIENTS = pytest.mark.parametrize("client", ["own", "aiohttp"])


@dataclass
class Host:
    """A host that accepts connections and answers requests, or does neither for a while."""

    url: str = ""
    response: bytes = RESPONSE
    accepted: int = 0
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: whatever comes is accepted, and nothing is answered."""
    together: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(1))
    """So many requests are answered at once."""


@asynccontextmanager
async def serve() -> AsyncGenerator[Host]:
    """Serve on a port of its own."""
    host, writers, handlers = Host(), set[asyncio.StreamWriter](), set[asyncio.Task[None] | None]()
    host.is_open.set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.accepted += 1
        writers.add(writer)
        handlers.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                await host.is_open.wait()
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                await host.together.wait()
                writer.write(host.response)
                if host.response is CLOSING:
                    break
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()
        host.is_open.set()
        for writer in writers:
            writer.close()
        await asyncio.gather(*filter(None, handlers))


async def run_many(opened: ObservedDispatcher, *models: str, deadline_s: float = 30.0) -> list[Outcome]:
    """Make calls at once, as requests of 50 models each."""
    requests = [models[first : first + 50] for first in range(0, len(models), 50)]
    results = await asyncio.gather(*(opened.run(*request, deadline_s=deadline_s) for request in requests))
    return [outcome for outcomes in results for outcome in outcomes]


def list_codes(outcomes: list[Outcome]) -> set[str]:
    """Return the codes of the failures, and `answered` for an answer."""
    return {outcome.result.code or "" if isinstance(outcome.result, Failure) else "answered" for outcome in outcomes}


@BOTH_CLIENTS
async def test_many_calls_to_a_quick_host_share_few_connections(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, open_observed_dispatcher(host.url, tmp_path, environ=environ) as opened:
        outcomes = await run_many(opened, *["up/m"] * 3 * MANY)
    assert list_codes(outcomes) == {"answered"}
    assert host.accepted < MANY


@BOTH_CLIENTS
async def test_calls_that_are_answered_together_get_a_connection_each(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, open_observed_dispatcher(host.url, tmp_path, environ=environ) as opened:
        host.together = asyncio.Barrier(MANY)
        outcomes = await run_many(opened, *["up/m"] * MANY)
    assert list_codes(outcomes) == {"answered"}
    assert host.accepted == MANY


@BOTH_CLIENTS
async def test_a_host_that_keeps_no_connection_answers_every_call(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, open_observed_dispatcher(host.url, tmp_path, environ=environ) as opened:
        host.response = CLOSING
        start = time.monotonic()
        outcomes = await run_many(opened, *["up/m"] * MANY)
    assert list_codes(outcomes) == {"answered"}
    assert host.accepted == MANY
    assert time.monotonic() - start < MANY * 0.02  # one after the other, with a pause between, would take 64 s


@BOTH_CLIENTS
async def test_few_connections_are_opened_at_once_and_their_time_limit_is_that_of_all_who_wait(
    client: str, tmp_path: Path
) -> None:
    """The TLS handshake is never answered."""
    environ, attempts = {"FANOUT_HTTP_CLIENT": client}, {"attempts": 1}
    async with serve() as host:
        host.is_open.clear()
        secure = host.url.replace("http:", "https:")
        async with open_observed_dispatcher(
            secure, tmp_path, environ=environ, connect_timeout_s=2.0, retries=attempts
        ) as opened:
            calls = asyncio.create_task(run_many(opened, *["up/m"] * MANY))
            while not host.accepted:
                await asyncio.sleep(0.01)
            start = time.monotonic()
            await asyncio.sleep(0.5)
            assert host.accepted == MAX_OPENINGS
            outcomes = await calls
    assert list_codes(outcomes) == {"connect_timeout"}
    assert {outcome.timing.attempts for outcome in outcomes} == {1}
    assert time.monotonic() - start < 3.5


@BOTH_CLIENTS
async def test_a_host_that_refuses_fails_all_calls(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    with reserve_refusing_url() as url:
        async with open_observed_dispatcher(url, tmp_path, environ=environ, retries={"attempts": 1}) as opened:
            outcomes = await run_many(opened, *["up/m"] * MANY)
    assert list_codes(outcomes) == {"connect_error"}
    assert len({id(outcome.result) for outcome in outcomes}) == MANY


@BOTH_CLIENTS
async def test_waiting_for_a_host_holds_up_no_other_and_ends_at_the_deadline(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, serve() as other:
        host.is_open.clear()
        more = {"providers": {"other": {"adapter": "openai", "base_url": other.url}}}
        secure = host.url.replace("http:", "https:")
        async with open_observed_dispatcher(secure, tmp_path, environ=environ, more=more) as opened:
            start = time.monotonic()
            calls = asyncio.create_task(run_many(opened, *["up/m"] * MANY, deadline_s=3.0))
            await asyncio.sleep(0.1)
            assert list_codes(await opened.run("other/m", deadline_s=2.5)) == {"answered"}
            assert not calls.done()
            outcomes = await calls
    assert list_codes(outcomes) == {"deadline_exceeded"}
    assert time.monotonic() - start < 5.5


@BOTH_CLIENTS
async def test_a_connection_whose_call_was_cancelled_serves_the_next(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, open_observed_dispatcher(host.url, tmp_path, environ=environ) as opened:
        calls = asyncio.create_task(opened.run("up/m"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls.cancel()
        with suppress(asyncio.CancelledError):
            await calls
        await asyncio.sleep(0.1)
        assert list_codes(await opened.run("up/m")) == {"answered"}
    assert host.accepted == 1


@BOTH_CLIENTS
async def test_cancelled_calls_leave_the_connections_to_those_behind_them(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host, open_observed_dispatcher(host.url, tmp_path, environ=environ) as opened:
        host.is_open.clear()
        first = asyncio.create_task(run_many(opened, *["up/m"] * 2 * MAX_OPENINGS))
        await asyncio.sleep(0)
        behind = asyncio.create_task(run_many(opened, *["up/m"] * MAX_OPENINGS))
        await asyncio.sleep(0)
        first.cancel()
        host.is_open.set()
        assert list_codes(await behind) == {"answered"}
        with suppress(asyncio.CancelledError):
            await first


@BOTH_CLIENTS
async def test_calls_that_wait_end_with_their_dispatcher(client: str, tmp_path: Path) -> None:
    environ = {"FANOUT_HTTP_CLIENT": client}
    async with serve() as host:
        host.is_open.clear()
        secure = host.url.replace("http:", "https:")
        async with open_observed_dispatcher(secure, tmp_path, environ=environ, retries={"attempts": 1}) as opened:
            calls = asyncio.create_task(run_many(opened, *["up/m"] * MANY))
            await asyncio.sleep(0.1)
            await opened.dispatcher.upstreams._session.close()
            outcomes = await calls
    assert not any(isinstance(outcome.result, Completion) for outcome in outcomes)
