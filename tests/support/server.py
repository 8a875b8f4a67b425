"""The real server on a real port: `async with serving(providers_json, UP_KEY="sk-…") as server`."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from fanout.config.settings import load_settings
from fanout.dispatch.dispatcher import Dispatcher
from fanout.server.app import create_app
from fanout.server.lifecycle import DISPATCHER

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
