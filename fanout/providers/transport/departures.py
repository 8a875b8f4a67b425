"""The moment at which the request of an attempt leaves, whatever adapter makes it.

A permit's request leaves at once on a connection that is open, but only after a look-up and some round trips on a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

ON_DEPARTURE: ContextVar[Callable[[], None] | None] = ContextVar("on_departure", default=None)
"""Called when a request of the current task has left. Not a trace of aiohttp's, which costs each request six awaits."""


def report_departure() -> None:
    """Report that the request of the current task has left."""
    if (report := ON_DEPARTURE.get()) is not None:
        report()


class WatchedRequest(aiohttp.ClientRequest):
    """A request that reports when it has been handed to the network."""

    async def write_bytes(self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None) -> None:
        """Write the body, and with it the head; also one that breaks off has left in part."""
        try:
            await super().write_bytes(writer, conn, content_length)
        finally:
            report_departure()
