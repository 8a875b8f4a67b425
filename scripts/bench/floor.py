"""The floor of a server: the least that a fan-out with aiohttp can cost, without validation, limits, retries, logs or prices.

usage: floor.py PORT UPSTREAM_URL      POST /v1/completion {"model": ["a", "b"], "prompt": "..."} -> merged answers
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

HEADERS = CIMultiDict({"Content-Type": "application/json", "Authorization": "Bearer k"})
SESSION = web.AppKey("session", aiohttp.ClientSession)
UPSTREAM = web.AppKey("upstream", URL)


async def call(session: aiohttp.ClientSession, upstream: URL, model: str, prompt: str) -> dict[str, Any]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()
    start = time.perf_counter()
    async with session.post(upstream, data=body, headers=HEADERS) as response:
        answer = json.loads(await response.read())
    choice = answer["choices"][0]
    return {
        "model": model,
        "text": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "usage": answer["usage"],
        "prediction_time_ms": round((time.perf_counter() - start) * 1e3),
    }


def list_models(body: dict[str, Any]) -> list[str]:
    model = body["model"]
    return model if isinstance(model, list) else [model]


async def respond_whole(app: web.Application, body: dict[str, Any]) -> web.Response:
    calls = (call(app[SESSION], app[UPSTREAM], model, body["prompt"]) for model in list_models(body))
    choices = await asyncio.gather(*calls)
    return web.Response(body=json.dumps({"choices": choices}).encode(), content_type="application/json")


async def respond(request: web.Request) -> web.StreamResponse:
    return await respond_whole(request.app, json.loads(await request.read()))


async def respond_ready(_: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        freeze()
        yield session


def freeze() -> None:
    """Hide what exists after start from the garbage collector, which would otherwise walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def open_client(app: web.Application) -> AsyncIterator[None]:
    async with open_session() as app[SESSION]:
        yield


def serve(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
    app = web.Application()
    app[UPSTREAM] = URL(sys.argv[2])
    app.cleanup_ctx.append(open_client)
    app.router.add_get("/readyz", respond_ready)
    app.router.add_post("/v1/completion", handler)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    serve(respond)
