"""What the app and a request carry, by typed keys."""

from __future__ import annotations

import asyncio

from aiohttp import web

from fanout.dispatch import Dispatcher
from fanout.metrics import Metrics


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
