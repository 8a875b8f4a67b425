"""Real servers that answer every request as the test determines."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from tests.support.provider_calls import P, build_adapter, open_session

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class CannedServer:
    """A running server and the requests that it received."""

    url: str
    requests: list[tuple[str, CIMultiDict[str], bytes]] = field(default_factory=list)
    """Path as sent, headers, body."""


@asynccontextmanager
async def serve_answers(answer: Answer, host: str = "127.0.0.1") -> AsyncGenerator[CannedServer]:
    """Serve on a free port of this machine and answer every request with `answer`."""
    server = CannedServer("")

    async def handle(request: web.Request) -> web.StreamResponse:
        server.requests.append((request.raw_path, CIMultiDict(request.headers), await request.read()))
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    server.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_adapter(make: Callable[..., P], answer: Answer, **settings: Any) -> AsyncGenerator[tuple[P, CannedServer]]:
    """Yield an adapter and the server that answers it."""
    async with serve_answers(answer) as server, open_session() as session:
        yield build_adapter(make, server.url, session=session, **settings), server


def answer_with(body: Any, *, status: int = 200, content_type: str = "application/json") -> Answer:
    """Return a handler that always gives the same answer; `body` is JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status, content_type=content_type)

    return answer


def answer_in_pieces(pieces: Iterable[bytes], content_type: str) -> Answer:
    """Return a handler that always streams these pieces."""
    parts = list(pieces)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    return answer
