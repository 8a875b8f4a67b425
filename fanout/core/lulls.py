"""Moments in which work in the background holds up requests least."""

from __future__ import annotations

import asyncio
from contextlib import suppress

MAX_WAIT_S = 0.25
"""With the half second after which a store is written, and the write itself, a crash loses about the last second at most."""


class Lulls:
    """The moments in which no request is running, or one has just ended.

    A caller who asks one question after the other has then sent the next one, whose calls are on their way: work that begins
    now is done when their answers come. At any other time, one of a hundred requests waits for it.
    """

    def __init__(self) -> None:
        self._running = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    def begin_request(self) -> None:
        """Count a request that runs."""
        self._running += 1

    def end_request(self) -> None:
        """Count the end of a request."""
        self._running -= 1

    def note(self) -> None:
        """Have what waits done now."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return in the next lull, after `MAX_WAIT_S` at the latest."""
        if not self._running:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_WAIT_S):
                    await future
        finally:
            self._waiting.pop(future, None)


LULLS = Lulls()
"""Those of the process."""
