"""What the app and a request carry, by typed keys."""

from __future__ import annotations

import asyncio

from aiohttp import web

from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.manager import Keeper
from fanout.observability.metrics import Metrics
from fanout.store import Store
from fanout.store.batches import BatchStore
from fanout.store.files import FileStore
from fanout.store.jobs.journal import JobStore


class Life:
    """Where the server is between its start and its end."""

    def __init__(self) -> None:
        self.ready = False
        self.stopping = False
        self.running = 0
        """Requests under way."""
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        self.running += 1
        self._idle.clear()

    def end(self) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

    async def idle(self) -> None:
        """Returns once no request is under way."""
        await self._idle.wait()


DISPATCHER = web.AppKey("dispatcher", Dispatcher)
METRICS = web.AppKey("metrics", Metrics)
LIFE = web.AppKey("life", Life)
STORE = web.AppKey("store", Store)
"""Absent where FANOUT_STORE is `off`, and so is all that follows but the last."""
KEEPER = web.AppKey("keeper", Keeper)
JOBS = web.AppKey("jobs", JobStore)
FILES = web.AppKey("files", FileStore)
BATCHES = web.AppKey("batches", BatchStore)
REQUEST_ID = web.RequestKey("request_id", str)
