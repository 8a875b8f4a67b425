"""A connection to an upstream: what it brings, and who has it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import RawResponseMessage

from fanout.core.sockets import untie
from fanout.core.turns import TurnTaking


class Receiver(Protocol):
    """A reader of a connection that waits for nothing: it is called as soon as something has come."""

    def receive(self, message: RawResponseMessage, content: aiohttp.StreamReader) -> None:
        """Take the head of a response and its body, of which all may have come."""

    def fail(self, error: BaseException) -> None:
        """Note that the connection has broken, or that what came is not HTTP."""


class UpstreamProtocol(TurnTaking, ResponseHandler):
    """An upstream's connection."""

    receiver: Receiver | None = None
    """Whoever gets the next response, instead of a coroutine that waits in `read`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        super().connection_made(transport)
        self._last_transport: asyncio.BaseTransport | None = transport

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        untie(self._last_transport)  # not `transport`, of which aiohttp knows nothing more once it has closed it
        self._last_transport = None

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Pass on the head of a response with its body."""
        if self.receiver is None:
            super().feed_data(data, size)
        else:
            self.receiver.receive(*data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        """Pass on what has ended the connection."""
        super().set_exception(exc, exc_cause)
        if self.receiver is not None:
            exc.__cause__ = None if exc_cause is _EXC_SENTINEL else exc_cause
            self.receiver.fail(exc)


class Pool(Protocol):
    """The owner of connections that are taken."""

    def give_back(self, key: ConnectionKey, protocol: UpstreamProtocol, *, should_close: bool = False) -> None:
        """Take a connection back."""


class TakenConnection:
    """A connection of the pool while a request has it: what `aiohttp.connector.Connection` is, without its callbacks."""

    __slots__ = ("_key", "_pool", "protocol")

    def __init__(self, pool: Pool, key: ConnectionKey, protocol: UpstreamProtocol) -> None:
        self._pool, self._key = pool, key
        self.protocol: UpstreamProtocol | None = protocol

    def leave(self) -> UpstreamProtocol:
        """Return the connection, of whose end somebody else takes care."""
        protocol, self.protocol = self.protocol, None
        assert protocol is not None
        return protocol

    def release(self) -> None:
        """Give the connection back to the pool."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._pool.give_back(self._key, protocol)

    def close(self) -> None:
        """Close the connection."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._pool.give_back(self._key, protocol, should_close=True)


class WaitingTask:
    """A task that waits for a connection."""

    __slots__ = ("_served",)

    def __init__(self) -> None:
        self._served: asyncio.Future[TakenConnection] = asyncio.get_running_loop().create_future()

    def take(self, connection: TakenConnection) -> None:
        """See `Taker.take`."""
        if self._served.done():  # it was cancelled, which the task has yet to notice
            connection.release()
        else:
            self._served.set_result(connection)

    def fail(self, error: BaseException) -> None:
        """See `Taker.fail`."""
        if not self._served.done():
            self._served.set_exception(error)

    async def wait(self) -> UpstreamProtocol:
        """Return the connection, which is the caller's from now on."""
        try:
            connection = await self._served
        except asyncio.CancelledError:
            # It may have been served just before that.
            if not self._served.cancelled() and self._served.exception() is None:
                self._served.result().release()
            raise
        return connection.leave()
