"""Connections to upstreams, kept for later calls until one of them turns out to be dead."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import AddrInfoType, Connection
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


class UpstreamProtocol(TurnTaking, ResponseHandler):
    """An upstream's connection."""


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
