"""When a stream answers 200: its first piece, its first answered call, or after a silence; until then statuses are ordinary."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.core.schema import Call, Delta, Outcome
from fanout.server.app import create_app
from fanout.server.event_stream import respond
from fanout.server.lifecycle import DISPATCHER
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

SILENCE_S = 0.15


class Words:
    """The least of a dialect: each piece, each end, the end of all."""

    def encode_delta(self, piece: Delta) -> bytes:
        return piece.text.encode()

    def encode_outcome(self, outcome: Outcome) -> bytes:
        return f"<end of {outcome.call.index}>".encode()

    def encode_end(self, outcomes: object) -> bytes:
        return b"<end>"


class Broken(Words):
    """A dialect with a bug, which shows when an answer is half out."""

    def encode_outcome(self, outcome: Outcome) -> bytes:
        raise KeyError(outcome.call.index)


@pytest.fixture
async def impatient_session(upstream: Upstream, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """The real server, with one more path, `/words/{model}`, whose streams are silent for `SILENCE_S` and not for 10 s."""

    async def answer_words(request: web.Request) -> web.StreamResponse:
        calls: list[Call] = request.app[DISPATCHER].plan(build_request("hi", request.match_info["models"].split(",")))
        return await respond(request, Words(), calls, 2.0, None, ping_interval_s=SILENCE_S)

    async def answer_broken(request: web.Request) -> web.StreamResponse:
        calls = request.app[DISPATCHER].plan(build_request("hi", ["up/chunks-3-gap-0.05"]))
        return await respond(request, Broken(), calls, 2.0, None)

    app = create_app(load_settings(write_providers_file(upstream.url, tmp_path), {}))
    app.router.add_get("/words/{models:.+}", answer_words)
    app.router.add_get("/broken", answer_broken)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


@timed
async def test_a_silent_stream_starts_with_200_and_pings(impatient_session: aiohttp.ClientSession) -> None:
    began = time.monotonic()
    async with impatient_session.get("/words/up/first-0.7-chunks-2") as response:
        begun_s = time.monotonic() - began
        body = await response.read()

    assert SILENCE_S - 0.02 < begun_s < SILENCE_S + 0.15
    pings = body.count(b": ping\n\n")
    assert 3 <= pings <= 4
    assert body == b": ping\n\n" * pings + b"w0 w1 <end of 0><end>"


async def test_failures_after_silence_are_reported_in_the_stream(impatient_session: aiohttp.ClientSession) -> None:
    async with impatient_session.get("/words/up/sleep-0.3-400") as response:
        assert response.status == 200
        body = await response.read()

    assert body.replace(b": ping\n\n", b"") == b"<end of 0><end>"


async def test_failures_before_silence_become_a_status(impatient_session: aiohttp.ClientSession) -> None:
    async with impatient_session.get("/words/up/sleep-0.05-400,nobody") as response:
        assert response.status == 502
        assert response.headers["Content-Type"] == "application/json"
        assert len((await response.json())["error"]["details"]) == 2


async def test_no_pings_are_sent_while_pieces_arrive(impatient_session: aiohttp.ClientSession) -> None:
    async with impatient_session.get("/words/up/hang,up/chunks-30-gap-0.03") as response:
        body = await response.content.readuntil(b"<end of 1>")

    assert b": ping" not in body


async def test_a_bug_in_mid_stream_cuts_it_off_and_is_logged_as_one(
    impatient_session: aiohttp.ClientSession, upstream: Upstream, log_lines: list[str]
) -> None:
    """Another head in the middle of the answer would be read as part of it."""
    async with impatient_session.get("/broken") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await upstream.wait_until_idle(1)
    async with asyncio.timeout(5):
        while len(log_lines) < 2:  # the line of a request is written after its answer
            await asyncio.sleep(0.01)

    bug, line = (json.loads(line) for line in log_lines)
    assert (bug["event"], bug["level"]) == ("request.crashed", "error")
    assert (line["event"], line["status"], line["results"]) == ("request.answered", 500, ["ok"])


async def measure_start_s(client: Client, *models: str) -> float:
    """Return the seconds until the head of a stream."""
    began = time.monotonic()
    body = {"prompt": "hi", "model": models, "stream": True, "timeout_s": 3}
    async with client.server.session.post("/v1/completion", json=body) as response:
        assert response.status == 200
        return time.monotonic() - began


@timed
async def test_the_first_piece_begins_the_stream(client: Client) -> None:
    assert 0.18 < await measure_start_s(client, "up/hang", "up/first-0.2-tail-1") < 0.6


@timed
async def test_the_first_answered_call_begins_the_stream_even_without_a_piece(client: Client) -> None:
    body = {"prompt": "hi", "model": ["up/hang", {"model": "up/ok", "max_tokens": 0}], "stream": True, "timeout_s": 3}
    async with asyncio.timeout(1), client.server.session.post("/v1/completion", json=body) as response:
        assert response.status == 200


@timed
async def test_a_failed_call_does_not_begin_it_while_another_may_fail_too(client: Client) -> None:
    assert 0.28 < await measure_start_s(client, "nobody", "up/400", "up/first-0.3") < 0.7

    reply = await client.complete(model=["nobody", "up/sleep-0.3-400"], stream=True)
    assert reply.status == 502
    assert reply.error["details"][0]["code"] == "model_not_found"


async def test_wrong_fields_of_a_stream_are_an_ordinary_400(client: Client) -> None:
    reply = await client.complete(model="up/ok", stream=True, temperature=7)

    assert (reply.status, reply.params) == (400, ["temperature"])
    assert reply.headers["Content-Type"] == "application/json"


async def test_the_failures_held_back_come_first_once_the_stream_begins(client: Client) -> None:
    stream = await client.stream(model=["nobody", "up/first-0.1"])

    assert stream.pieces[0]["index"] == 0
    assert stream.pieces[0]["error"]["code"] == "model_not_found"
