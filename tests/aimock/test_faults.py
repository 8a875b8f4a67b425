"""Faults of aimock in every format that it speaks: the kind of failure is right, nothing hangs, no socket is left behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.schema import Delta, Failure
from fanout.providers.transport.http import HttpProvider
from tests.aimock.mock import FORMATS, KEY, PATIENCE_S, Aimock
from tests.support.provider_calls import build_call, collect_stream, open_session
from tests.support.server import serve

CHAOS = {
    "drop": ("server", 500, None),
    "malformed": ("malformed", None, None),
    "disconnect": ("network", None, None),
    "ratelimit": ("rate_limit", 429, 1.0),
}
"""A fault that a request's header asks for → kind, status, delay."""
REFUSALS = {
    400: "bad_request",
    401: "auth",
    404: "not_found",
    429: "rate_limit",
    500: "server",
    503: "server",
    529: "server",
}
BROKEN_OFF = "One two three four five six seven eight nine ten"

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
formats = pytest.mark.parametrize("name", FORMATS)


async def fail_call(provider: HttpProvider, text: str, *, stream: bool) -> Failure:
    """Return the failure of a call."""
    call = build_call(provider, "m-1", messages=(Message("user", text),))
    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await (collect_stream(provider, call) if stream else provider.complete(call))
    return caught.value.failure


@both
@pytest.mark.parametrize("fault", CHAOS)
@formats
async def test_injected_chaos_becomes_a_failure_of_its_kind(name: str, fault: str, stream: bool, aimock: Aimock) -> None:
    """In whatever format: the kind is the transport's and the status's."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session, **{f"x_aimock_chaos_{fault}": "1"})
        for _ in range(3):
            failed = await fail_call(provider, "Hello", stream=stream)
            assert (failed.kind, failed.status, failed.retry_after_s) == CHAOS[fault]
            assert KEY not in repr(failed)
        await aimock.wait_for_sockets(sockets=0 if fault == "disconnect" else 1)


@both
@pytest.mark.parametrize("status", REFUSALS)
@formats
async def test_refusals_have_their_kind(name: str, status: int, stream: bool, aimock: Aimock) -> None:
    """Also where the body has another format's shape, as a gateway's has."""
    async with open_session() as session:
        failed = await fail_call(aimock.build_adapter(name, session), f"refuse with {status}", stream=stream)
        assert (failed.kind, failed.status) == (REFUSALS[status], status)
        await aimock.wait_for_sockets(sockets=1)


@pytest.mark.parametrize("text", ["cut me off", "hang up on me"])
@formats
async def test_a_stream_that_breaks_off_keeps_its_partial_text(name: str, text: str, aimock: Aimock) -> None:
    """The text so far is kept; after so many pieces, or after a time."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        for _ in range(3):
            failed = await fail_call(provider, text, stream=True)
            assert failed.kind == "network"
            # A server that hangs up after a time may have sent nothing yet.
            assert failed.partial or text == "hang up on me"
            assert BROKEN_OFF.startswith(failed.partial or "")
            assert failed.partial != BROKEN_OFF
        await aimock.wait_for_sockets(sockets=0)


@formats
async def test_a_slow_start_is_waited_for(name: str, aimock: Aimock) -> None:
    """The first piece is the first moment anything is known."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        call = build_call(provider, "m-1", messages=(Message("user", "take your time"),))
        async with asyncio.timeout(PATIENCE_S):
            _, completion = await collect_stream(provider, call)
    assert completion.choices[0].message.text == "At last"


@both
@formats
async def test_a_caller_who_stops_waiting_leaves_no_socket(name: str, stream: bool, aimock: Aimock) -> None:
    """Before the first byte."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session, x_aimock_chaos_latency="20000")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await (collect_stream(provider, build_call(provider)) if stream else provider.complete(build_call(provider)))
        await aimock.wait_for_sockets(sockets=0)


@formats
async def test_a_stream_left_early_leaves_no_socket(name: str, aimock: Aimock) -> None:
    """In the middle, while the rest is still to come."""
    async with open_session() as session:
        provider = aimock.build_adapter(name, session)
        pieces = provider.stream(build_call(provider, "m-1", messages=(Message("user", "go on for ever"),)))
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await anext(pieces), Delta)
            await pieces.aclose()
        await aimock.wait_for_sockets(sockets=0)


@both
async def test_a_failure_is_retried(stream: bool, aimock: Aimock, tmp_path: Path) -> None:
    """Each format fails once and then answers; the server says that it took two attempts."""
    rows = {name: aimock.build_row(name, **{"X-Test-Id": uuid4().hex}) for name in FORMATS}
    for row in rows.values():
        row["retries"] = {"attempts": 2, "max_delay_s": 0.01}
    config = tmp_path / "providers.json"
    config.write_text(json.dumps({"extends": False, "providers": rows}))
    async with serve(config, MOCK_KEY=KEY) as server:
        body = {"model": [f"{name}/m-1" for name in rows], "prompt": "fail at first", "stream": stream}
        async with server.session.post("/v1/completion", json=body) as response:
            text = await response.text()
    attempts = [piece["timing"]["attempts"] for piece in read_choices(text) if piece.get("timing")]
    assert attempts == [2] * len(FORMATS)


@pytest.mark.parametrize("headers", [{}, {"x-aimock-chaos-latency": "20000"}], ids=["slow", "silent"])
async def test_the_deadline_ends_all_formats(headers: dict[str, str], aimock: Aimock, tmp_path: Path) -> None:
    """No call goes on, whether its answer has begun or not."""
    config = tmp_path / "providers.json"
    rows = {name: aimock.build_row(name, **headers) for name in FORMATS}
    config.write_text(json.dumps({"extends": False, "providers": rows}))
    async with serve(config, MOCK_KEY=KEY) as server:
        body = {"model": [f"{name}/m-1" for name in rows], "prompt": "go on for ever", "stream": True, "timeout_s": 0.25}
        async with server.session.post("/v1/completion", json=body) as response:
            text = await response.text()
        assert server.in_flight == 0
        await aimock.wait_for_sockets(sockets=0)
    kinds = [piece["error"]["kind"] for piece in read_choices(text) if piece.get("error")]
    assert kinds == ["timeout"] * len(FORMATS)


def read_choices(text: str) -> list[dict[str, Any]]:
    """The choices of an answer, whole or streamed, or of a refusal."""
    if not text.startswith("data: "):
        answer = json.loads(text)
        found: list[dict[str, Any]] = answer.get("choices") or [{"error": detail} for detail in answer["error"]["details"]]
        return found
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [choice for chunk in chunks for choice in chunk["choices"]]
