"""The port of a server: of one process, or shared by several."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from fanout.core.errors import ListenError

BACKLOG = 1024
"""Connections that wait to be accepted: a burst of clients waits while a loop is busy, instead of being refused."""
RESCUE_S = 0.05
"""Time after which a connection that its own worker has not accepted is accepted by another."""
NEXT_RESCUE_S = 0.001

Listeners = Sequence[socket.socket]
"""A worker's listening sockets, one for each address."""


class Site(Protocol):
    """What accepts connections."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class RescueSite:
    """A worker's eye on the sockets of the others: it accepts what a worker that is dead, stuck or busy leaves waiting."""

    def __init__(self, runner: web.AppRunner, listeners: Listeners) -> None:
        self._runner, self._listeners = runner, listeners
        self._loop = asyncio.get_running_loop()
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._accepting: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        """Begin to watch."""
        for one in self._listeners:
            one.setblocking(False)
            self._watch(one)

    def _watch(self, listener: socket.socket) -> None:
        self._timers.pop(listener, None)
        self._loop.add_reader(listener.fileno(), self._notice, listener)

    def _notice(self, listener: socket.socket) -> None:
        # Nearly always its own worker accepts it meanwhile.
        self._loop.remove_reader(listener.fileno())
        self._timers[listener] = self._loop.call_later(RESCUE_S, self._rescue, listener)

    def _rescue(self, listener: socket.socket) -> None:
        server = self._runner.server
        assert server is not None
        try:
            connection, _ = listener.accept()
        except OSError:  # none waits any more, or there is no descriptor left for it
            self._watch(listener)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(server, connection))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        # One by one: its own worker, which accepts all at once, may be back.
        self._timers[listener] = self._loop.call_later(NEXT_RESCUE_S, self._rescue, listener)

    async def stop(self) -> None:
        """Accept nothing more."""
        for one in self._listeners:
            self._loop.remove_reader(one.fileno())
            one.close()
        for timer in self._timers.values():
            timer.cancel()


async def listen(runner: web.AppRunner, host: str, port: int) -> Site:
    """Listen in a server of one process; raise `ListenError` if the address cannot be listened on."""
    site = web.TCPSite(runner, host, port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise _to_listen_error(host, port, error) from error
    return site


def bind(host: str, port: int, workers: int) -> Sequence[Listeners]:
    """Return each worker's sockets on the same port, of which 0 takes a free one.

    The system deals new connections out among them (SO_REUSEPORT). They are the supervisor's, so that none is lost with the
    worker that was to accept it.

    Raises:
        ListenError: the address cannot be listened on.
    """
    try:
        return asyncio.run(_bind(host, port, workers))
    except OSError as error:
        raise _to_listen_error(host, port, error) from error


async def _bind(host: str, port: int, workers: int) -> Sequence[Listeners]:
    # First as a single process would: with SO_REUSEPORT alone, a second server on the port would not be refused.
    names = await _open(host, port, reuse_port=False)
    addresses = [one.getsockname()[:2] for one in names]
    for one in names:
        one.close()
    return [
        [one for address in addresses for one in await _open(*address, reuse_port=True, backlog=BACKLOG)]
        for _ in range(workers)
    ]


async def _open(host: str, port: int, *, reuse_port: bool, backlog: int | None = None) -> Listeners:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, reuse_port=reuse_port, start_serving=False)
    opened = [one.dup() for one in server.sockets]
    server.close()
    for one in opened:
        if backlog:
            one.listen(backlog)
    return opened


def _to_listen_error(host: str, port: int, error: OSError) -> ListenError:
    """Return the error that says why an address cannot be listened on."""
    # asyncio puts its own sentence before the reason: "error while attempting to bind on address …: …".
    reason = (error.strerror or str(error)).rpartition(": ")[2]
    return ListenError(f"cannot listen on {host}:{port}: {reason}; `--port` takes another, 0 a free one")


def write_address(host: str, port: int) -> str:
    """Return the address of a server, for its greeting."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
