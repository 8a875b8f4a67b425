"""Connections to upstreams, kept for later calls until one of them turns out to be dead."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from functools import partial
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import RawResponseMessage
from aiohttp.tracing import Trace

from fanout.core.sockets import notice_silence
from fanout.core.turns import TurnTaking
from fanout.providers.transport.resolver import DedicatedResolver

KEEPALIVE_S = 30.0
"""How long an idle connection is kept."""


def _open_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    notice_silence(opened)
    return opened


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


class TakenConnection:
    """A connection of the pool while a request has it: what `aiohttp.connector.Connection` is, without its callbacks."""

    __slots__ = ("_connector", "_key", "protocol")

    def __init__(self, connector: UpstreamConnector, key: ConnectionKey, protocol: UpstreamProtocol) -> None:
        self._connector, self._key = connector, key
        self.protocol: UpstreamProtocol | None = protocol

    def release(self) -> None:
        """Give the connection back to the pool."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._connector.give_back(self._key, protocol)

    def close(self) -> None:
        """Close the connection."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._connector.give_back(self._key, protocol, should_close=True)


class TurnTakingConnector(aiohttp.TCPConnector):
    """A pool of connections on which no upstream's odd chunks hold the event loop."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(UpstreamProtocol, loop=asyncio.get_running_loop()))


class UpstreamConnector(TurnTakingConnector):
    """A pool that closes a host's idle connections when one in use breaks: whatever broke it has likely broken them, too.

    Without that, each attempt at a call could draw another dead one. A connection on which something came while it was idle
    is not used again: the next call, perhaps another caller's, would take it for its answer. Open it within a running event
    loop.
    """

    def __init__(self, verify: ssl.SSLContext | bool = True, *, may_write_heads: bool = True) -> None:
        """Open the pool.

        Args:
            verify: the authorities whose certificates are trusted, by default the system's.
            may_write_heads: an `OwnClient` may use these connections, not only aiohttp's client.
        """
        self.may_write_heads = may_write_heads
        # limit=0: aiohttp's own limit of 100 would queue calls invisibly; the limit is the limiter's cap.
        super().__init__(
            limit=0,
            ssl=verify,
            resolver=DedicatedResolver(),
            ttl_dns_cache=300,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=_open_socket,
        )

    def has_idle(self, key: ConnectionKey) -> bool:
        """Return whether a connection is idle, or seems to be."""
        return key in self._conns

    def take_idle(self, key: ConnectionKey) -> TakenConnection | None:
        """Take an idle connection without a coroutine, or any object of aiohttp's; `None`: one must be opened."""
        idle = self._conns.get(key)
        while idle:
            protocol, idle_since = idle.popleft()
            if not idle:
                del self._conns[key]
            # The same tests as in aiohttp's `_get`, and that of ours.
            is_fresh = time.monotonic() - idle_since <= KEEPALIVE_S
            if is_fresh and protocol.is_connected() and not protocol.should_close:
                self._acquired.add(protocol)
                return TakenConnection(self, key, cast("UpstreamProtocol", protocol))
            protocol.close()
        return None

    def give_back(self, key: ConnectionKey, protocol: UpstreamProtocol, *, should_close: bool = False) -> None:
        """Take back what `take_idle` has given."""
        # What comes now belongs to nobody.
        protocol.receiver = None
        if should_close or self._cleanup_handle is None or protocol.should_close or protocol.transport is None:
            self._release(key, protocol, should_close=should_close)
            return
        self._acquired.discard(protocol)
        self._conns[key].append((protocol, time.monotonic()))
        protocol._parser = None  # see `_release`

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        # Connected still: the answer came to its end, or the call was given up here.
        if not protocol.is_connected():
            for idle, _ in self._conns.pop(key, ()):
                idle.close()
        super()._release(key, protocol, should_close=should_close)
        # Without a parser, what comes now is kept as it is, and `should_close` tells of it. Each response gets a new one.
        protocol._parser = None

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None
