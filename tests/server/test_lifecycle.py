"""SIGTERM: no new requests are accepted, running ones may finish, the rest fail with a reason, and the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import ServerProcess, start_server
from tests.support.client import Stream
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Path:
    return write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY")


async def complete(serving: ServerProcess, *models: str, **more: Any) -> tuple[int, dict[str, str], Any]:
    """Send a request over a connection of its own; return status, headers, and the JSON or the events of a stream."""
    body = {"prompt": "hi", "model": models, **more}
    async with aiohttp.ClientSession() as session, session.post(f"{serving.url}/v1/completion", json=body) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        if not headers["content-type"].startswith("text/event-stream"):
            return response.status, headers, await response.json()
        stream = Stream(response.status, response.headers)
        *events, rest = (await response.read()).split(b"\n\n")
        assert rest == b""
        for event in events:
            stream.read(event, 0)
        return response.status, headers, stream


async def accepts_connections(serving: ServerProcess) -> bool:
    """Return whether a new connection is accepted."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.close()
        return True
    return False


@timed
async def test_running_requests_finish_within_the_grace_and_no_new_ones_are_accepted(config: Path, upstream: Upstream) -> None:
    async with start_server(config, UP_KEY="k", FANOUT_GRACE_S="5") as serving:
        models = ("up/sleep-0.6", "up/first-0.2-tail-0.4")
        whole = asyncio.create_task(complete(serving, *models))
        streamed = asyncio.create_task(complete(serving, *models, stream=True))
        await upstream.wait_for_requests(4)
        serving.terminate()
        while await accepts_connections(serving):
            assert not whole.done()
            await asyncio.sleep(0.02)
        (status, _, answer), (_, _, stream) = await asyncio.gather(whole, streamed)
        assert await serving.wait() == 0

    assert status == 200
    assert [choice["error"] for choice in (*answer["choices"], *stream.ends)] == [None] * 4


@timed
async def test_requests_that_outlast_the_grace_are_cancelled_with_a_reason(config: Path, upstream: Upstream) -> None:
    async with start_server(config, UP_KEY="k", FANOUT_GRACE_S="0.3") as serving:
        mixed = asyncio.create_task(complete(serving, "up/ok", "up/hang"))
        alone = asyncio.create_task(complete(serving, "up/hang"))
        streamed = asyncio.create_task(complete(serving, "up/chunks-500-gap-0.05", "up/ok", stream=True))
        silent = asyncio.create_task(complete(serving, "up/hang", stream=True))
        await upstream.wait_for_requests(6)
        began = time.monotonic()
        serving.terminate()
        (_, _, beside), (status, headers, nothing), (_, _, stream), (silent_status, _, silent_answer) = await asyncio.gather(
            mixed, alone, streamed, silent
        )
        assert await serving.wait() == 0
        took_s = time.monotonic() - began

    assert 0.3 <= took_s < 2
    good, cancelled = beside["choices"]
    assert good["error"] is None
    assert (cancelled["finish_reason"], cancelled["error"]["code"]) == ("error", "server_stopping")
    assert (status, nothing["error"]["code"]) == (503, "server_stopping")
    assert headers["x-should-retry"] == "false", "a call on its way may have been billed"
    assert (silent_status, silent_answer["error"]["code"]) == (503, "server_stopping")
    cut, whole = stream.ends
    assert stream.is_done
    assert stream.text(0).startswith("w0 w1 ")
    assert (cut["error"]["code"], whole["error"]) == ("server_stopping", None)
    await upstream.wait_until_idle(1)


@timed
async def test_idle_connections_do_not_delay_the_stop_and_get_503(config: Path, upstream: Upstream) -> None:
    async with start_server(config, UP_KEY="k", FANOUT_GRACE_S="30") as serving, aiohttp.ClientSession(serving.url) as session:
        # Four connections, for new ones will not be taken: the first to tell that it stops is closed.
        opened = await asyncio.gather(*(session.get("/readyz") for _ in range(4)))
        assert [response.status for response in opened] == [200] * 4
        for response in opened:
            await response.read()
        running_request = asyncio.create_task(complete(serving, "up/sleep-2"))
        await upstream.wait_for_requests(1)
        began = time.monotonic()
        serving.terminate()
        status = 200
        while status == 200:
            async with session.get("/readyz") as response:
                status = response.status
        async with session.post("/v1/completion", json={"prompt": "hi", "model": "up/ok"}) as refused:
            body = await refused.json()
        async with session.get("/livez") as live, session.get("/readyz") as ready:
            state = await ready.json()
        assert await serving.wait() == 0
        took_s = time.monotonic() - began
        await running_request

    assert took_s < 20, "the idle connections were not waited for"
    assert (refused.status, body["error"]["code"]) == (503, "server_stopping")
    assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("5", "close")
    assert (live.status, ready.status, state) == (200, 503, {"status": "stopping"})


async def _read_state(session: aiohttp.ClientSession) -> tuple[int, object]:
    async with session.get("/readyz") as ready:
        return ready.status, await ready.json()


async def test_a_server_that_drains_takes_requests_but_is_not_ready(config: Path) -> None:
    async with start_server(config, UP_KEY="k", FANOUT_DRAIN_S="30") as serving:
        serving.process.send_signal(signal.SIGTERM)
        async with aiohttp.ClientSession(serving.url) as session, asyncio.timeout(10):
            while (await _read_state(session)) != (503, {"status": "stopping"}):
                await asyncio.sleep(0.02)
        status, _, _ = await complete(serving, "up/ok")
        assert status == 200
        serving.terminate()  # the second signal ends the drain
        assert await serving.wait() == 0


async def test_ctrl_c_skips_the_drain(config: Path) -> None:
    async with start_server(config, UP_KEY="k", FANOUT_DRAIN_S="600") as serving:
        serving.process.send_signal(signal.SIGINT)
        assert await serving.wait() == 0


@timed
async def test_a_client_that_stopped_reading_does_not_delay_the_stop(config: Path, upstream: Upstream) -> None:
    body = {"prompt": "hi", "model": "up/mb-20", "stream": True}
    async with (
        start_server(config, UP_KEY="k", FANOUT_GRACE_S="0.2") as serving,
        aiohttp.ClientSession(serving.url, read_bufsize=1024) as session,
        session.post("/v1/completion", json=body) as response,
    ):
        await asyncio.sleep(0.3)
        began = time.monotonic()
        assert await serving.stop() == 0
        response.close()

    assert 2 < time.monotonic() - began < 6, "it gets time to read the end, and then its connection is cut"


@timed
async def test_an_idle_server_stops_at_once_and_frees_its_port(config: Path) -> None:
    async with start_server(config, UP_KEY="k") as first:
        await complete(first, "up/ok")
        began = time.monotonic()
        assert await first.stop() == 0
        took_s = time.monotonic() - began
        async with start_server(config, port=first.port, UP_KEY="k") as second:
            status, _, _ = await complete(second, "up/ok")
            second.process.send_signal(signal.SIGINT)
            assert await second.wait() == 0

    assert took_s < 2
    assert (second.port, status) == (first.port, 200)
    for serving in (first, second):
        assert [line["event"] for line in serving.log_lines()] == ["request.answered", "server.stopping"]
