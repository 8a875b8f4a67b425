"""The real server on a real port: `async with serving(providers_json, UP_KEY="sk-…") as server`, and the fixture `server`."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import structlog
from aiohttp import web
from pydantic_core import to_json

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import Dispatcher
from fanout.observability.logs import log
from fanout.server.app import create_app
from fanout.server.lifecycle import DISPATCHER
from tests.support.upstreams import Upstream, providers_file

UP_KEY = "sk-upstream-0123456789abcdef"
"""The key of provider `up` behind the fixture `server`; nobody outside may ever see it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and a client for it."""

    url: str
    app: web.Application
    dispatcher: Dispatcher
    session: aiohttp.ClientSession
    """Addresses are relative to `url`: `server.session.post("/v1/completion", json=…)`."""

    @property
    def in_flight(self) -> int:
        """Calls that hold a place, over all accounts, callers' own included."""
        return self.dispatcher.cap.used


@asynccontextmanager
async def serving(config: Path | None = None, **environ: str) -> AsyncGenerator[Server]:
    """Serves with a providers.json (`None`: the shipped one) and these variables alone, as `fanout serve` does.

    Not aiohttp's TestServer: that one cancels handlers whatever the runner was told.
    """
    nowhere = {"HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull, "FANOUT_STORE": "off"}  # whose files must not be touched
    app = create_app(load_settings(config, {**nowhere, **environ}))
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    thresholds = gc.get_threshold()
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Server(url, app, app[DISPATCHER], session)
    finally:
        await runner.cleanup()
        gc.unfreeze()  # what the app does to the collector is meant for the rest of a process
        gc.set_threshold(*thresholds)


@pytest.fixture
async def server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before this test's upstream; its attempts last 10 s at most, its own waits between them 20 ms."""
    retries = {"attempts": 3, "max_delay_s": 0.02}
    config = providers_file(upstream.url, tmp_path, api_key_env="UP_KEY", timeout_s=10, retries=retries)
    async with serving(config, UP_KEY=UP_KEY) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Every line logged during the test, as the JSON that an operator sees, tracebacks included."""
    lines: list[str] = []

    class Kept:
        def msg(self, line: str) -> None:
            lines.append(line)

        debug = info = warning = error = critical = exception = msg

    vars(log).pop("bind", None)  # `logs.configure` lets the logger keep what it first wrote to
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: to_json(event, fallback=str).decode()),
        ],
        logger_factory=lambda *_: Kept(),
        cache_logger_on_first_use=False,
    )
    yield lines
    structlog.reset_defaults()
