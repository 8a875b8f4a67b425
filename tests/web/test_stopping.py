"""SIGTERM: nothing new is taken, what runs may finish, the rest is told the truth, the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.upstreams import Upstream, providers_file
from tests.web.client import Stream
from tests.web.process import Serving, running


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Path:
    return providers_file(upstream.url, tmp_path, api_key_env="UP_KEY")


async def ask(serving: Serving, *models: str, **more: Any) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON, or the events of a stream, over a connection of its own."""
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


async def is_taken(serving: Serving) -> bool:
    """Whether a new connection is accepted."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.close()
        return True
    return False


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_runs_finishes_within_the_grace_and_nothing_new_is_taken(
    config: Path, upstream: Upstream, stream: bool
) -> None:
    async with running(config, UP_KEY="k", FANOUT_GRACE_S="5") as serving:
        asking = asyncio.create_task(ask(serving, "up/sleep-0.8", "up/first-0.2-tail-0.6", stream=stream))
        await upstream.arrived(2)
        serving.terminate()
        await asyncio.sleep(0.2)
        assert not await is_taken(serving)
        status, _, answer = await asking
        code = await serving.ended()

    assert status == 200
    choices = answer.ends if stream else answer["choices"]
    assert [choice["error"] for choice in choices] == [None, None]
    assert code == 0


async def test_what_takes_longer_is_cancelled_and_says_why(config: Path, upstream: Upstream) -> None:
    async with running(config, UP_KEY="k", FANOUT_GRACE_S="0.3") as serving:
        mixed = asyncio.create_task(ask(serving, "up/ok", "up/hang"))
        alone = asyncio.create_task(ask(serving, "up/hang"))
        streamed = asyncio.create_task(ask(serving, "up/chunks-500-gap-0.05", "up/ok", stream=True))
        silent = asyncio.create_task(ask(serving, "up/hang", stream=True))
        await upstream.arrived(6)
        began = time.monotonic()
        serving.terminate()
        (_, _, beside), (status, headers, nothing), (_, _, stream), (silent_status, _, silent_answer) = await asyncio.gather(
            mixed, alone, streamed, silent
        )
        assert await serving.ended() == 0
        took_s = time.monotonic() - began

    assert 0.3 <= took_s < 2
    good, cancelled = beside["choices"]
    assert good["error"] is None
    assert (cancelled["finish_reason"], cancelled["error"]["code"]) == ("error", "server_stopping")
    assert (status, nothing["error"]["code"]) == (503, "server_stopping")
    assert headers["x-should-retry"] == "false", "a call on its way may have been billed"
    assert (silent_status, silent_answer["error"]["code"]) == (503, "server_stopping")
    cut, whole = stream.ends
    assert stream.done
    assert stream.text(0).startswith("w0 w1 ")
    assert (cut["error"]["code"], whole["error"]) == ("server_stopping", None)
    await upstream.quiet(1)


async def test_idle_connections_hold_nothing_up_and_learn_that_it_is_over(config: Path, upstream: Upstream) -> None:
    async with running(config, UP_KEY="k", FANOUT_GRACE_S="30") as serving, aiohttp.ClientSession(serving.url) as session:
        async with session.get("/livez") as response:
            await response.read()
        asking = asyncio.create_task(ask(serving, "up/sleep-0.5"))
        await upstream.arrived(1)
        began = time.monotonic()
        serving.terminate()
        await asyncio.sleep(0.1)
        async with session.post("/v1/completion", json={"prompt": "hi", "model": "up/ok"}) as refused:
            body = await refused.json()
        assert await serving.ended() == 0
        took_s = time.monotonic() - began
        await asking

    assert took_s < 2, "the idle connection was not waited for"
    assert (refused.status, body["error"]["code"]) == (503, "server_stopping")
    assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("5", "close")


async def test_while_it_stops_it_is_alive_but_not_ready(config: Path, upstream: Upstream) -> None:
    async with running(config, UP_KEY="k") as serving:
        sessions = [aiohttp.ClientSession(serving.url) for _ in range(2)]
        for session in sessions:  # each with a connection, for new ones are not taken
            async with session.get("/readyz") as response:
                assert response.status == 200
        asking = asyncio.create_task(ask(serving, "up/sleep-0.6"))
        await upstream.arrived(1)
        serving.terminate()
        await asyncio.sleep(0.1)
        async with sessions[0].get("/livez") as live, sessions[1].get("/readyz") as ready:
            assert (live.status, ready.status) == (200, 503)
            assert await ready.json() == {"status": "stopping"}
        await asking
        assert await serving.ended() == 0
        for session in sessions:
            await session.close()


async def test_a_reader_that_stopped_reading_holds_nothing_up(config: Path, upstream: Upstream) -> None:
    body = {"prompt": "hi", "model": "up/mb-20", "stream": True}
    async with (
        running(config, UP_KEY="k", FANOUT_GRACE_S="0.2") as serving,
        aiohttp.ClientSession(serving.url, read_bufsize=1024) as session,
        session.post("/v1/completion", json=body) as response,
    ):
        await asyncio.sleep(0.3)
        began = time.monotonic()
        assert await serving.stop() == 0
        response.close()

    assert 3 < time.monotonic() - began < 7, "it is given time for last words, and then it is cut"


async def test_a_second_start_on_the_same_port_works_at_once(config: Path) -> None:
    async with running(config, UP_KEY="k") as first:
        await ask(first, "up/ok")
        port = first.port
        assert await first.stop() == 0
        async with running(config, port=port, UP_KEY="k") as second:
            status, _, _ = await ask(second, "up/ok")

    assert (second.port, status) == (port, 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_once(config: Path, number: signal.Signals) -> None:
    async with running(config, UP_KEY="k") as serving:
        began = time.monotonic()
        serving.process.send_signal(number)
        assert await serving.ended() == 0

    assert time.monotonic() - began < 2
    assert "Traceback" not in serving.written()
    assert [line["event"] for line in serving.lines()] == ["stopping"]
