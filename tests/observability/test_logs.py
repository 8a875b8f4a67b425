"""The log: one line for each request and retry, without prompts, answers or secrets, and never in the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.observability.logs import MAX_QUEUED_LINES, LogWriter, to_json_line
from fanout.server.afterwork import AFTERWORK
from tests.support.builders.settings import write_providers_file
from tests.support.cli import ServerProcess, run_command, start_server
from tests.support.client import Client
from tests.support.server import Server
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

PROMPT, ANSWER, SYSTEM = "Zebra-prompt-73", "w0 w1 w2", "Quagga-system-5"
KEY, UP_KEY, GUEST = "front-door-key-135", "sk-server-8642-8642", "sk-guest-9753-9753"
LEAKY = {
    "adapter": "tests.support.adapters.leaky",
    "key_header": "X-OpenAI-Api-Key",
    "retries": {"attempts": 1},
}


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def end(client: Client) -> None:
    """Have what has been answered logged now."""
    client.server.app[AFTERWORK].finish()


def find_events(log_lines: list[str], event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log_lines]
    return [line for line in lines if line["event"] == event]


@timed
async def test_a_request_is_logged_in_one_line_with_its_calls(client: Client, log_lines: list[str]) -> None:
    headers = {"X-Request-Id": "mine-1"}
    await client.complete(headers, model=["up/sleep-0.1-input-7-tokens-5", "nobody", "up/fail-1-then-ok"])
    end(client)

    (line,) = find_events(log_lines, "request.answered")
    assert (line["request_id"], line["method"], line["path"], line["status"]) == ("mine-1", "POST", "/v1/completion", 200)
    assert line["models"] == ["up/sleep-0.1-input-7-tokens-5", "nobody", "up/fail-1-then-ok"]
    assert line["results"] == ["ok", "not_found", "ok"]
    assert line["attempts"] == [1, 0, 2]
    assert (line["input_tokens"], line["output_tokens"], line["cost_usd"]) == (17, 9, None)
    assert 100 <= line["call_ms"][0] <= line["total_ms"] < 1000
    assert 0 <= line["overhead_ms"] < 100
    assert line["level"] == "info"


async def test_every_request_is_logged_in_one_line_however_it_ended(
    client: Client, upstream: Upstream, log_lines: list[str]
) -> None:
    await client.stream(model=["up/ok", "up/400"])
    await client.complete(model="up/400")
    await client.complete(model="up/ok", temperature=5)
    await client.complete(model="up/ok", dry_run=True)
    await client.send("POST", "/v1/completion", b"{")
    await client.send("GET", "/nowhere?key=value")
    await client.send("GET", "/v1/models/ok")
    await client.send("GET", "/livez")
    await client.send("GET", "/metrics")
    end(client)

    lines = [json.loads(line) for line in log_lines]
    assert {line["event"] for line in lines} == {"request.answered"}
    shown = [(line["path"], line["status"]) for line in lines if line["level"] == "info"]
    completion = [("/v1/completion", status) for status in (200, 400, 400, 200, 400)]
    assert shown == [*completion, ("/nowhere", 404), ("/v1/models/ok", 200)]
    assert [line["path"] for line in lines if line["level"] == "debug"] == ["/livez", "/metrics"], "probes come every second"
    assert lines[0]["results"] == ["ok", "bad_request"]
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_whose_client_left_is_logged_in_one_line_with_its_calls(
    client: Client, upstream: Upstream, log_lines: list[str], stream: bool
) -> None:
    asking = asyncio.create_task(client.complete(model=["up/ok", "up/hang"], stream=stream))
    await upstream.wait_for_requests(2)
    await asyncio.sleep(0.05)
    asking.cancel()
    await upstream.wait_until_idle(1)
    await asyncio.sleep(0.05)

    (line,) = find_events(log_lines, "request.answered")
    assert line["status"] == 499
    assert line["models"] == ["up/ok", "up/hang"]
    assert line["results"] == ["ok", "cancelled"]


async def test_a_retry_is_logged_in_one_line(client: Client, log_lines: list[str]) -> None:
    await client.complete({"X-Request-Id": "mine-2"}, model=["up/fail-2-then-ok", "up/429-ms-30-times-1-then-ok", "up/400"])

    retries = find_events(log_lines, "call.retried")
    assert len(retries) == 3
    assert {line["request_id"] for line in retries} == {"mine-2"}
    limited = next(line for line in retries if line["kind"] == "rate_limit")
    assert (limited["provider"], limited["model"], limited["attempt"]) == ("up", "429-ms-30-times-1-then-ok", 1)
    assert (limited["status"], limited["delay_ms"]) == (429, 30)
    assert limited["upstream_request_id"].startswith("req-")
    assert sorted(line["attempt"] for line in retries if line["kind"] == "server") == [1, 2]


async def test_a_line_cannot_be_forged_through_a_path(client: Client, log_lines: list[str]) -> None:
    await client.send("GET", "/a%0A%7B%22event%22:%22request%22%7D%1B[31m")
    end(client)

    (line,) = find_events(log_lines, "request.answered")
    assert line["path"] == "/a%0A%7B%22event%22:%22request%22%7D%1B%5B31m"


@pytest.fixture
async def program(upstream: Upstream, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    config = write_providers_file(upstream.url, tmp_path, more={"providers": {"leaky": LEAKY}}, api_key_env="UP_KEY")
    async with start_server(config, UP_KEY=UP_KEY, FANOUT_API_KEYS=KEY, FANOUT_LOG_LEVEL="debug") as program:
        yield program


async def test_prompts_answers_and_keys_are_never_logged(program: ServerProcess) -> None:
    """This holds even where adapters have bugs, requests are malformed and tasks are forgotten."""
    headers = {"Authorization": f"Bearer {KEY}", "X-OpenAI-Api-Key": GUEST}
    models = [f"up/{word}" for word in ("chunks-3", "400-leak", "401-leak", "500-leak-code-x", "echo", "cut", "bad_json")]
    body: dict[str, Any] = {"prompt": PROMPT, "system": SYSTEM, "user": "Tapir-user", "metadata": {"Gnu-key": "Gnu-value"}}
    async with aiohttp.ClientSession(program.url) as session:
        for stream in (False, True):
            for model in (models, "leaky/bug", "leaky/forgotten"):
                request = {**body, "model": model, "stream": stream}
                async with session.post("/v1/completion", json=request, headers=headers) as response:
                    await response.read()
        for wrong in ({"prompt": [PROMPT]}, {"prompt": PROMPT, "temperature": PROMPT}, {"prompt": PROMPT, PROMPT: 1}):
            async with session.post("/v1/completion", json=wrong, headers=headers) as response:
                assert response.status == 400
        async with session.post("/v1/completion", json=body, headers={"x-api-key": f"{KEY}x"}) as response:
            assert response.status == 401
    for line in (f"Authorization Bearer: {KEY}", f"x-api-key: {KEY}\x01", f"X-OpenAI-Api-Key: {GUEST}\r\nbad header"):
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        writer.write(f"POST /{PROMPT} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
        assert b"400" in await reader.readline()
        writer.close()
    await program.wait_for_event("request.answered", 10)
    await program.wait_for_event("request.malformed", 3)
    await program.wait_for_event("Task exception was never retrieved", 2)
    assert await program.stop() == 0

    written = program.read_log()
    for secret in (ANSWER, SYSTEM, "Tapir", "Gnu", KEY, UP_KEY, GUEST):
        assert secret not in written
    assert not [line for line in program.log_lines() if PROMPT in json.dumps(line)]
    assert len(program.log_lines("call.crashed")) == 4
    assert all(line["timestamp"].endswith("Z") for line in program.log_lines()), (
        "off a terminal every line is JSON, with a time"
    )


async def test_the_line_of_a_request_has_the_form_of_all_others(program: ServerProcess) -> None:
    body, headers = {"prompt": "hi", "model": ["up/ok", "up/fail-1-then-ok"]}, {"x-api-key": KEY}
    async with (
        aiohttp.ClientSession(program.url) as session,
        session.post("/v1/completion", json=body, headers=headers) as reply,
    ):
        assert reply.status == 200
    (served,), (retried,) = await program.wait_for_event("request.answered"), await program.wait_for_event("call.retried")

    assert {line["level"] for line in program.log_lines("request.answered")} == {"info"}
    for line in (served, retried):
        assert next(iter(line)) == "request_id"
        assert [name for name in line if name in ("event", "level", "timestamp")] == ["event", "level", "timestamp"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


async def test_requests_are_not_logged_above_the_level_of_their_lines(upstream: Upstream, tmp_path: Path) -> None:
    config, body = write_providers_file(upstream.url, tmp_path), {"prompt": "hi", "model": "up/fail-1-then-ok"}
    async with start_server(config, FANOUT_LOG_LEVEL="warning") as program:
        async with aiohttp.ClientSession(program.url) as session, session.post("/v1/completion", json=body) as reply:
            assert reply.status == 200
        await program.wait_for_event("call.retried")
        assert await program.stop() == 0

    assert not program.log_lines("request.answered")


async def test_the_lines_of_a_job_name_its_account(program: ServerProcess) -> None:
    body, headers = {"items": [{"prompt": "hi"}], "models": ["up/ok"]}, {"x-api-key": KEY}
    async with aiohttp.ClientSession(program.url) as session, session.post("/v1/jobs", json=body, headers=headers) as response:
        assert response.status in (200, 201), await response.text()
    for event in ("job.started", "job.ended"):
        (line,) = await program.wait_for_event(event)
        assert line["account"] == f"key-{hashlib.sha256(KEY.encode()).hexdigest()[:12]}"


async def test_a_bug_is_logged_with_its_place_but_without_any_value(program: ServerProcess) -> None:
    async with aiohttp.ClientSession(program.url) as session:
        body = {"prompt": PROMPT, "model": ["leaky/bug", "up/ok"]}
        async with session.post("/v1/completion", json=body, headers={"x-api-key": KEY}) as response:
            choices = (await response.json())["choices"]
    (line,) = await program.wait_for_event("call.crashed")
    (served,) = await program.wait_for_event("request.answered")

    assert [choice["error"] and choice["error"]["kind"] for choice in choices] == ["internal", None]
    assert (line["level"], line["provider"], line["model"]) == ("error", "leaky", "bug")
    assert line["request_id"] == served["request_id"]
    assert line["account"] == served["account"] == f"key-{hashlib.sha256(KEY.encode()).hexdigest()[:12]}"
    trace = line["exception"]
    assert trace.index("builtins.LookupError") < trace.index("which led to:") < trace.index("builtins.ValueError")
    assert 'leaky.py", line' in trace
    assert "raise ValueError(prompt, secret) from error" in trace
    assert PROMPT not in trace
    assert "locals" not in trace


async def test_on_a_terminal_lines_are_written_for_people(upstream: Upstream, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    async with start_server(write_providers_file(upstream.url, tmp_path), stderr=theirs) as program:
        async with aiohttp.ClientSession(program.url) as session, session.get("/nowhere") as response:
            assert response.status == 404
        shown = (await asyncio.to_thread(os.read, ours, 65536)).decode()
        assert await program.stop() == 0
    os.close(ours)
    os.close(theirs)

    assert "request.answered" in shown
    assert "/nowhere" in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.splitlines()[0])


@timed
async def test_a_full_log_pipe_stops_neither_the_server_nor_its_shutdown(upstream: Upstream, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    async with start_server(write_providers_file(upstream.url, tmp_path), stderr=theirs) as program:
        slowest = 0.0
        async with aiohttp.ClientSession(program.url) as session:
            for _ in range(700):  # of 200 bytes each: twice what the pipe holds
                began = time.monotonic()
                async with session.get("/nowhere") as response:
                    assert response.status == 404
                slowest = max(slowest, time.monotonic() - began)
        began = time.monotonic()
        assert await program.stop() == 0
        stopped_s = time.monotonic() - began
    os.close(ours)
    os.close(theirs)

    assert slowest < 0.5
    assert stopped_s < 4


async def test_a_closed_log_pipe_stops_nothing(upstream: Upstream, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    async with start_server(write_providers_file(upstream.url, tmp_path), stderr=theirs) as program:
        os.close(theirs)
        os.close(ours)
        async with aiohttp.ClientSession(program.url) as session:
            for _ in range(5):
                async with session.get("/livez") as response:
                    assert response.status == 200
                async with session.get("/nowhere") as response:
                    assert response.status == 404
                await asyncio.sleep(0.05)
        assert await program.stop() == 0


def test_dropped_lines_are_counted() -> None:
    ours, theirs = os.pipe()
    for end in (ours, theirs):  # as a shell's pipe may be: a full one then refuses instead of waiting
        os.set_blocking(end, False)
    with os.fdopen(theirs, "w") as stream:
        writer = LogWriter(stream)
        for number in range(MAX_QUEUED_LINES + 50):
            writer.msg(f"line {number}")
        read, until = b"", time.monotonic() + 10
        while b"dropped" not in read and time.monotonic() < until:
            with suppress(BlockingIOError):
                read += os.read(ours, 65536)
        writer.close()
    os.close(ours)

    lines = read.decode().splitlines()
    assert lines[:MAX_QUEUED_LINES] == [f"line {number}" for number in range(MAX_QUEUED_LINES)]
    assert json.loads(lines[MAX_QUEUED_LINES])["count"] == 50


def test_any_event_becomes_a_line_of_json() -> None:
    odd = {"half": "\ud83d", "none": float("nan"), "object": object, "two": "a\nb"}

    assert "\n" not in to_json_line(odd)
    assert set(json.loads(to_json_line(odd))) == set(odd)
    assert json.loads(to_json_line({"none": float("nan")})) == {"none": None}


LOG_EVIL = """
import sys
from fanout.observability import logs
logs.configure("info", sys.argv[1])
evil = "a\\x1b[31mb\\x9b2J\\n2026-01-01 [info] forged\\x07"
try:
    raise ValueError(evil)
except ValueError:
    logs.log.error("call.failed", model=evil, models=[evil], request_id=evil, **{evil: evil}, nested={"x": evil}, exc_info=True)
import logging
logging.getLogger(evil).warning(evil)
"""


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_value_of_a_line_steers_the_terminal_or_forges_a_line(form: str) -> None:
    done = await run_command((sys.executable, "-c", LOG_EVIL, form))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.err)
    assert not re.search(r"^2026-01-01", done.err, re.MULTILINE)
    assert "forged" in done.err
    if form == "json":
        assert json.loads(done.err.splitlines()[0])["model"].startswith("a\x1b[31mb\x9b2J\n")
