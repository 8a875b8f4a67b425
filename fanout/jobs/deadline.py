"""Deadline of a run, by one clock for all machines that share the job: the database's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from fanout.core.errors import StoreError

CLOCK_INTERVAL_S = 60.0
"""Time between looks at the clock: between them, this machine's own measures what has passed."""
ReadClock = Callable[[], Awaitable[float]]
"""Reads the clock that all processes share, in Unix seconds."""


class Deadline:
    """The moment at which a run stops. Without one it does nothing."""

    def __init__(self, read_clock: ReadClock, at: float | None, expire: Callable[[], None]) -> None:
        self._read_clock, self._at, self._expire = read_clock, at, expire
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def run(self, group: asyncio.TaskGroup) -> AsyncGenerator[None]:
        """Call `expire` when the moment comes, or at once if it has passed.

        Raises:
            StoreError: the database does not tell the time.
        """
        if self._at is None:
            yield
            return
        await self._set_timer(self._at)
        task = group.create_task(self._keep(self._at))
        try:
            yield
        finally:
            task.cancel()
            if self._timer:
                self._timer.cancel()

    async def _keep(self, at: float) -> None:
        while True:
            await asyncio.sleep(CLOCK_INTERVAL_S)
            try:
                await self._set_timer(at)
            except StoreError:
                continue  # what was learnt before still holds, and nothing is sent without the database

    async def _set_timer(self, at: float) -> None:
        loop = asyncio.get_running_loop()
        # Counted from before the clock was read: a slow answer must not put the deadline off.
        began = loop.time()
        left_s = at - await self._read_clock()
        if self._timer:
            self._timer.cancel()
        if left_s <= 0:
            self._expire()
        else:
            self._timer = loop.call_at(began + left_s, self._expire)
