"""Connections to upstreams, kept for later calls until one of them turns out to be dead."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace

from fanout.core.authorities import lacks_authorities, load_authorities
from fanout.core.sockets import notice_silence
from fanout.core.threads import run_in_thread
from fanout.providers.transport.connections import TakenConnection, UpstreamProtocol, WaitingTask
from fanout.providers.transport.openings import HostOpenings, Taker
from fanout.providers.transport.resolver import DedicatedResolver

CLOSED = "Connector is closed."
"""As aiohttp has it."""
KEEPALIVE_S = 30.0
"""How long an idle connection is kept."""


def _open_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    notice_silence(opened)
    return opened


class TurnTakingConnector(aiohttp.TCPConnector):
    """A pool of connections on which no upstream's odd chunks hold the event loop, nor the certificates that it trusts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(UpstreamProtocol, loop=asyncio.get_running_loop()))

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """Open a connection; before the first that may be encrypted, read the system's authorities."""
        if lacks_authorities() and (req.is_ssl() or req.proxy):
            await run_in_thread("setup", load_authorities)
        return await super()._create_connection(req, traces, timeout)


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
        self._openings: dict[ConnectionKey, HostOpenings] = {}
        # limit=0: aiohttp's own limit of 100 would queue calls invisibly; the limit is the limiter's cap.
        super().__init__(
            limit=0,
            ssl=verify,
            resolver=DedicatedResolver(),
            ttl_dns_cache=300,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=_open_socket,
        )

    def take_idle(self, key: ConnectionKey) -> TakenConnection | None:
        """Take an idle connection without a coroutine, or any object of aiohttp's; `None`: it must be waited for."""
        if self._openings and self._is_awaited(key):  # a key's hash takes 0.3 µs
            return None
        return self._take_idle(key)

    def wait(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, taker: Taker) -> None:
        """Give a connection to `taker` as soon as one is idle, which may be opened for it."""
        key = request.connection_key
        if (host := self._openings.get(key)) is None:
            host = self._openings[key] = HostOpenings(
                self._open, partial(self._take_idle, key), self._acquired.__len__, partial(self._openings.pop, key, None)
            )
        host.join(taker, request, timeout)

    def leave(self, key: ConnectionKey, taker: Taker) -> None:
        """Wait for a connection no longer."""
        if (host := self._openings.get(key)) is not None:
            host.leave(taker)

    def _is_awaited(self, key: ConnectionKey) -> bool:
        host = self._openings.get(key)
        return host is not None and host.is_awaited()

    async def _open(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> TakenConnection:
        protocol = cast("UpstreamProtocol", await super()._create_connection(request, [], timeout))
        if self._closed:
            protocol.close()
            raise aiohttp.ClientConnectionError(CLOSED)
        self._acquired.add(protocol)
        return TakenConnection(self, request.connection_key, protocol)

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """Wait for a connection, which the base would open for this request alone."""
        waiting = WaitingTask()
        self.wait(req, timeout, waiting)
        try:
            protocol = await waiting.wait()
        finally:
            self.leave(req.connection_key, waiting)
        if req.proxy:
            self._update_proxy_auth_header_and_build_proxy_req(req)
        return protocol

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        closing = super()._close(abort_ssl=abort_ssl)
        for host in self._openings.values():
            closing.extend(host.close(aiohttp.ClientConnectionError(CLOSED)))
        return closing

    def _take_idle(self, key: ConnectionKey) -> TakenConnection | None:
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
        if self._openings:  # a key's hash takes 0.3 µs
            self._note_idle(key)

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        # Connected still: the answer came to its end, or the call was given up here.
        if not protocol.is_connected():
            for idle, _ in self._conns.pop(key, ()):
                idle.close()
        super()._release(key, protocol, should_close=should_close)
        # Without a parser, what comes now is kept as it is, and `should_close` tells of it. Each response gets a new one.
        protocol._parser = None
        self._note_idle(key)

    def _note_idle(self, key: ConnectionKey) -> None:
        if (host := self._openings.get(key)) is not None and key in self._conns:  # else it was closed
            host.serve_soon()

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        if self._is_awaited(key):
            return None
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None
