"""Look-ups of host names in threads of their own, few at a time.

asyncio's own look-ups share the threads that read files and parse large answers: names that a caller chooses, and whose servers
do not answer, would hold all of them for minutes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiohttp.abc import AbstractResolver, ResolveResult

from fanout.limits.shared_capacity import SharedCapacity

MAX_LOOKUPS = 16
"""Look-ups at once by one resolver; further ones wait. One that hangs keeps its place until the system gives it up."""


class Places(Protocol):
    """A number of look-ups that may run at once, such as a `SharedCapacity`."""

    async def take(self, units: int) -> None: ...
    def give_back(self, units: int) -> None: ...


class DedicatedResolver(AbstractResolver):
    """A resolver that disturbs nothing else, whatever its names do. Its threads do not keep the process from ending.

    Args:
        places: each look-up takes one of every capacity, in this order; by default `MAX_LOOKUPS` of the resolver's own.
    """

    def __init__(self, places: Sequence[Places] = ()) -> None:
        self._places: tuple[Places, ...] = tuple(places) or (SharedCapacity(MAX_LOOKUPS),)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Return the addresses of a host; raise `OSError` where there is none."""
        await self._take_places()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(infos: list[Any], error: OSError | None) -> None:
            # Here, not where it is awaited: a look-up that nobody waits for still has its thread.
            self._give_back(self._places)
            if not found.cancelled():
                found.set_exception(error) if error else found.set_result(infos)

        def look_up() -> None:
            infos, failure = [], None
            try:
                infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            except OSError as error:
                failure = error
            except ValueError as error:  # a name that cannot even be encoded
                failure = OSError(str(error))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, infos, failure)

        try:
            threading.Thread(target=look_up, name="dns", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._give_back(self._places)
            raise OSError(str(error)) from None
        return [_to_result(host, *info) for info in await found]

    async def _take_places(self) -> None:
        taken: list[Places] = []
        try:
            for capacity in self._places:
                await capacity.take(1)
                taken.append(capacity)
        except asyncio.CancelledError:
            self._give_back(taken)
            raise

    def _give_back(self, places: Sequence[Places]) -> None:
        for capacity in places:
            capacity.give_back(1)

    async def close(self) -> None:
        """Do nothing: a thread ends with its look-up."""


def _to_result(host: str, family: int, _: int, protocol: int, __: str, address: tuple[Any, ...]) -> ResolveResult:
    # The zone of a link-local address is in its fourth field.
    numeric = f"{address[0]}%{address[3]}" if family == socket.AF_INET6 and address[3] else address[0]
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=numeric, port=address[1], family=family, proto=protocol, flags=flags)
