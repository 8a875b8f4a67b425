"""Connections that are being opened: few to one host at once, and whoever waits for one may get another that has come free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

import aiohttp

from fanout.providers.transport.connections import TakenConnection

MAX_OPENINGS = 64
"""To one host at once. Many hosts keep 128 that they have not accepted yet; one beyond these is tried again after a second."""
MAX_FAILED_AT_ONCE = 16
"""Of those who wait: the end of so many calls takes 1 to 2 ms, after which others have their turn."""
PAUSE_S = 0.1
"""Between two openings to a host whose connections come free sooner than another is opened."""
OpenConnection = Callable[[aiohttp.ClientRequest, aiohttp.ClientTimeout], Coroutine[Any, Any, TakenConnection]]


class Taker(Protocol):
    """Whoever waits for a connection. One of these functions is called, once; neither raises."""

    def take(self, connection: TakenConnection) -> None:
        """Take a connection, to be released or closed."""

    def fail(self, error: BaseException) -> None:
        """Note why no connection was opened."""


class HostOpenings:
    """Those who wait for a connection to one host, in order, and the connections that are being opened for them.

    A task of its own opens each, so that it serves whoever is the first to wait then. While anybody waits, one is being opened.

    Args:
        open_connection: for a request of any who wait.
        take_idle: of the host's connections.
        count_used: of all connections that are not idle.
        on_unused: called once nobody waits and nothing is being opened.
    """

    __slots__ = (
        "_count_used",
        "_failing",
        "_failures",
        "_freed",
        "_is_quick",
        "_is_serving",
        "_on_unused",
        "_open_connection",
        "_opening",
        "_take_idle",
        "_takers",
        "_tasks",
    )

    def __init__(
        self,
        open_connection: OpenConnection,
        take_idle: Callable[[], TakenConnection | None],
        count_used: Callable[[], int],
        on_unused: Callable[[], object],
    ) -> None:
        self._open_connection, self._take_idle, self._count_used = open_connection, take_idle, count_used
        self._on_unused = on_unused
        self._takers: dict[Taker, None] = {}
        self._failing: dict[Taker, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = self._freed = 0
        self._failures = 0
        """Since a connection was last opened."""
        self._is_serving = False
        self._is_quick = False
        """All connections came free while the last was opened: hardly another is needed."""

    def is_awaited(self) -> bool:
        """Return whether anybody waits."""
        return bool(self._takers)

    def join(self, taker: Taker, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        """Wait for a connection, behind all others."""
        self._takers[taker] = None
        if self._opening < self._most:
            self._begin(request, timeout)

    def leave(self, taker: Taker) -> None:
        """Wait no longer. What is being opened is for the next."""
        self._takers.pop(taker, None)
        self._failing.pop(taker, None)

    def serve_soon(self) -> None:
        """Give idle connections to those who wait, but not within the step of whoever has given one back."""
        self._freed += 1
        if self._takers and not self._is_serving:
            self._is_serving = True
            asyncio.get_running_loop().call_soon(self._serve, context=Context())

    def close(self, error: Exception) -> list[asyncio.Task[None]]:
        """Fail all who wait, and return the tasks that end now."""
        for task in self._tasks:
            task.cancel()
        for takers in (self._failing, self._takers):
            while takers:
                _pop(takers).fail(error)
        return list(self._tasks)

    @property
    def _most(self) -> int:
        return 1 if self._is_quick else MAX_OPENINGS

    def _serve(self) -> None:
        self._is_serving = False
        while self._takers and (connection := self._take_idle()) is not None:
            _pop(self._takers).take(connection)

    def _begin_enough(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        while self._opening < min(self._most, len(self._takers)):
            self._begin(request, timeout)

    def _begin(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        self._opening += 1
        # In no caller's context, which would be kept for as long as the connection.
        task = asyncio.get_running_loop().create_task(self._open(request, timeout), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout) -> None:
        freed = self._freed
        try:
            connection = await self._open_connection(request, timeout)
        except Exception as error:
            self._opening -= 1
            self._note_failure(error)
        else:
            self._failures = 0
            if self._takers:
                _pop(self._takers).take(connection)
            else:
                connection.release()
            self._is_quick = self._freed - freed > self._count_used()
            if self._is_quick and self._opening == 1 and self._takers:
                await asyncio.sleep(PAUSE_S)
            self._opening -= 1
            self._begin_enough(request, timeout)
        self._note_end()

    def _note_failure(self, error: Exception) -> None:
        """Fail one who waits, unless enough others are opening; all, if none is, or many have failed one after the other.

        So a host that refuses, or does not answer, fails those who wait as if each had tried, and not one set after the other.
        """
        self._failures += 1
        if not self._opening or self._failures >= MAX_OPENINGS:
            self._failures = 0
            self._fail_all(error)
        elif len(self._takers) > self._opening:
            _pop(self._takers).fail(error)

    def _fail_all(self, error: Exception) -> None:
        is_failing = bool(self._failing)
        self._failing |= self._takers
        self._takers.clear()
        if not is_failing:
            self._fail_some(error)

    def _fail_some(self, error: Exception) -> None:
        for _ in range(min(MAX_FAILED_AT_ONCE, len(self._failing))):
            _pop(self._failing).fail(error)
        if self._failing:
            asyncio.get_running_loop().call_soon(self._fail_some, error)
        else:
            self._note_end()

    def _note_end(self) -> None:
        if not (self._takers or self._failing or self._opening):
            self._on_unused()


def _pop(takers: dict[Taker, None]) -> Taker:
    """Remove and return the first."""
    taker = next(iter(takers))
    del takers[taker]
    return taker
