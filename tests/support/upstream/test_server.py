"""The scripted upstream records its requests and their ends, and closes cleanly."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from fanout.config.settings import load_settings
from tests.support.builders.settings import write_providers_file
from tests.support.timing import timed
from tests.support.upstream.client import UpstreamClient
from tests.support.upstream.script import FAULT_SCRIPTS
from tests.support.upstream.server import Upstream, reserve_refusing_url


async def test_requests_are_recorded(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    """In order, with bodies, headers and connections."""
    before = time.monotonic()
    await upstream_client.complete("ok", seed=1)
    await upstream_client.complete("echo", chat=False)

    first, second = upstream.requests
    assert (first.method, first.path, first.model, first.body["seed"]) == ("POST", "/v1/chat/completions", "ok", 1)
    assert (second.path, second.headers["content-type"]) == ("/v1/completions", "application/json")
    assert before <= first.arrived_s <= (first.ended_s or 0) <= second.arrived_s
    assert (first.connection, second.connection, upstream.connections) == (0, 0, 1)
    assert upstream.requests_for("echo") == [second]


async def test_requests_in_flight_are_counted(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    async with asyncio.TaskGroup() as group:
        for model in ("sleep-0.1", "sleep-0.1", "tail-0.1"):
            group.create_task(upstream_client.complete(model))
        await upstream.wait_for_requests(3)
        assert (upstream.in_flight, upstream.open_connections) == (3, 3)
        await upstream.wait_until_idle()

    assert (upstream.in_flight, upstream.peak, upstream.peaks["sleep-0.1"]) == (0, 3, 2)
    assert not upstream.abandoned


async def test_sequential_requests_are_never_in_flight_together(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    """The count falls before the client can know that its answer is complete."""
    for number in range(200):
        await upstream_client.complete("ok", stream=bool(number % 2))

    assert upstream.peak == 1


async def test_a_client_that_leaves_is_noticed(upstream: Upstream) -> None:
    """Its requests are marked as abandoned, its sockets are closed, and nothing stays in flight."""
    async with aiohttp.ClientSession() as client:
        calls = [asyncio.ensure_future(client.post(f"{upstream.url}/completions", json={"model": "hang"})) for _ in range(20)]
        await upstream.wait_for_requests(20)
        for call in calls:
            call.cancel()
        await upstream.wait_until_closed()

    assert (len(upstream.abandoned), upstream.in_flight, upstream.open_connections) == (20, 0, 0)


async def test_a_client_that_leaves_at_once_is_noticed(upstream: Upstream) -> None:
    """Request and end arrive together, before the answer's task has taken a step."""
    _, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(b'POST /v1/completions HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"model": "hang"}')
    writer.transport.abort()
    await upstream.wait_for_requests(1)
    await upstream.wait_until_closed()

    assert upstream.abandoned == upstream.requests


async def test_a_wait_that_times_out_reports_what_is_missing(upstream_client: UpstreamClient, upstream: Upstream) -> None:
    call = asyncio.ensure_future(upstream_client.complete("sleep-0.3"))
    await upstream.wait_for_requests(1)

    with pytest.raises(TimeoutError, match=r"still in flight: \{'sleep-0.3': 1\}"):
        await upstream.wait_until_idle(0.05)
    await call


@timed
async def test_closing_ends_hanging_answers_at_once() -> None:
    async with aiohttp.ClientSession() as client:
        async with Upstream() as upstream:
            call = asyncio.ensure_future(client.post(f"{upstream.url}/completions", json={"model": "hang"}))
            await upstream.wait_for_requests(1)
            start = time.monotonic()
        with pytest.raises(aiohttp.ClientError):
            await call

    assert time.monotonic() - start < 2
    assert not upstream.abandoned


async def test_tls_is_trusted_only_with_its_authority() -> None:
    async with Upstream(tls=True) as upstream, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.post(f"{upstream.url}/completions", json={"model": "ok"})
        assert upstream.authority
        trusting = ssl.create_default_context()
        upstream.authority.configure_trust(trusting)
        async with client.post(f"{upstream.url}/completions", json={"model": "ok"}, ssl=trusting) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await client.post(f"{upstream.url}/completions", json={"model": "drop"}, ssl=trusting)


async def test_a_refusing_url_refuses() -> None:
    async with aiohttp.ClientSession() as client:
        with reserve_refusing_url() as url, pytest.raises(aiohttp.ClientConnectorError):
            await client.post(f"{url}/completions")


def test_providers_file_is_valid_and_names_every_fault(tmp_path: Path) -> None:
    path = write_providers_file(
        "http://127.0.0.1:9/v1",
        tmp_path,
        retries={"attempts": 2, "max_delay_s": 0.01},
        more={"sets": {"pair": ["ok", "up/sleep-0.1"]}},
    )

    settings = load_settings(path, environ={})

    assert settings.providers["up"].row.retries.attempts == 2
    assert settings.models["ok"].kind == "chat"
    assert settings.models["429-s-soon-text"].kind == "text"
    assert set(FAULT_SCRIPTS) < set(settings.models)
    assert settings.sets["pair"] == ("ok", "up/sleep-0.1")
