"""Kept connections that are dead when they are needed: a retry must not draw another of them."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.cli.client import open_client
from fanout.config.settings import load_settings
from fanout.core import sockets
from fanout.core.schema import Completion, Outcome
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.providers.model_listing import list_models
from tests.support.builders.dispatcher import ObservedDispatcher, read_text
from tests.support.builders.settings import write_providers_file
from tests.support.provider_calls import open_session

TEXT = {"text": "Hi", "finish_reason": "stop"}
MESSAGE = {"content": "Hi"}
ANSWERS: dict[str, dict[str, Any]] = {
    "openai": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]},
    "azure": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]},
    "anthropic": {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
    "gemini": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]},
    "bedrock": {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn"},
    "cohere": {"message": {"content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE"},
    "ollama": {"message": MESSAGE, "done": True, "done_reason": "stop"},
    "scale": {"completion": TEXT},
    "scale-llm-engine": {"request_id": "r", "output": {"text": "Hi"}},
}
"""A whole answer of each format, which is also read where a stream was requested."""


@dataclass
class AgeingServer:
    """A server that answers, until its connections are made stale: then each of them is reset by its next request."""

    url: str = ""
    accepted: int = 0
    stale: set[int] = field(default_factory=set)
    together: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(1))
    """Requests that arrive together are answered together, so that each has a connection of its own."""

    def make_stale(self) -> None:
        """Have all connections so far reset at their next use."""
        self.stale.update(range(self.accepted))


@asynccontextmanager
async def serve_ageing(answer: object) -> AsyncGenerator[AgeingServer]:
    """Serve one answer to every request."""
    server, body = AgeingServer(), json.dumps(answer).encode()
    writers: list[asyncio.StreamWriter] = []
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, server.accepted = server.accepted, server.accepted + 1
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))
                if number in server.stale:
                    # Closing with a linger time of 0 sends RST.
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                await server.together.wait()
                writer.write(response)
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=256)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def open_at_ageing(
    folder: Path, adapter: str, client: str = "own"
) -> AsyncGenerator[tuple[ObservedDispatcher, AgeingServer]]:
    async with serve_ageing(ANSWERS[adapter]) as server:
        row: Any = {"adapter": adapter, "api_key_env": "UP", "retries": {"attempts": 3, "max_delay_s": 0.02}}
        variables = {"UP": "sk-of-a-test", "FANOUT_HTTP_CLIENT": client}
        settings = load_settings(write_providers_file(server.url, folder, **row), variables)
        async with open_dispatcher(settings) as dispatcher:
            yield ObservedDispatcher(dispatcher), server


async def run_together(opened: tuple[ObservedDispatcher, AgeingServer], count: int, *, stream: bool = False) -> list[Outcome]:
    """Make so many calls at once."""
    dispatcher, server = opened
    server.together = asyncio.Barrier(count)
    calls = dispatcher.plan(*["up/m"] * count)
    if not stream:
        return await dispatcher.dispatcher.run(calls, deadline_s=20)
    return [piece async for piece in dispatcher.dispatcher.stream(calls, deadline_s=20) if isinstance(piece, Outcome)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("adapter", ANSWERS)
async def test_the_attempt_after_a_dead_kept_connection_dials_anew(
    adapter: str, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three attempts on kept connections alone would use up all twelve, and every call would fail."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    async with open_at_ageing(tmp_path, adapter) as opened:
        await run_together(opened, 12, stream=stream)
        _, server = opened
        assert server.accepted == 12
        server.make_stale()
        outcomes = await run_together(opened, 4, stream=stream)
    assert [read_text(outcome) for outcome in outcomes] == ["Hi"] * 4
    assert [outcome.timing.attempts for outcome in outcomes] == [2] * 4
    assert server.accepted == 16


@pytest.mark.parametrize("client", ["own", "aiohttp"])
async def test_no_call_fails_whose_host_has_reset_forty_kept_connections(client: str, tmp_path: Path) -> None:
    async with open_at_ageing(tmp_path, "openai", client) as opened:
        await run_together(opened, 40)
        _, server = opened
        server.make_stale()
        outcomes = await run_together(opened, 16)
        assert all(isinstance(outcome.result, Completion) for outcome in outcomes)
        # Those that were dialled anew are kept again.
        accepted = server.accepted
        await run_together(opened, 16)
        assert server.accepted == accepted == 56


async def test_a_broken_connection_leaves_those_of_other_hosts_alone(tmp_path: Path) -> None:
    async with serve_ageing(ANSWERS["openai"]) as other, serve_ageing(ANSWERS["openai"]) as server:
        row: Any = {"retries": {"attempts": 3, "max_delay_s": 0.02}}
        more = {"providers": {"other": {"adapter": "openai", "base_url": other.url, **row}}}
        settings = load_settings(write_providers_file(server.url, tmp_path, more=more, **row), {})
        async with open_dispatcher(settings) as opened:
            dispatcher = ObservedDispatcher(opened)
            await dispatcher.run("up/m", "other/m")
            server.make_stale()
            outcomes = await dispatcher.run("up/m", "other/m")
    assert [outcome.timing.attempts for outcome in outcomes] == [2, 1]
    assert (server.accepted, other.accepted) == (2, 1)


async def test_a_list_of_models_is_had_over_a_new_connection_where_the_kept_one_is_dead(tmp_path: Path) -> None:
    async with serve_ageing({"data": [{"id": "m"}]}) as server, open_session() as session:
        settings = load_settings(write_providers_file(server.url, tmp_path), {}).providers["up"]
        server.together = asyncio.Barrier(3)
        await asyncio.gather(*(list_models(settings, session, 5.0) for _ in range(3)))
        server.make_stale()
        server.together = asyncio.Barrier(1)
        assert [model["id"] for model in await list_models(settings, session, 5.0)] == ["m"]


async def test_the_client_of_a_server_keeps_no_connection_that_could_be_dead() -> None:
    async with serve_ageing({"choices": []}) as server, open_client(server.url, None) as client:
        for _ in range(2):
            assert await client.complete({"prompt": "Hi"}) == (True, {"choices": []})
            assert await client.get("/v1/models") == {"choices": []}
            server.make_stale()
    assert server.accepted == 4


async def test_a_connection_breaks_whose_other_end_takes_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has fallen silent resets nothing: without a bound of its own a call would use up its whole attempt."""
    monkeypatch.setitem(sockets.KEEPALIVE, "TCP_USER_TIMEOUT", 200)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with open_session() as session, asyncio.timeout(30):
            with pytest.raises(aiohttp.ClientOSError) as caught:
                await session.post(f"http://127.0.0.1:{silent.getsockname()[1]}/", data=io.BytesIO(b"x" * 16 * 2**20))
    assert caught.value.errno == errno.ETIMEDOUT
