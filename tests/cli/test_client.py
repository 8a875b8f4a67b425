"""`fanout ask --json`, and `--server`: the same answers with and without a server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.support.cli import describe_shape, run_fanout, serve_fanout
from tests.support.upstream.server import Upstream

TIMING = {"queued_ms": 0, "ttft_ms": 1, "total_ms": 1, "attempts": 1, "tokens_per_second": None}
END = {"error": None, "usage": None, "cost_usd": None, "timing": TIMING}


async def test_json_output_equals_the_servers_answer(providers_json: str) -> None:
    models = ["ok", "429", "up/no_usage"]
    body = {"prompt": "hi", "model": models, "max_tokens": 4}
    async with serve_fanout("--config", providers_json) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        arguments = ["ask", "hi", "--json", "--max-tokens", "4", *(part for model in models for part in ("-m", model))]
        local = await run_fanout(*arguments, "--config", providers_json)
        remote = await run_fanout(*arguments, "--server", address)

    assert (local.code, remote.code) == (1, 1)
    assert describe_shape(json.loads(local.out)) == describe_shape(answer) == describe_shape(json.loads(remote.out))
    assert [choice["model"] for choice in json.loads(local.out)["choices"]] == models


async def test_json_output_equals_the_servers_error_if_every_call_fails(providers_json: str) -> None:
    body = {"prompt": "hi", "model": ["nope", "401"]}
    async with serve_fanout("--config", providers_json) as address, aiohttp.ClientSession() as session:
        async with session.post(f"{address}/v1/completion", json=body) as response:
            answer = await response.json()
        local = await run_fanout("ask", "hi", "--json", "-m", "nope", "-m", "401", "--config", providers_json)
        remote = await run_fanout("ask", "hi", "--json", "-m", "nope", "-m", "401", "--server", address)

    assert (local.code, remote.code) == (1, 1)
    assert json.loads(local.out).keys() == {"error"}
    assert describe_shape(json.loads(local.out)) == describe_shape(answer) == describe_shape(json.loads(remote.out))


async def test_answers_through_a_server_equal_those_of_the_command_itself(providers_json: str) -> None:
    arguments = ["ask", "hi", "-m", "ok", "-m", "up/say-two-chunks-2", "-m", "500", "-n", "2"]
    async with serve_fanout("--config", providers_json) as address:
        local = await run_fanout(*arguments, "--config", providers_json)
        remote = await run_fanout(*arguments, "--server", address)

    def remove_times(text: str) -> str:
        return re.sub(r"( · queued )?[0-9.]+ (ms|s|tokens/s)\b|fastest: .*", "", text)

    assert (local.code, remote.code, remote.err) == (1, 1, "")
    assert remove_times(local.out) == remove_times(remote.out)


async def test_failures_of_all_models_on_a_server_are_shown_as_answers(providers_json: str) -> None:
    async with serve_fanout("--config", providers_json) as address:
        result = await run_fanout("ask", "hi", "-m", "nope", "-m", "401", "--server", address.removeprefix("http://"))

    assert (result.code, result.err) == (1, "")
    assert "== nope\n-- not found: unknown model `nope`" in result.out
    assert "== 401\n-- auth 401: " in result.out


async def test_the_key_for_the_server_comes_from_the_environment(providers_json: str) -> None:
    async with serve_fanout("--config", providers_json, FANOUT_API_KEYS="key-one-abcdefghij,key-two-0123456789") as address:
        shown = await run_fanout("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="key-one-abcdefghij")
        wrong = await run_fanout("ask", "hi", "-m", "ok", "--server", address, FANOUT_API_KEYS="wrong-key-one-abcdefghij")
        absent = await run_fanout("ask", "hi", "-m", "ok", "--server", address)

    assert (shown.code, wrong.code, absent.code) == (0, 2, 2)
    assert wrong.err.startswith("fanout: the server answered 401: ")
    assert "FANOUT_API_KEYS" in absent.err


async def test_a_request_the_server_refuses_is_reported_in_its_words(providers_json: str) -> None:
    async with serve_fanout("--config", providers_json) as address:
        result = await run_fanout("ask", "hi", "-m", "ok", "-o", "temperature=2.5", "--server", address)

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("fanout: the server answered 400: `temperature`: 2.5 is not allowed")


async def test_a_missing_server_is_reported(upstream: Upstream) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        nobody = await run_fanout("ask", "hi", "-m", "m", "--server", address)
    stranger = await run_fanout("ask", "hi", "-m", "m", "--server", upstream.origin)
    nonsense = await run_fanout("ask", "hi", "-m", "m", "--server", "http://")

    assert (nobody.code, stranger.code, nonsense.code) == (2, 2, 2)
    assert nobody.err.startswith(f"fanout: no server at http://{address} (connection refused); ")
    assert "`fanout serve` starts one" in nobody.err
    assert stranger.err.startswith("fanout: the server answered 404")
    assert "is not the address of a server" in nonsense.err


@asynccontextmanager
async def serve_stranger(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncGenerator[str]:
    """Serve something that is not Fanout, and yield its address."""
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("flags", [[], ["--json"]])
async def test_a_server_that_is_not_fanout_is_reported(flags: list[str]) -> None:
    async def answer_page(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def answer_other(_: web.Request) -> web.Response:
        return web.json_response({"hello": 1})

    async def answer_broken(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway")

    for answer, sentence in (
        (answer_page, "is not a Fanout server"),
        (answer_other, "is not a Fanout server"),
        (answer_broken, "answered 502: <html>bad"),
    ):
        async with serve_stranger(answer) as address:
            result = await run_fanout("ask", "hi", "-m", "m", "--server", address, *flags)
        assert result.code == 2
        assert sentence in result.err
        assert result.err.count("\n") == 1


async def test_a_broken_connection_differs_from_an_absent_server() -> None:
    """The text that had arrived is shown."""

    async def answer_half(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = {"index": 0, "entry": 0, "sample": 0, "label": "m", "model": "m"}
        if body.get("dry_run"):
            return web.json_response({"calls": [call]})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: " + json.dumps({"choices": [call | {"text": "half an ans"}]}).encode() + b"\n\n")
        assert request.transport
        request.transport.abort()
        return response

    async with serve_stranger(answer_half) as address:
        result = await run_fanout("ask", "hi", "-m", "m", "--server", address)

    assert result.code == 2
    assert result.out == "half an ans\n"
    assert result.err.startswith("broken off after ")
    assert "broke off" in result.err


async def test_a_server_that_breaks_off_in_a_conversation_is_named_and_the_other_answers_end() -> None:
    has_left = asyncio.Event()

    async def answer_first_message(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("dry_run"):
            calls = [{"index": place, "label": name, "model": name, "sample": 0} for place, name in enumerate(body["model"])]
            return web.json_response({"calls": calls})
        response = web.StreamResponse()
        await response.prepare(request)
        if "messages" in body:
            if body["model"] == ["a"]:
                await has_left.wait()
            assert request.transport
            request.transport.abort()
            has_left.set()
            return response
        for place in range(2):
            choice = {"index": place, "text": "yes", "finish_reason": "stop", **END}
            await response.write(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        return response

    async with serve_stranger(answer_first_message) as address:
        chat = await run_fanout("chat", "-m", "a,b", "--server", address, given=b"one\ntwo\n")

    assert (chat.code, chat.out.count("yes")) == (2, 2), chat
    assert chat.err.splitlines()[-1] == f"fanout: the server at {address} broke off in the middle of its answer"
    assert "Traceback" not in chat.err


async def test_conversations_images_and_patterns_go_through_a_server_too(
    providers_json: str, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n rest")
    async with serve_fanout("--config", providers_json) as address:
        seen = await run_fanout("ask", "What is this?", "-m", "o?,up/500", "-f", str(tmp_path / "a.png"), "--server", address)
        whole = await run_fanout("ask", "hi", "-m", "ok", "-o", "mode=x", "--json", "--server", address)
        talk = await run_fanout("chat", "-m", "ok,up/say-two", "--server", address, given=b"Hello\nAnd now?\n")
        default = await run_fanout("ask", "hi", "--server", address)
        local = await run_fanout("ask", "more", "-c", "--server", address)

    assert (seen.code, talk.code, whole.code, local.code) == (1, 0, 0, 2)
    assert "== ok\nThis is ok.\n-- 4 tokens" in seen.out
    assert "-- server 500" in seen.out
    assert upstream.requests[0].body["messages"][0]["content"][1]["type"] == "image_url"
    assert json.loads(whole.out)["choices"][0]["message"]["content"] == "This is ok."
    sent = [[message["content"] for message in request.body["messages"]] for request in upstream.requests]
    assert ["Hello", "two", "And now?"] in sent
    assert ["Hello", "This is ok.", "And now?"] in sent
    assert re.match(r"asking \S+: a ready model of each of the server's providers; ", default.err)
