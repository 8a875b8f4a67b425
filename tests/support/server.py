"""The real server on a real port: `async with serve(providers_json, UP_KEY="sk-…") as server`."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import Dispatcher
from fanout.server.app import create_app, make_runner
from fanout.server.connections import WaitLimits
from fanout.server.lifecycle import DISPATCHER

UP_KEY = "sk-upstream-0123456789abcdef"
"""The key of provider `up` behind the fixture `server`, which no answer and no log may show."""


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
        """Calls that hold a place, over all accounts, including callers' own."""
        return self.dispatcher.cap.used


def serve(config: Path | None = None, **environ: str) -> AbstractAsyncContextManager[Server]:
    """Serve with a providers.json (`None`: the shipped one) and these variables alone, as `fanout serve` does."""
    return serve_with_limits(WaitLimits(), config, 0, **environ)


@asynccontextmanager
async def serve_with_limits(
    limits: WaitLimits, config: Path | None = None, port: int = 0, **environ: str
) -> AsyncGenerator[Server]:
    """Serve as `serve` does, with other limits on waiting, or on a port that was chosen before.

    aiohttp's TestServer would not do: it cancels handlers whatever the settings of the runner.
    """
    nowhere = {"HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull, "FANOUT_STORE": "off"}  # their files must not be touched
    load = partial(load_settings, config, {**nowhere, **environ})
    app = create_app(load(), limits, load=load)
    runner = make_runner(app, 1.0)
    thresholds = gc.get_threshold()
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024, reuse_address=True).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Server(url, app, app[DISPATCHER], session)
    finally:
        await runner.cleanup()
        gc.unfreeze()  # the app changes the collector for the rest of a process
        gc.set_threshold(*thresholds)
