"""Large answers of a real upstream: together within a bound, whatever the models and the readers do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fanout.api import ask, build_request
from fanout.config.settings import load_settings
from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Failure, FittedParameters, Outcome, Query, Target
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.limits import shared_room
from fanout.providers import OnHeaders
from fanout.store.usage import ANSWERED
from tests.support.builders.jobs import open_jobs
from tests.support.builders.settings import write_providers_file
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

LARGE = "up/mb-2"
BOUNDS = {"FANOUT_MAX_ANSWER_BYTES": "2200000", "FANOUT_MAX_HELD_BYTES": "8000000"}
"""Room for three large answers."""


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_room, "MAX_STALL_S", 0.2)


@pytest.fixture
async def bounded(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with room for three large answers; nothing may be held in the end."""
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 1})
    async with serve(config, **BOUNDS) as server:
        yield server
        async with asyncio.timeout(5):
            while server.dispatcher.answers.used:
                await asyncio.sleep(0.01)


async def post(server: Server, **body: Any) -> tuple[int, Any, Any]:
    async with server.session.post("/v1/completion", json={"prompt": "hi", **body}) as response:
        return response.status, response.headers, await response.json()


async def test_answers_beyond_the_bound_fail_as_fanouts_own_and_touch_no_other_model(bounded: Server) -> None:
    status, _, answer = await post(bounded, model=["up/ok", *[LARGE] * 6, "up/say-small"])
    assert status == 200
    errors = [choice["error"] for choice in answer["choices"]]
    failed = [error for error in errors if error]
    assert (errors[0], errors[-1]) == (None, None)
    assert len(failed) == 3, "three have room"
    assert {(error["kind"], error["code"]) for error in failed} == {("internal", "answer_memory_full")}


@pytest.mark.parametrize("words", ["", "-gap-0.001", "-chunks-1"])
async def test_a_stream_counts_as_it_grows(words: str, bounded: Server) -> None:
    """Its reader keeps up, so that nothing but the whole answer at its end is held."""
    body = {"prompt": "hi", "model": LARGE + words, "stream": True}
    async with bounded.session.post("/v1/completion", json=body) as response:
        used = [bounded.dispatcher.answers.used async for _ in response.content.iter_any()]
    assert 2_000_000 < max(used) < 2_400_000


async def test_answers_count_until_their_reader_has_them_and_a_full_memory_is_503(bounded: Server) -> None:
    """Whoever reads slowly holds memory: the next large answer waits, then fails with the time after which to try again."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    host, port = bounded.url.removeprefix("http://").split(":")
    await loop.sock_connect(reader, (host, int(port)))
    body = json.dumps({"prompt": "hi", "model": [LARGE] * 3}).encode()
    lines = ("POST /v1/completion HTTP/1.1", f"Host: {host}", "Content-Type: application/json", "Connection: close")
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
    await loop.sock_sendall(reader, head.encode() + body)
    assert (await loop.sock_recv(reader, 12)) == b"HTTP/1.1 200"  # all answers are there, and most of them not yet sent
    held = bounded.dispatcher.answers.used
    assert 6_000_000 - 400_000 < held < 8_000_000

    status, headers, answer = await post(bounded, model=LARGE)
    assert (status, headers["Retry-After"], answer["error"]["code"]) == (503, "1", "answer_memory_full")
    assert "FANOUT_MAX_HELD_BYTES" in answer["error"]["message"]
    assert (await post(bounded, model="up/ok"))[0] == 200, "small answers have their own room"
    assert bounded.dispatcher.answers.used == held

    while await loop.sock_recv(reader, 2**20):
        pass
    reader.close()
    assert (await post(bounded, model=LARGE))[0] == 200


async def test_a_large_answer_waits_for_room_instead_of_failing(bounded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_room, "MAX_STALL_S", 20)
    answers = await asyncio.gather(*(post(bounded, model=LARGE) for _ in range(12)))
    assert [status for status, _, _ in answers] == [200] * 12


async def test_answers_of_unknown_length_side_by_side_wait_for_room_instead_of_failing(bounded: Server) -> None:
    """Each of them grows; a wait for one that grows has no end but the deadline."""

    async def ask() -> bytes:
        body = {"prompt": "hi", "model": LARGE + "-gap-0.001", "stream": True}
        async with bounded.session.post("/v1/completion", json=body) as response:
            return await response.read()

    answers = await asyncio.gather(*(ask() for _ in range(10)))
    assert ["answer_memory_full" in answer[-2000:].decode() for answer in answers] == [False] * 10
    assert min(map(len, answers)) > 2_000_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_caller_who_leaves_gives_all_back(stream: bool, bounded: Server, upstream: Upstream) -> None:
    body = {"prompt": "hi", "model": [LARGE, "up/mb-2-tail-20", "up/hang"], "stream": stream}
    asking = asyncio.create_task(post(bounded, **body))
    await upstream.wait_for_requests(3)
    while bounded.dispatcher.answers.used < 2_000_000:
        await asyncio.sleep(0.01)
    asking.cancel()
    await upstream.wait_until_idle()


async def test_an_answer_that_breaks_gives_its_memory_back_before_the_next_attempt(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 6, "max_delay_s": 0.01})
    async with serve(config, **BOUNDS) as server:
        status, _, _ = await post(server, model="up/mb-2-cut-times-5-then-mb-2")
        assert status == 200
    assert len(upstream.requests) == 6


async def test_a_library_holds_answers_only_while_it_asks(upstream: Upstream, tmp_path: Path) -> None:
    """Its user may keep as many as they like."""
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 1})
    async with open_dispatcher(load_settings(config, BOUNDS)) as dispatcher:
        kept = [await ask("hi", [LARGE, LARGE], dispatcher=dispatcher) for _ in range(4)]
        assert dispatcher.answers.used == 0
    assert not [choice for comparison in kept for choice in comparison.choices if isinstance(choice.outcome.result, Failure)]


async def test_a_job_holds_no_answer_that_is_recorded(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path, retries={"attempts": 1}, environ=BOUNDS) as opened:
        job = await opened.create(5, LARGE, concurrency=2)
        async with asyncio.timeout(30):
            await opened.manager.run(job.id)
        results = await opened.list_results(job)
        assert opened.dispatcher.answers.used == 0
    assert [result.result for result in results] == [ANSWERED] * 5


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_answers_of_an_adapter_outside_the_package_count_too(stream: bool, tmp_path: Path) -> None:
    """Such an adapter knows nothing of the bound: what it returns is counted, and given back with its request."""
    config = write_providers_file(
        "http://127.0.0.1:9", tmp_path, adapter="tests.dispatch.test_answer_memory", retries={"attempts": 1}
    )
    async with open_dispatcher(load_settings(config, BOUNDS)) as dispatcher:
        calls = dispatcher.plan(build_request("hi", ["up/large"] * 4 + ["up/small"]))
        if stream:
            pieces = [piece async for piece in dispatcher.stream(calls, deadline_s=20)]
            outcomes = sorted((piece for piece in pieces if isinstance(piece, Outcome)), key=lambda one: one.call.index)
        else:
            outcomes = await dispatcher.run(calls, deadline_s=20)
        failed = [outcome.result.code for outcome in outcomes if isinstance(outcome.result, Failure)]
        assert failed == ["answer_memory_full"]
        assert isinstance(outcomes[-1].result, Completion)
        assert dispatcher.answers.used == 0


def create(settings: Any, session: Any) -> LargeAdapter:
    """See `providers.create`."""
    return LargeAdapter()


class LargeAdapter:
    """An adapter outside the package."""

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        return Completion((Choice(Answer("x" * (2_000_000 if call.target.model == "large" else 1)), "stop"),))

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        yield await self.complete(call)
