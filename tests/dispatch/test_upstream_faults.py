"""Every fault through the real server: alone or beside a healthy model, whole or streamed, the client stays or leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.server.lifecycle import LIFECYCLE
from tests.support.builders.settings import write_providers_file
from tests.support.server import UP_KEY, Server, serve
from tests.support.upstream.faults import (
    ATTEMPTS,
    HANGING,
    STREAM,
    WHOLE,
    ExpectedEnd,
    TimeLimits,
    choose_time_limits,
    inject_fault,
)
from tests.support.upstream.server import Upstream

HEALTHY = "up/first-0.1-say-healthy"
ENDLESS = "up/chunks-500-gap-0.02"
NOTHING_LEFT_S = 20.0
UPSTREAM_WROTE_ON = "socket.send() raised exception."

every_fault = pytest.mark.parametrize("fault", WHOLE)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
company = pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])


@dataclass
class SeenCall:
    """One call as its client saw it."""

    text: str = ""
    end: dict[str, Any] = field(default_factory=dict)
    ended_s: float = 0.0

    @property
    def kind(self) -> str:
        return str(self.end["error"]["kind"]) if self.end.get("error") else "ok"


@dataclass
class SeenResponse:
    """A response as its client saw it."""

    status: int
    headers: Any
    body: str
    calls: dict[int, SeenCall]
    total_s: float


async def send_request(server: Server, body: dict[str, Any]) -> SeenResponse:
    start, raw = time.monotonic(), b""
    calls: dict[int, SeenCall] = {}
    async with server.session.post("/v1/completion", json=body) as response:
        async for line in response.content:
            raw += line
            if response.content_type == "text/event-stream" and line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    seen = calls.setdefault(choice["index"], SeenCall())
                    seen.text += choice["text"]
                    if choice["finish_reason"] or choice.get("error"):
                        seen.end, seen.ended_s = choice, time.monotonic() - start
    total_s = time.monotonic() - start
    if response.content_type == "application/json":
        answer = json.loads(raw)
        for choice in answer["choices"] if response.status == 200 else answer["error"]["details"]:
            end = choice if response.status == 200 else {**choice, "error": choice}
            calls[choice["index"]] = SeenCall(choice.get("text", ""), end, total_s)
    return SeenResponse(response.status, response.headers, raw.decode(), calls, total_s)


@asynccontextmanager
async def serve_fault(
    upstream: Upstream, folder: Path, fault: str, log_lines: list[str], caplog: pytest.LogCaptureFixture
) -> AsyncGenerator[tuple[Server, str]]:
    """Serve a model that meets `fault`, and check that nothing is left afterwards."""
    before = asyncio.all_tasks()
    row = {
        "adapter": "openai",
        "api_key_env": "UP_KEY",
        "timeout_s": TimeLimits().attempt_s,
        "retries": {"attempts": ATTEMPTS, "max_delay_s": 0.02},
        "limits": {"concurrency": 8},
    }
    async with inject_fault(upstream, fault) as (url, model):
        bad = row | {"base_url": url, "timeout_s": choose_time_limits(fault).attempt_s}
        config = write_providers_file(upstream.url, folder, more={"providers": {"bad": bad}}, **row)
        async with serve(config, UP_KEY=UP_KEY, FANOUT_MAX_ANSWER_BYTES="2000000") as server:
            yield server, f"bad/{model}"
            await upstream.wait_until_idle(NOTHING_LEFT_S)
            await wait_until(lambda: not server.app[LIFECYCLE].running_requests, "a request is still under way")
            assert server.in_flight == 0
            assert all(limiter.is_idle for limiter in server.dispatcher.limiters)
        await upstream.wait_until_closed(NOTHING_LEFT_S)
    await wait_until(lambda: asyncio.all_tasks() <= before, f"tasks are left: {asyncio.all_tasks() - before}")
    # After the answer, and by a thread of its own.
    await wait_until(lambda: sum('"event":"request.answered"' in line for line in log_lines) == 1, "the request has no line")
    for line in log_lines:
        assert UP_KEY not in line
        assert "127.0.0.1" not in line
        assert '"level":"error"' not in line
    # asyncio warns when the upstream writes to who has left
    assert {record.message for record in caplog.records if record.levelno >= logging.WARNING} <= {UPSTREAM_WROTE_ON}


async def wait_until(reached: Callable[[], bool], complaint: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(NOTHING_LEFT_S):
            while not reached():
                await asyncio.sleep(0.005)
    assert reached(), complaint


@every_fault
@company
@both
async def test_a_fault_is_answered_with_its_kind_and_status(
    upstream: Upstream,
    tmp_path: Path,
    log_lines: list[str],
    caplog: pytest.LogCaptureFixture,
    fault: str,
    beside: bool,
    stream: bool,
) -> None:
    """A healthy model beside it is neither affected nor delayed."""
    expected = (STREAM if stream else WHOLE)[fault]
    async with serve_fault(upstream, tmp_path, fault, log_lines, caplog) as (server, model):
        models = [HEALTHY, model, HEALTHY] if beside else [model]
        got = await send_request(
            server, {"prompt": "hi", "model": models, "stream": stream, "timeout_s": choose_time_limits(fault).deadline_s}
        )

    place = 1 if beside else 0
    answered = beside or expected.kind == "ok" or (stream and expected.pieces)
    assert got.status == (200 if answered else expected.status)
    assert sorted(got.calls) == list(range(len(models)))
    check_call(got.calls[place], expected, answered=answered)
    if not answered:
        assert got.headers.get("x-should-retry") == (None if got.status == 429 else "false")
    for index in range(len(models)):
        assert index == place or check_healthy(got.calls[index])
        if fault in HANGING and index != place:  # it has not waited for the other one
            assert got.calls[index].end["timing"]["total_ms"] < got.calls[place].end["timing"]["total_ms"]
    line = next(json.loads(line) for line in log_lines if '"event":"request.answered"' in line)
    assert (line["status"], line["attempts"][place]) == (got.status, expected.attempts)
    assert len(upstream.requests_for(fault)) == (0 if fault in ("refused", "tls") else expected.attempts)
    assert UP_KEY not in got.body
    assert "127.0.0.1" not in got.body
    assert "127.0.0.1" not in str(got.headers)


def check_call(seen: SeenCall, expected: ExpectedEnd, *, answered: bool) -> None:
    assert seen.kind == expected.kind
    assert expected.code in (None, seen.end["error"]["code"] if expected.kind != "ok" else None)
    if answered:
        assert seen.end["timing"]["attempts"] == expected.attempts
        assert seen.end["finish_reason"] in {"ok": ("stop", None), "timeout": ("timeout",)}.get(expected.kind, ("error",))
        assert bool(seen.text) is (expected.kind == "ok" or expected.pieces)


def check_healthy(seen: SeenCall) -> bool:
    assert (seen.text, seen.kind, seen.end["finish_reason"]) == ("healthy", "ok", "stop")
    assert seen.end["timing"]["attempts"] == 1
    return True


@every_fault
@company
@both
async def test_a_client_that_leaves_leaves_nothing_behind(
    upstream: Upstream,
    tmp_path: Path,
    log_lines: list[str],
    caplog: pytest.LogCaptureFixture,
    fault: str,
    beside: bool,
    stream: bool,
) -> None:
    """Alone it leaves during the fault, beside an endless model after it."""
    async with serve_fault(upstream, tmp_path, fault, log_lines, caplog) as (server, model):
        models = [ENDLESS, model] if beside else [model]
        body = {"prompt": "hi", "model": models, "stream": stream, "timeout_s": 10}
        client = asyncio.create_task(read_response(server.session.post("/v1/completion", json=body)))
        while beside and not upstream.requests_for(ENDLESS.removeprefix("up/")):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        client.cancel()
        with suppress(asyncio.CancelledError):
            await client

    assert len(upstream.abandoned) >= (1 if beside else 0)
    if beside:
        (endless,) = upstream.requests_for(ENDLESS.removeprefix("up/"))
        assert endless.is_abandoned
        line = next(json.loads(line) for line in log_lines if '"event":"request.answered"' in line)
        assert line["status"] == 499


async def read_response(request: Any) -> None:
    async with request as response:
        with suppress(aiohttp.ClientPayloadError):
            await response.read()
