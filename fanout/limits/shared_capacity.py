"""A capacity that many tasks share: bytes of memory, threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class SharedCapacity:
    """A number of units that tasks take and give back; waiting tasks are served in order.

    Args:
        limit: the units that all tasks together may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, units: int) -> bool:
        """Take units if they are free and no task is waiting; return whether they were taken."""
        # Nobody overtakes: a large request would starve behind a stream of small ones that always fit.
        if self._waiting or self.used + units > self.limit:
            return False
        self.used += units
        return True

    async def take(self, units: int) -> None:
        """Take units once they are free; a request above `limit` would wait for ever."""
        if self.take_now(units):
            return
        turn = asyncio.get_running_loop().create_future()
        place = (units, turn)
        self._waiting.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
                units = 0  # not taken yet; later, smaller requests may fit now
            self.give_back(units)
            raise

    def give_back(self, units: int) -> None:
        """Give back units that were taken, to those that have waited longest."""
        self.used -= units
        while self._waiting and self.used + self._waiting[0][0] <= self.limit:
            wanted, turn = self._waiting.popleft()
            self.used += wanted
            # A waiter that was cancelled in this very moment has a place no more, and gives its units back in `take`.
            if not turn.done():
                turn.set_result(None)

    @asynccontextmanager
    async def hold(self, units: int) -> AsyncGenerator[None]:
        """Take units once they are free, at most `limit`, and give them back when the context closes."""
        # More than everything would wait for ever.
        units = min(units, self.limit)
        await self.take(units)
        try:
            yield
        finally:
            self.give_back(units)
