"""The HTTP server: its routes, its start and its end."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

from aiohttp import HttpVersion11, web

from fanout.config import Settings
from fanout.dispatch import open_dispatcher
from fanout.errors import ConfigError, Fault
from fanout.logs import log
from fanout.metrics import Metrics
from fanout.store import MEMORY, open_store
from fanout.web import chat, completion, completions, keys, middlewares, models, reference, scale, usage
from fanout.web.state import DISPATCHER, LIFE, METRICS, Life

HARDEST_FILE_LIMIT = 65_536
LAST_WORDS_S = 2.0
"""How long the cancelled requests may take to say so."""
CUT_S = 0.5
"""How long aiohttp may wait, twice, for those that nobody reads."""


def create_app(settings: Settings) -> web.Application:
    """The application; its dispatcher opens at startup and closes at cleanup."""
    app = web.Application(middlewares=[middlewares.outermost], client_max_size=settings.environment.max_body_bytes)
    app[METRICS] = Metrics()
    app[LIFE] = Life()

    async def store(app: web.Application) -> AsyncIterator[None]:
        location = settings.environment.store
        async with open_store(location.get_secret_value() if location else MEMORY) as opened:
            if opened:
                app[usage.STORE] = opened
            yield

    async def dispatcher(app: web.Application) -> AsyncIterator[None]:
        metrics = app[METRICS]
        observers = [metrics.observe, middlewares.see, middlewares.log_retries]
        if usage.STORE in app:
            observers.append(app[usage.STORE].usage.observe)
        async with open_dispatcher(settings, observers) as opened:
            app[DISPATCHER] = opened
            metrics.limiters = lambda: ((limiter.name, limiter.state()) for limiter in opened.limiters)
            await opened.warm()
            app[LIFE].ready = True
            yield

    app.cleanup_ctx.append(store)  # before the dispatcher: what ends while that one closes is counted too
    app.cleanup_ctx.append(dispatcher)
    app.on_response_prepare.append(middlewares.add_headers)
    post = partial(app.router.add_post, expect_handler=encourage)
    get = partial(app.router.add_get, expect_handler=encourage)
    post("/v1/completion", completion.completion)
    post("/v1/completions", completions.completions)
    post("/v1/chat/completions", chat.chat_completions)
    for version in ("v2", "v3", "v4"):
        post(f"/{version}/completions", scale.completions)
    post("/v4/chat-completions", scale.chat_completions)
    get("/v4/models", scale.list_models)
    get("/user-info", scale.user_info)
    get("/v1/models", models.list_models)
    get("/v1/models/{model:.+}", models.one_model)
    get("/v1/usage", usage.usage)
    get("/livez", livez)
    get("/readyz", readyz)
    get("/metrics", metrics_page)
    reference.add_to(app)
    return app


async def encourage(request: web.Request) -> None:
    """Asks for the body where the client waits to be asked; any other expectation is not heeded.

    Source: RFC 9110 §10.1.1, which leaves it to the server. aiohttp's own handler answers 417 past the middlewares.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def livez(request: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """The server takes requests: it has started and is not stopping."""
    life = request.app[LIFE]
    if life.ready and not life.stopping:
        return web.json_response({"status": "ready"})
    return web.json_response({"status": "stopping" if life.stopping else "starting"}, status=503)


async def metrics_page(request: web.Request) -> web.Response:
    """Prometheus' text format."""
    page = await request.app[METRICS].page()
    return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def check_access(settings: Settings, host: str) -> None:
    """Refuses to serve other machines without keys.

    Raises:
        ConfigError: `host` is not loopback and no key is set.
    """
    if not settings.environment.api_keys and not keys.is_loopback(host):
        sentence = f"is not set: on `{host}` other machines could spend your keys; set it, or listen on 127.0.0.1"
        raise ConfigError("environment", [Fault("FANOUT_API_KEYS", sentence)])


async def serve(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; then takes nothing new, lets what runs finish within the grace, ends the rest honestly.

    Args:
        port: 0 takes a free one.
        started: called with the address once requests are taken.

    Raises:
        ConfigError: see `check_access`.
        OSError: the address cannot be listened on.
    """
    check_access(settings, host)
    raise_file_limit()
    app = create_app(settings)
    # handler_cancellation: when a client leaves, its handler is cancelled, and with it every upstream call.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CUT_S)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await runner.setup()
        spare_the_collector()
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        started(_address(runner, host))
        await stop.wait()
        await _wind_down(app, site)
    finally:
        await runner.cleanup()


async def _wind_down(app: web.Application, site: web.TCPSite) -> None:
    life, dispatcher = app[LIFE], app[DISPATCHER]
    life.stopping = True
    log.info("stopping", requests=life.running)
    await site.stop()
    grace_s = dispatcher.settings.environment.grace_s
    with suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await life.idle()
    dispatcher.stop()
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await life.idle()


def _address(runner: web.AppRunner, host: str) -> str:
    port = runner.addresses[0][1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def spare_the_collector() -> None:
    """What lives now lives to the end: the collector need not look at it again (-10 to -25 % CPU)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def raise_file_limit() -> None:
    """A call upstream is an open file: takes as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HARDEST_FILE_LIMIT if hard == resource.RLIM_INFINITY else min(hard, HARDEST_FILE_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
