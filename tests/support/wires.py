"""Adapters of every format without a socket, and a server that answers them as a test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from aiohttp import web
from multidict import CIMultiDict
from pydantic import SecretStr

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.schema import Call, Completion, Delta, Failure
from fanout.providers.transport.http import HttpProvider
from tests.support.exchanges import KEY, calling, gathered, open_session, replayed

P = TypeVar("P", bound=HttpProvider)

Told = Failure | tuple[list[Delta], Completion]
"""How a stream ends."""


def adapter_at(
    make: Callable[..., P],
    base_url: str | None = "http://127.0.0.1:9",
    *,
    session: Any = None,
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
    max_answer_bytes: int = 2**24,
    **row: Any,
) -> P:
    """A provider named `up` of one adapter's class; without a session only its pure part works."""
    settings = ProviderSettings(
        name="up",
        row=ProviderRow(adapter="any", **row),
        source="test",
        base_url=base_url,
        key=SecretStr(key) if key else None,
        headers={name: SecretStr(value) for name, value in (headers or {}).items()},
        missing=(),
        missing_key=None,
        max_answer_bytes=max_answer_bytes,
    )
    return make(settings, session)


def asking(provider: HttpProvider, model: str = "m", **asked: Any) -> Call:
    """A call of any adapter; see `calling`."""
    anyone: Any = provider
    return calling(anyone, model, **asked)


def body_of(provider: HttpProvider, call: Call, *, stream: bool = False) -> Any:
    """The JSON that a call sends."""
    return json.loads(provider.encode(call, stream=stream).body)


def told(provider: HttpProvider, call: Call, pieces: Iterable[bytes], headers: Mapping[str, str] | None = None) -> Told:
    """How a stream that arrives in these pieces ends; anything but an answer or a failure is raised."""
    anyone: Any = provider
    try:
        return replayed(anyone, call, list(pieces), headers)
    except ProviderError as error:
        return error.failure


def whole(provider: HttpProvider, call: Call, status: int, body: Any, **headers: str) -> Completion | Failure:
    """What a whole body, JSON or bytes, says."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return provider.decode(
            call, status, CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()}), data
        )
    except ProviderError as error:
        return error.failure


def failed(result: Told | Completion) -> Failure:
    """`result`, which must be a failure."""
    assert isinstance(result, Failure)
    return result


def answered(result: Told | Completion) -> Completion:
    """`result`, which must be an answer; a stream's deltas amount to what it says in the end."""
    assert not isinstance(result, Failure), result
    if isinstance(result, Completion):
        return result
    deltas, completion = result
    message = completion.choices[0].message
    assert "".join(one.text for one in deltas) == message.text
    assert "".join(one.reasoning or "" for one in deltas) == (message.reasoning or "")
    return completion


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """`body` in pieces."""
    ends = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


def spoilt(body: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    """`body` with other bytes at some places."""
    made = bytearray(body)
    for place, value in changes:
        made[place % len(made)] = value
    return bytes(made)


async def streamed(provider: HttpProvider, call: Call) -> tuple[list[Delta], Completion]:
    """A streamed call over the network, to its end."""
    anyone: Any = provider
    return await gathered(anyone, call)


@dataclass(slots=True)
class Served:
    """A server of a test, and what it was asked."""

    url: str
    requests: list[tuple[str, CIMultiDict[str], bytes]] = field(default_factory=list)
    """Path as sent, headers, body."""


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], host: str = "127.0.0.1"
) -> AsyncIterator[Served]:
    """A server on this machine that answers every request by `answer`."""
    served = Served("")

    async def handle(request: web.Request) -> web.StreamResponse:
        served.requests.append((request.raw_path, CIMultiDict(request.headers), await request.read()))
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    served.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_to(
    make: Callable[..., P], answer: Callable[[web.Request], Awaitable[web.StreamResponse]], **settings: Any
) -> AsyncIterator[tuple[P, Served]]:
    """An adapter, and the server that answers it."""
    async with serving(answer) as served, open_session() as session:
        yield adapter_at(make, served.url, session=session, **settings), served


def answering(body: Any, *, status: int = 200, content_type: str = "application/json") -> Any:
    """An answer that is always the same; `body` is JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status, content_type=content_type)

    return answer


def in_pieces(pieces: Iterable[bytes], content_type: str) -> Any:
    """A streamed answer."""
    parts = list(pieces)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    return answer
