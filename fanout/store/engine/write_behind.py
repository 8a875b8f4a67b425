"""Write-behind: what gathers in memory is written soon after it came, and again after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fanout.core.errors import StoreError
from fanout.observability.logs import log

FLUSH_INTERVAL_S = 0.5
"""The time between the first notification and the write; with the write itself a crash loses less than the last second."""
FINAL_WRITE_TIMEOUT_S = 5.0
"""How long writing is retried at the end before what is left is given up."""


class WriteBehind:
    """A task that writes what its owner gathers. Callers never wait for it."""

    def __init__(
        self, subject: str, database_name: str, write: Callable[[], Awaitable[None]], count_waiting: Callable[[], int]
    ) -> None:
        """Create it; `run` starts the task.

        Args:
            subject: the first word of its log events: `usage.write_failed`.
            database_name: for the log.
            write: writes all that waits, or raises `StoreError` and keeps it.
            count_waiting: how much would be lost, for the log.
        """
        self._subject, self._database_name = subject, database_name
        self._write, self._count_waiting = write, count_waiting
        self._waiting = asyncio.Event()
        self._closing = asyncio.Event()
        self._is_failing = False

    def notify(self) -> None:
        """Have something written soon."""
        self._waiting.set()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        task = asyncio.create_task(self._run_writer(), name=self._subject)
        try:
            yield
        finally:
            # Not cancelled: a statement that is cut off takes its connection with it.
            self._closing.set()
            self._waiting.set()
            await task

    async def _run_writer(self) -> None:
        while not self._closing.is_set():
            await self._waiting.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_INTERVAL_S):
                    await self._closing.wait()
            self._waiting.clear()  # before the write: what comes during it wakes the next one
            if not await self._try_to_write():
                self._waiting.set()
        began = time.monotonic()
        while not await self._try_to_write():
            if time.monotonic() - began > FINAL_WRITE_TIMEOUT_S:
                log.error(f"{self._subject}.lost", database=self._database_name, lost=self._count_waiting())
                return
            await asyncio.sleep(FLUSH_INTERVAL_S)

    async def _try_to_write(self) -> bool:
        """Write all that waits; log the first failure and the end of it."""
        try:
            await self._write()
        except StoreError as error:
            if not self._is_failing:  # once, not twice a second for as long as it lasts
                log.error(f"{self._subject}.write_failed", database=self._database_name, reason=str(error))
            self._is_failing = True
            return False
        if self._is_failing:
            log.info(f"{self._subject}.write_recovered", database=self._database_name)
        self._is_failing = False
        return True
