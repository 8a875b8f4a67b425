"""`fanout ask --json`, and `--server`: one shape of answers, here and there."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from tests.support.cli import run, serving, shape
from tests.support.upstreams import Upstream


async def test_json_is_what_the_server_answers(scripted: str) -> None:
    models = ["ok", "429", "up/no_usage"]
    body = {"prompt": "hi", "model": models, "max_tokens": 4}
    async with serving("--config", scripted) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        asked = ["ask", "hi", "--json", "--max-tokens", "4", *(part for model in models for part in ("-m", model))]
        here = await run(*asked, "--config", scripted)
        there = await run(*asked, "--server", address)

    assert (here.code, there.code) == (1, 1)
    assert shape(json.loads(here.out)) == shape(answer) == shape(json.loads(there.out))
    assert [choice["model"] for choice in json.loads(here.out)["choices"]] == models


async def test_json_of_failures_alone_is_the_servers_error(scripted: str) -> None:
    body = {"prompt": "hi", "model": ["nope", "401"]}
    async with serving("--config", scripted) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        here = await run("ask", "hi", "--json", "-m", "nope", "-m", "401", "--config", scripted)
        there = await run("ask", "hi", "--json", "-m", "nope", "-m", "401", "--server", address)

    assert (here.code, there.code) == (1, 1)
    assert json.loads(here.out).keys() == {"error"}
    assert shape(json.loads(here.out)) == shape(answer) == shape(json.loads(there.out))


async def test_a_server_answers_as_the_command_itself_does(scripted: str) -> None:
    asked = ["ask", "hi", "-m", "ok", "-m", "up/say-two-chunks-2", "-m", "500", "-n", "2"]
    async with serving("--config", scripted) as address:
        here = await run(*asked, "--config", scripted)
        there = await run(*asked, "--server", address)

    def timeless(text: str) -> str:
        return re.sub(r"[0-9.]+ (ms|s|tokens/s)\b", "", text)

    assert (here.code, there.code, there.err) == (1, 1, "")
    assert timeless(here.out) == timeless(there.out)


async def test_a_server_whose_models_all_fail_is_one_that_answered(scripted: str) -> None:
    async with serving("--config", scripted) as address:
        told = await run("ask", "hi", "-m", "nope", "-m", "401", "--server", address.removeprefix("http://"))

    assert (told.code, told.err) == (1, "")
    assert "== nope\n-- not found: unknown model `nope`" in told.out
    assert "== 401\n-- auth 401: " in told.out


async def test_a_server_with_keys_is_shown_ours(scripted: str) -> None:
    async with serving("--config", scripted, FANOUT_API_KEYS="right,other") as address:
        shown = await run("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="right")
        wrong = await run("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="wrong")
        absent = await run("ask", "hi", "-m", "ok", "--server", address)

    assert (shown.code, wrong.code, absent.code) == (0, 2, 2)
    assert wrong.err.startswith("fanout: the server answered 401: ")
    assert "FANOUT_API_KEYS" in absent.err


async def test_what_a_server_refuses_is_said_in_its_words(scripted: str) -> None:
    async with serving("--config", scripted) as address:
        told = await run("ask", "hi", "-m", "ok", "--temperature", "1.5", "--server", address)

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("fanout: the server answered 400: `temperature`: 1.5 is not allowed")


async def test_where_no_server_is_it_is_said(upstream: Upstream) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        nobody = await run("ask", "hi", "--server", address)
    stranger = await run("ask", "hi", "--server", upstream.origin)
    nonsense = await run("ask", "hi", "--server", "http://")

    assert (nobody.code, stranger.code, nonsense.code) == (2, 2, 2)
    assert nobody.err.startswith(f"fanout: no server at http://{address} (")
    assert "`fanout serve` starts one" in nobody.err
    assert stranger.err.startswith("fanout: the server answered 404")
    assert "is not the address of a server" in nonsense.err


@asynccontextmanager
async def stranger(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncGenerator[str]:
    """The address of a server that is not Fanout."""
    app = web.Application()
    app.router.add_post("/v1/completion", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("flags", [[], ["--json"]])
async def test_what_is_no_fanout_server_is_told_so(flags: list[str]) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def other(_: web.Request) -> web.Response:
        return web.json_response({"hello": 1})

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway")

    for answer, sentence in (
        (page, "is not a Fanout server"),
        (other, "is not a Fanout server"),
        (broken, "answered 502: <html>bad"),
    ):
        async with stranger(answer) as address:
            told = await run("ask", "hi", "--server", address, *flags)
        assert told.code == 2
        assert sentence in told.err
        assert told.err.count("\n") == 1


async def test_a_server_that_breaks_off_is_told_from_one_that_is_absent() -> None:
    """What came is shown all the same."""

    async def completion(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        call = {"index": 0, "entry": 0, "sample": 0, "label": "m"}
        if asked.get("dry_run"):
            return web.json_response({"calls": [call]})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: " + json.dumps({"choices": [call | {"text": "half an ans"}]}).encode() + b"\n\n")
        assert request.transport
        request.transport.abort()
        return response

    async with stranger(completion) as address:
        told = await run("ask", "hi", "--server", address)

    assert told.code == 2
    assert told.out.startswith("== m\nhalf an ans\n-- broken off after ")
    assert "broke off" in told.err
